//! Writes the simplest Parquet file there is: one group of rows, one page a column, plain values, nothing compressed.
//! It shares nothing with the reader that it is used to try.

/// A column: its name and its values.
#[derive(Clone, Debug)]
pub enum Column {
    /// 32-bit whole numbers.
    Int(&'static str, Vec<i32>),
    /// 64-bit whole numbers.
    Long(&'static str, Vec<i64>),
    /// 32-bit floating-point numbers.
    Float(&'static str, Vec<f32>),
    /// 64-bit floating-point numbers.
    Double(&'static str, Vec<f64>),
    /// Texts.
    Text(&'static str, Vec<String>),
}

impl Column {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Int(name, _)
            | Self::Long(name, _)
            | Self::Float(name, _)
            | Self::Double(name, _)
            | Self::Text(name, _) => name,
        }
    }

    fn physical(&self) -> i64 {
        match self {
            Self::Int(..) => 1,
            Self::Long(..) => 2,
            Self::Float(..) => 4,
            Self::Double(..) => 5,
            Self::Text(..) => 6,
        }
    }

    fn plain(&self) -> Vec<u8> {
        match self {
            Self::Int(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Long(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Float(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Double(_, values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Text(_, values) => values
                .iter()
                .flat_map(|v| {
                    let length = u32::try_from(v.len()).unwrap_or(0);
                    length.to_le_bytes().into_iter().chain(v.bytes()).collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Int(_, values) => values.len(),
            Self::Long(_, values) => values.len(),
            Self::Float(_, values) => values.len(),
            Self::Double(_, values) => values.len(),
            Self::Text(_, values) => values.len(),
        }
    }
}

/// A structure in Thrift's compact protocol, field by field in ascending order.
#[derive(Default)]
struct Struct {
    bytes: Vec<u8>,
    last: u8,
}

impl Struct {
    fn head(&mut self, id: u8, kind: u8) {
        self.bytes.push(((id - self.last) << 4) | kind);
        self.last = id;
    }

    /// A number of 32 bits.
    fn integer(self, id: u8, value: i64) -> Self {
        self.number(id, 5, value)
    }

    /// A number of 64 bits.
    fn long(self, id: u8, value: i64) -> Self {
        self.number(id, 6, value)
    }

    fn number(mut self, id: u8, kind: u8, value: i64) -> Self {
        self.head(id, kind);
        varint(&mut self.bytes, ((value << 1) ^ (value >> 63)).cast_unsigned());
        self
    }

    fn text(mut self, id: u8, value: &str) -> Self {
        self.head(id, 8);
        text(&mut self.bytes, value);
        self
    }

    fn structure(mut self, id: u8, value: Self) -> Self {
        self.head(id, 12);
        self.bytes.extend(value.end());
        self
    }

    fn list(mut self, id: u8, kind: u8, elements: Vec<Vec<u8>>) -> Self {
        self.head(id, 9);
        self.bytes.push(0xf0 | kind);
        varint(&mut self.bytes, elements.len() as u64);
        self.bytes.extend(elements.concat());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn text(out: &mut Vec<u8>, value: &str) {
    varint(out, value.len() as u64);
    out.extend(value.bytes());
}

/// The file.
#[must_use]
pub fn write(columns: &[Column]) -> Vec<u8> {
    let rows = columns.first().map_or(0, Column::rows);
    let size = |n: usize| i64::try_from(n).unwrap_or(0);
    let mut file = b"PAR1".to_vec();
    let root = Struct::default().text(4, "schema").integer(5, size(columns.len())).end();
    let mut schema = vec![root];
    let mut chunks = Vec::new();
    for column in columns {
        schema
            .push(Struct::default().integer(1, column.physical()).integer(3, 0).text(4, column.name()).end());
        let plain = column.plain();
        let offset = file.len();
        let page = Struct::default().integer(1, size(rows)).integer(2, 0).integer(3, 3).integer(4, 3);
        let header =
            Struct::default().integer(1, 0).integer(2, size(plain.len())).integer(3, size(plain.len()));
        file.extend(header.structure(5, page).end());
        file.extend(plain);
        let mut path = Vec::new();
        text(&mut path, column.name());
        let meta = Struct::default()
            .integer(1, column.physical())
            .list(2, 5, vec![vec![0]])
            .list(3, 8, vec![path])
            .integer(4, 0)
            .long(5, size(rows))
            .long(6, size(file.len() - offset))
            .long(7, size(file.len() - offset))
            .long(9, size(offset));
        chunks.push(Struct::default().long(2, size(offset)).structure(3, meta).end());
    }
    let group = Struct::default().list(1, 12, chunks).long(2, size(file.len())).long(3, size(rows)).end();
    let footer = Struct::default()
        .integer(1, 1)
        .list(2, 12, schema)
        .long(3, size(rows))
        .list(4, 12, vec![group])
        .end();
    file.extend(&footer);
    file.extend(u32::try_from(footer.len()).unwrap_or(0).to_le_bytes());
    file.extend(b"PAR1");
    file
}
