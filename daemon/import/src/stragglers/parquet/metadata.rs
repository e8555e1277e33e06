//! The headers of a Parquet file: the footer, which says where the columns lie, and the header before each page.

use super::Damage;
use super::thrift::Reader;

/// How a value is stored. Numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Int32,
    Int64,
    Float,
    Double,
    Text,
    Other,
}

impl Physical {
    fn from_id(id: i64) -> Self {
        match id {
            1 => Self::Int32,
            2 => Self::Int64,
            4 => Self::Float,
            5 => Self::Double,
            6 => Self::Text,
            _ => Self::Other,
        }
    }
}

/// What the file says of its columns as a whole.
#[derive(Debug)]
pub(super) struct FileMeta {
    pub(super) columns: Vec<ColumnMeta>,
    pub(super) groups: Vec<Group>,
    pub(super) encrypted: bool,
}

/// A column that is no part of a nested one.
#[derive(Clone, Debug)]
pub(super) struct ColumnMeta {
    pub(super) name: String,
    pub(super) physical: Physical,
    /// Whether values may be missing; a value that may be repeated has no place in a table.
    pub(super) optional: bool,
}

/// Rows that are stored together, column by column.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) rows: usize,
    pub(super) chunks: Vec<Chunk>,
}

/// One column of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) path: Vec<String>,
    pub(super) codec: i64,
    pub(super) values: usize,
    pub(super) stored_len: usize,
    pub(super) data_offset: usize,
    pub(super) dictionary_offset: Option<usize>,
    pub(super) in_other_file: bool,
}

struct Element {
    name: String,
    physical: Physical,
    repetition: i64,
    children: usize,
}

/// Reads the footer.
pub(super) fn file_meta(bytes: &[u8]) -> Result<FileMeta, Damage> {
    let (mut schema, mut groups, mut encrypted) = (Vec::new(), Vec::new(), false);
    Reader::new(bytes).structure(|r, field| {
        match field.id {
            2 => schema = r.structures(field, element)?,
            4 => groups = r.structures(field, group)?,
            8 => {
                encrypted = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(FileMeta { columns: top_columns(&schema)?, groups, encrypted })
}

/// The columns right below the root. What is nested is passed over: its elements follow its head, depth first.
fn top_columns(schema: &[Element]) -> Result<Vec<ColumnMeta>, Damage> {
    let Some((root, below)) = schema.split_first() else {
        return Err(Damage::Nonsense("a schema without a root"));
    };
    let mut columns = Vec::new();
    let (mut at, mut top_left) = (below.iter(), root.children);
    while top_left > 0 {
        let element = at.next().ok_or(Damage::Cut("the schema"))?;
        top_left -= 1;
        if element.children == 0 {
            columns.push(ColumnMeta {
                name: element.name.clone(),
                physical: if element.repetition == 2 { Physical::Other } else { element.physical },
                optional: element.repetition == 1,
            });
            continue;
        }
        let mut nested = element.children;
        while nested > 0 {
            let inner = at.next().ok_or(Damage::Cut("the schema"))?;
            nested = (nested - 1).saturating_add(inner.children);
        }
    }
    Ok(columns)
}

fn element(r: &mut Reader<'_>) -> Result<Element, Damage> {
    let mut element = Element { name: String::new(), physical: Physical::Other, repetition: 0, children: 0 };
    r.structure(|r, field| {
        match field.id {
            1 => element.physical = Physical::from_id(r.integer(field)?),
            3 => element.repetition = r.integer(field)?,
            4 => element.name = r.text(field)?,
            5 => element.children = r.size(field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

fn group(r: &mut Reader<'_>) -> Result<Group, Damage> {
    let mut group = Group { rows: 0, chunks: Vec::new() };
    r.structure(|r, field| {
        match field.id {
            1 => group.chunks = r.structures(field, chunk)?,
            3 => group.rows = r.size(field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(group)
}

fn chunk(r: &mut Reader<'_>) -> Result<Chunk, Damage> {
    let mut chunk = Chunk::default();
    r.structure(|r, field| {
        match field.id {
            1 => chunk.in_other_file = !r.text(field)?.is_empty(),
            3 => r.structure(|r, field| {
                match field.id {
                    3 => chunk.path = r.texts(field)?,
                    4 => chunk.codec = r.integer(field)?,
                    5 => chunk.values = r.size(field)?,
                    7 => chunk.stored_len = r.size(field)?,
                    9 => chunk.data_offset = r.size(field)?,
                    11 => chunk.dictionary_offset = Some(r.size(field)?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(chunk)
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    Data,
    /// Levels are stored apart and plainly, before values that may be compressed.
    DataV2 {
        levels_len: usize,
        compressed: bool,
    },
    Dictionary,
    Other,
}

/// The header of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageHeader {
    pub(super) kind: PageKind,
    pub(super) values: usize,
    pub(super) encoding: i64,
    pub(super) stored_len: usize,
    pub(super) plain_len: usize,
    /// Bytes of the header itself.
    pub(super) header_len: usize,
}

/// Reads the header of a page.
pub(super) fn page_header(bytes: &[u8]) -> Result<PageHeader, Damage> {
    let mut reader = Reader::new(bytes);
    let (mut kind, mut levels_len, mut compressed) = (-1, 0usize, true);
    let (mut values, mut encoding, mut stored_len, mut plain_len) = (0, -1, 0, 0);
    reader.structure(|r, field| {
        match field.id {
            1 => kind = r.integer(field)?,
            2 => plain_len = r.size(field)?,
            3 => stored_len = r.size(field)?,
            // The data page of either version and the dictionary page begin alike but for the place of the encoding.
            5 | 7 => r.structure(|r, field| {
                match field.id {
                    1 => values = r.size(field)?,
                    2 => encoding = r.integer(field)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            8 => r.structure(|r, field| {
                match field.id {
                    1 => values = r.size(field)?,
                    4 => encoding = r.integer(field)?,
                    5 | 6 => levels_len = levels_len.saturating_add(r.size(field)?),
                    7 => compressed = r.boolean(field),
                    _ => return Ok(false),
                }
                // A truth value has no bytes of its own.
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let kind = match kind {
        0 => PageKind::Data,
        2 => PageKind::Dictionary,
        3 => PageKind::DataV2 { levels_len, compressed },
        _ => PageKind::Other,
    };
    Ok(PageHeader { kind, values, encoding, stored_len, plain_len, header_len: reader.position() })
}
