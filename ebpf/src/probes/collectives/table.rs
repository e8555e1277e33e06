//! The table of functions: which are collectives, and where what is asked of a call lies among its arguments.
//!
//! `table.tsv` is what people write. Here it becomes one row for each symbol (C, `P` variants, 64-bit counts, Fortran in
//! its spellings), in the form that the kernel half follows. A row's number is what records call it by.

use std::collections::HashMap;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};

/// Values of a call, at most: WIRE_CALL_VALUES.
pub(crate) const VALUES: usize = stallscope_schemas::wire::CALL_VALUES;
/// Most rows: MAX_ROWS of the kernel half.
pub(crate) const MAX_ROWS: usize = 4096;

const TABLE: &str = include_str!("table.tsv");

/// What a value of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Count,
    Type,
    Op,
    /// Root, destination or source.
    Peer,
    Comm,
    Stream,
    Rank,
    Size,
    /// The communicator that the call makes.
    Made,
    /// What names a communicator to all of its ranks.
    Id,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    argument: u8,
    pointers: u8,
    offsets: [u16; 2],
    word: bool,
    late: bool,
}

/// How the function is called and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// Returns to its caller by a return: a return probe may hold the place of the return address.
    C,
    /// Arguments are pointers; else as C.
    Fortran,
    /// May be left by an exception, which looks for the return address: only its instructions may be probed.
    Cpp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) asynchronous: bool,
    pub(crate) ranks: bool,
    pub(crate) bytes: bool,
    pub(crate) element: bool,
    pub(crate) query: bool,
    pub(crate) same: bool,
    pub(crate) frees: bool,
    grouped: bool,
    opens: bool,
    closes: bool,
    /// Is called where an exception is caught.
    pub(crate) catch: bool,
}

/// One function by one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// For people: the symbol, or the C++ name.
    pub(crate) name: String,
    /// The symbol, or what it begins with where `Binding::Cpp`.
    symbol: String,
    pub(crate) library: CollectiveLibrary,
    pub(crate) operation: CollectiveOp,
    pub(crate) binding: Binding,
    pub(crate) flags: Flags,
    pub(crate) values: Vec<(Meaning, Place)>,
}

impl Function {
    /// Which value of a call has this meaning.
    pub(crate) fn position(&self, meaning: Meaning) -> Option<usize> {
        self.values.iter().position(|(m, _)| *m == meaning)
    }

    /// Whether all ranks of the communicator make such calls in one order.
    fn counted(&self) -> bool {
        !matches!(
            self.operation,
            CollectiveOp::Send
                | CollectiveOp::Recv
                | CollectiveOp::Wait
                | CollectiveOp::Group
                | CollectiveOp::Other
        )
    }

    /// The kernel half's `struct call_row`.
    pub(crate) fn encode(&self) -> [u8; 8 + 6 * VALUES] {
        let mut row = [0; 8 + 6 * VALUES];
        let place = |meaning| self.position(meaning).and_then(|n| u8::try_from(n + 1).ok()).unwrap_or(0);
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        let flags = flag(self.counted(), 1)
            | flag(self.flags.opens, 2)
            | flag(self.flags.closes, 4)
            | flag(self.flags.grouped, 8)
            | flag(self.binding == Binding::C, 16)
            | flag(self.flags.catch, 32);
        let call = if self.flags.asynchronous { call_flags::ASYNC } else { 0 };
        row[..2].copy_from_slice(&flags.to_ne_bytes());
        row[2] = u8::try_from(self.values.len()).unwrap_or(0);
        row[3] = self.library.id();
        row[4] = place(Meaning::Comm);
        row[5] = place(Meaning::Made);
        row[6..8].copy_from_slice(&u16::try_from(call).unwrap_or(0).to_ne_bytes());
        for ((_, place), to) in self.values.iter().zip(row[8..].as_chunks_mut::<6>().0) {
            to[0] = place.argument;
            to[1] = place.pointers | if place.word { 4 } else { 0 } | if place.late { 8 } else { 0 };
            to[2..4].copy_from_slice(&place.offsets[0].to_ne_bytes());
            to[4..6].copy_from_slice(&place.offsets[1].to_ne_bytes());
        }
        row
    }
}

/// All functions, by row and by symbol.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    functions: Vec<Function>,
    exact: HashMap<Vec<u8>, u16>,
    /// What C++ symbols begin with, longest first.
    prefixes: Vec<(Vec<u8>, u16)>,
}

impl Table {
    /// The built-in table.
    pub(crate) fn new() -> Self {
        // The table is a part of this program, and a test reads all of it: a row that is wrong would be left out here.
        Self::of(TABLE.lines().filter_map(|line| rows(line).ok()).flatten().collect())
    }

    fn of(functions: Vec<Function>) -> Self {
        let mut exact = HashMap::new();
        let mut prefixes = Vec::new();
        for (row, function) in (0u16..).zip(&functions).take(MAX_ROWS) {
            let symbol = function.symbol.clone().into_bytes();
            if function.binding == Binding::Cpp {
                prefixes.push((symbol, row));
            } else {
                exact.entry(symbol).or_insert(row);
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { functions, exact, prefixes }
    }

    pub(crate) fn function(&self, row: u16) -> Option<&Function> {
        self.functions.get(usize::from(row))
    }

    pub(crate) fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The row of a symbol. Parts of functions that the compiler moved away have a dot in their names.
    pub(crate) fn find(&self, symbol: &[u8]) -> Option<u16> {
        if symbol.starts_with(b"_Z") {
            let (_, row) = self.prefixes.iter().find(|(prefix, _)| symbol.starts_with(prefix))?;
            return (!symbol.contains(&b'.')).then_some(*row);
        }
        self.exact.get(symbol).copied()
    }
}

/// The rows of one line: none for a comment.
fn rows(line: &str) -> Result<Vec<Function>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(Vec::new());
    }
    let columns: Vec<&str> = line.split('\t').collect();
    let [library, operation, name, binding, flags, values] = columns[..] else {
        return Err(format!("not six columns: {line}"));
    };
    let library = named(CollectiveLibrary::ALL, library, CollectiveLibrary::name)?;
    let operation = named(CollectiveOp::ALL, operation, CollectiveOp::name)?;
    let flags = parse_flags(flags)?;
    let values = words(values).map(value).collect::<Result<Vec<_>, _>>()?;
    if values.len() > VALUES {
        return Err(format!("more than {VALUES} values: {line}"));
    }
    let function = |symbol: String, name: String, binding, values: &[(Meaning, Place)]| Function {
        name,
        symbol,
        library,
        operation,
        binding,
        flags,
        values: values.to_vec(),
    };
    let c = |symbol: String| function(symbol.clone(), symbol, Binding::C, &values);
    Ok(match binding {
        "c" => vec![c(name.to_owned())],
        "nccl" => ["", "p"]
            .iter()
            .flat_map(|p| ["", "Config"].map(|config| c(format!("{p}{name}{config}"))))
            .collect(),
        "mpi" => {
            let mut rows: Vec<Function> = ["", "P"].iter().map(|p| c(format!("{p}MPI_{name}"))).collect();
            let large: Vec<_> = values.iter().map(|(m, place)| (*m, place.large(*m))).collect();
            if large != values {
                rows.extend(["", "P"].map(|p| {
                    let symbol = format!("{p}MPI_{name}_c");
                    function(symbol.clone(), symbol, Binding::C, &large)
                }));
            }
            let behind: Vec<_> = values.iter().map(|(m, place)| (*m, place.fortran())).collect();
            rows.extend(fortran(name).into_iter().map(|s| function(s.clone(), s, Binding::Fortran, &behind)));
            rows
        }
        "c++" => braces(name)
            .into_iter()
            .map(|name| function(mangled(&name), parameters(&name).0.to_owned(), Binding::Cpp, &values))
            .collect(),
        other => return Err(format!("unknown binding {other}")),
    })
}

/// The names that compilers and the standard's bindings give a Fortran function.
fn fortran(name: &str) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut names = Vec::new();
    for p in ["", "p"] {
        for end in ["", "_", "__", "_f08", "_f08_", "_f08ts", "_f08ts_"] {
            names.push(format!("{p}mpi_{lower}{end}"));
        }
        names.push(format!("{}MPI_{}", p.to_uppercase(), name.to_uppercase()));
    }
    names
}

/// `a::{b,c}::d` → `a::b::d`, `a::c::d`.
fn braces(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return Vec::new() };
    choices.split(',').flat_map(|choice| braces(&format!("{before}{choice}{after}"))).collect()
}

/// A qualified name, and what the mangled parameters begin with.
fn parameters(name: &str) -> (&str, &str) {
    let (name, types) = name.split_once('(').unwrap_or((name, ""));
    (name, types.trim_end_matches(')'))
}

/// What the symbols of all overloads of a qualified name begin with, in the Itanium ABI.
fn mangled(name: &str) -> String {
    let (name, types) = parameters(name);
    let parts: String = name.split("::").map(|part| format!("{}{part}", part.len())).collect();
    format!("_ZN{parts}E{types}")
}

fn named<T: Copy>(all: &[T], name: &str, of: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|&one| of(one) == name).ok_or_else(|| format!("unknown {name}"))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',']).filter(|word| !word.is_empty() && *word != "-")
}

fn parse_flags(text: &str) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for word in words(text) {
        let flag = match word {
            "async" => &mut flags.asynchronous,
            "ranks" => &mut flags.ranks,
            "bytes" => &mut flags.bytes,
            "element" => &mut flags.element,
            "query" => &mut flags.query,
            "same" => &mut flags.same,
            "frees" => &mut flags.frees,
            "grouped" => &mut flags.grouped,
            "opens" => &mut flags.opens,
            "closes" => &mut flags.closes,
            "catch" => &mut flags.catch,
            other => return Err(format!("unknown flag {other}")),
        };
        *flag = true;
    }
    Ok(flags)
}

/// `comm=0[0]q`.
fn value(word: &str) -> Result<(Meaning, Place), String> {
    let wrong = || format!("not a value: {word}");
    let (name, place) = word.split_once('=').ok_or_else(wrong)?;
    let meaning = match name {
        "count" => Meaning::Count,
        "type" => Meaning::Type,
        "op" => Meaning::Op,
        "peer" => Meaning::Peer,
        "comm" => Meaning::Comm,
        "stream" => Meaning::Stream,
        "rank" => Meaning::Rank,
        "size" => Meaning::Size,
        "made" => Meaning::Made,
        "id" => Meaning::Id,
        _ => return Err(wrong()),
    };
    let (late, place) = match place.strip_prefix('>') {
        Some(place) => (true, place),
        None => (false, place),
    };
    let (word_sized, place) = match (place.strip_suffix('i'), place.strip_suffix('q')) {
        (Some(place), _) => (true, place),
        (_, Some(place)) => (false, place),
        _ => return Err(wrong()),
    };
    let mut numbers = place.split('[').map(|part| part.trim_end_matches(']').parse::<u16>());
    let argument =
        numbers.next().and_then(Result::ok).and_then(|n| u8::try_from(n).ok()).ok_or_else(wrong)?;
    let offsets = numbers.collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    let pointers = u8::try_from(offsets.len()).unwrap_or(u8::MAX);
    if pointers > 2 || (late && pointers == 0) {
        return Err(wrong());
    }
    let at = |n: usize| offsets.get(n).copied().unwrap_or(0);
    let place = Place { argument, pointers, offsets: [at(0), at(1)], word: word_sized, late };
    Ok((meaning, place))
}

impl Place {
    /// Whether it is read when the function returns.
    pub(crate) fn late(self) -> bool {
        self.late
    }

    /// Where a 64-bit count takes the place of an int.
    fn large(self, meaning: Meaning) -> Self {
        if meaning == Meaning::Count { Self { word: false, ..self } } else { self }
    }

    /// Where everything is passed by its address, and handles are integers.
    fn fortran(self) -> Self {
        Self { pointers: 1, word: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::{Binding, MAX_ROWS, Meaning, TABLE, Table, rows, value};

    #[test]
    fn every_line_of_the_table_is_understood_and_no_symbol_has_two_rows() {
        let mut symbols = Vec::new();
        for line in TABLE.lines() {
            symbols.extend(rows(line).unwrap_or_else(|e| panic!("{e}")).into_iter().map(|f| f.symbol));
        }
        assert!(symbols.len() <= MAX_ROWS && symbols.len() > 1000, "{} rows", symbols.len());
        let all = symbols.len();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), all);
    }

    #[test]
    fn names_of_every_binding_are_found() {
        let table = Table::new();
        let name = |symbol: &str| {
            table
                .find(symbol.as_bytes())
                .and_then(|row| table.function(row))
                .map(|f| (f.name.as_str(), f.binding))
        };
        for symbol in ["ncclAllReduce", "pncclAllReduceConfig", "MPI_Allreduce", "PMPI_Iallreduce_c"] {
            assert_eq!(name(symbol), Some((symbol, Binding::C)));
        }
        for symbol in ["mpi_allreduce_", "mpi_allreduce__", "MPI_ALLREDUCE", "pmpi_bcast_f08_", "mpi_barrier"]
        {
            assert_eq!(name(symbol), Some((symbol, Binding::Fortran)));
        }
        assert_eq!(
            name("_ZN4gloo9allreduceERKNS_16AllreduceOptionsE"),
            Some(("gloo::allreduce", Binding::Cpp))
        );
        let group =
            "_ZN4c10d16ProcessGroupGloo9allreduceERSt6vectorIN2at6TensorESaIS3_EERKNS_16AllreduceOptionsE";
        assert_eq!(name(group), Some(("c10d::ProcessGroupGloo::allreduce", Binding::Cpp)));
        // Overloads that have their arguments in other places are told by their parameters.
        let count = |symbol: &str| {
            let row = table.function(table.find(symbol.as_bytes())?)?;
            (row.name == "ccl::v1::broadcast").then(|| row.values[0].1.argument)
        };
        let behind =
            "NS0_8datatypeEiRKNS0_12communicatorERKNS0_14broadcast_attrERKSt6vectorINS0_5eventESaISA_EE";
        assert_eq!(count(&format!("_ZN3ccl2v19broadcastEPvm{behind}")), Some(2));
        assert_eq!(count(&format!("_ZN3ccl2v19broadcastEPvS1_m{behind}")), Some(3));
        for other in
            ["ncclAllReduceX", "_ZN4gloo9allreduceERKNS_16AllreduceOptionsE.cold", "_ZN4gloo9allreduce3fooEv"]
        {
            assert_eq!(name(other), None);
        }
    }

    #[test]
    fn places_are_read_and_refused() {
        let (meaning, place) = value("rank=0[0][8]i").expect("a place");
        assert_eq!(meaning, Meaning::Rank);
        assert_eq!((place.argument, place.pointers, place.offsets, place.word), (0, 2, [0, 8], true));
        for wrong in
            ["rank=0", "rank=>1i", "rank=0[0][0][0]q", "rank=[0]i", "what=0i", "rank0i", "rank=0[x]i"]
        {
            assert!(value(wrong).is_err(), "{wrong}");
        }
    }
}
