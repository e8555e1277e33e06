//! A call's record in words and numbers.
//!
//! What a record does not say is learnt from others: rank and size of a communicator from the calls that make it or ask
//! for them, the names of Open MPI's handles from where its libraries lie. A value that is not plausible is unknown: the
//! arguments are another program's memory, and the layout of a C++ object is that of one version.

use std::collections::HashMap;
use std::sync::LazyLock;

use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
use stallscope_schemas::wire::Call;

use super::handles::{self, DataType, MpiHandles};
use super::table::{Binding, Function, Meaning, Table};

/// Ranks of the largest jobs are a hundred thousand.
const MAX_RANKS: u64 = 1 << 22;
/// What is always the communicator of all ranks, and that of one: MPICH's handles.
const MPI_WORLD: u64 = 0x4400_0000;
const MPI_SELF: u64 = 0x4400_0001;
/// More elements or bytes than this are not sent at once.
const MAX_BYTES: u64 = 1 << 48;
/// Communicators and processes that are remembered: a hostile job makes them without end.
const MAX_GROUPS: usize = 1 << 16;
const MAX_PROCESSES: usize = 1 << 14;

/// What the addresses of a process's predefined MPI objects are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessHandles {
    /// The process.
    pub pid: u32,
    pub(crate) names: Vec<(u64, &'static str)>,
}

/// A collective call; fields as in core's row of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedCall {
    /// Entry, CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// Until the return.
    pub duration_ns: u64,
    /// Name of the function.
    pub name: String,
    /// Which library.
    pub library: CollectiveLibrary,
    /// What it does.
    pub operation: CollectiveOp,
    /// Bytes that this rank puts in (of a scatter: its part); 0 where unknown.
    pub bytes: u64,
    /// Elements as the caller counts them; 0 where unknown.
    pub elements: u64,
    /// Name of the data type; empty where unknown.
    pub datatype: &'static str,
    /// Name of the reduction; empty where there is none, or it is the program's own.
    pub reduction: &'static str,
    /// The communicator. `nccl:` and digits is the same text on all of its ranks; `MPI_COMM_WORLD` too, within a job; a
    /// text with `@` is of this process only. `/fortran` is part of it where Open MPI is called from there: those calls
    /// are counted apart. Empty where the call has none.
    pub group: String,
    /// Ranks in it; 0 where unknown.
    pub group_size: u64,
    /// This process's rank in it.
    pub rank: Option<u32>,
    /// Root, destination or source.
    pub peer: Option<u32>,
    /// Stream that it was put on; 0 on a CPU.
    pub stream: u64,
    /// Position among the process's collective calls on the communicator since the recording began, from 0 on. Calls to
    /// one peer, and those within another call of the same library, have none.
    pub sequence: Option<u64>,
    /// Return value, where a flag says so.
    pub result: i64,
    /// Bits of [`call_flags`].
    pub flags: u64,
    /// The call was left by an exception or a jump: the duration is the part that was seen.
    pub left: bool,
    /// Stack of the caller (`StackFrames::id`), 0 where not taken.
    pub stack: u64,
}

/// What came of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A call to record.
    Call(Box<DecodedCall>),
    /// Only told something about a communicator.
    Learnt,
    /// Of a function that is not in the table.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    pid: u32,
    library: CollectiveLibrary,
    handle: u64,
}

#[derive(Clone, Debug, Default)]
struct Group {
    name: Option<String>,
    rank: Option<u32>,
    size: Option<u64>,
}

/// Decodes the calls of all processes of a recording.
#[derive(Debug)]
pub struct Decoder {
    table: &'static Table,
    groups: HashMap<GroupKey, Group>,
    names: HashMap<u32, HashMap<u64, &'static str>>,
    worlds: HashMap<u32, (u32, u64)>,
}

impl Default for Decoder {
    fn default() -> Self {
        // The same for all, and of more than a thousand rows.
        static TABLE: LazyLock<Table> = LazyLock::new(Table::new);
        Self { table: &TABLE, groups: HashMap::new(), names: HashMap::new(), worlds: HashMap::new() }
    }
}

impl Decoder {
    /// Takes what a look at a process's libraries found. Replaces what was known of it.
    pub fn learn(&mut self, handles: ProcessHandles) {
        if self.names.len() < MAX_PROCESSES || self.names.contains_key(&handles.pid) {
            self.names.insert(handles.pid, handles.names.into_iter().collect());
        }
    }

    /// Takes a process's rank and the number of ranks from its environment: those of `MPI_COMM_WORLD` where its own calls
    /// do not say otherwise.
    pub fn world(&mut self, pid: u32, rank: u32, size: u64) {
        if u64::from(rank) < size && size <= MAX_RANKS && self.worlds.len() < MAX_PROCESSES {
            self.worlds.insert(pid, (rank, size));
        }
    }

    /// Forgets a process that ended or began another program: its handles mean nothing any more.
    pub fn forget(&mut self, pid: u32) {
        self.names.remove(&pid);
        self.groups.retain(|key, _| key.pid != pid);
    }

    /// Decodes a record of a process.
    pub fn decode(&mut self, pid: u32, call: &Call) -> Decoded {
        let row = u16::try_from(call.function & 0xffff).unwrap_or(u16::MAX);
        let table: &'static Table = self.table;
        let Some(function) = table.function(row) else { return Decoded::Unknown };
        let library = CollectiveLibrary::from_id(u64::from(call.function >> 16 & 0xff))
            .filter(|l| *l != CollectiveLibrary::Other)
            .unwrap_or(function.library);
        let values = Values { call, function };
        self.take_in(pid, library, &values);
        if function.flags.query {
            return Decoded::Learnt;
        }
        let handle = values.get(Meaning::Comm).or(values.get(Meaning::Made));
        let key =
            handle.map(|handle| GroupKey { pid, library, handle: self.canonical(pid, function, handle) });
        let known = key.and_then(|key| self.groups.get(&key)).cloned().unwrap_or_default();
        let name = key.zip(handle).map(|(key, handle)| self.group_name(key, function, handle));
        let world = key.is_some_and(|key| key.library == CollectiveLibrary::Mpi && key.handle == MPI_WORLD);
        let world = world.then(|| self.worlds.get(&pid)).flatten();
        let size = known.size.or(world.map(|w| w.1)).unwrap_or(0);
        // They may be told by different calls.
        let rank = known.rank.or(world.map(|w| w.0)).filter(|&rank| size == 0 || u64::from(rank) < size);
        let datatype = self.datatype(pid, library, &values);
        let elements = values.get(Meaning::Count).filter(|&count| count <= MAX_BYTES).unwrap_or(0);
        let left = call.call_flags & u32::from(stallscope_schemas::wire::call_flag::CALL_LEFT) != 0;
        let decoded = DecodedCall {
            start_ns: call.start_ns,
            duration_ns: call.duration_ns,
            library,
            operation: function.operation,
            bytes: bytes(function, elements, datatype, size),
            elements: if function.flags.bytes { 0 } else { elements },
            datatype: datatype.name,
            reduction: self.reduction(pid, library, &values),
            group: name.unwrap_or_default(),
            group_size: size,
            rank,
            peer: values
                .get(Meaning::Peer)
                .and_then(|peer| u32::try_from(peer).ok())
                .filter(|p| u64::from(*p) < MAX_RANKS),
            stream: values.get(Meaning::Stream).unwrap_or(0),
            sequence: call.sequence.checked_sub(1),
            result: call.result,
            flags: u64::from(call.call_flags)
                & (call_flags::NESTED | call_flags::OPEN | call_flags::ASYNC | call_flags::RETURNED),
            left,
            stack: call.stack,
            name: function.name.clone(),
        };
        if function.flags.frees
            && let Some(key) = key
        {
            self.groups.remove(&key);
        }
        Decoded::Call(Box::new(decoded))
    }

    /// Learns about the communicators that a call makes or tells of.
    fn take_in(&mut self, pid: u32, library: CollectiveLibrary, values: &Values<'_>) {
        let function = values.function;
        let failed = values.call.call_flags & u32::try_from(call_flags::RETURNED).unwrap_or(0) != 0
            && values.call.result != 0;
        // What is read at the return was not there before.
        let open = values.call.call_flags & u32::try_from(call_flags::OPEN).unwrap_or(0) != 0;
        if failed || (open && function.values.iter().any(|(_, place)| place.late())) {
            return;
        }
        let size = values.get(Meaning::Size).filter(|size| (1..=MAX_RANKS).contains(size));
        let rank = values.get(Meaning::Rank).filter(|&rank| rank < size.unwrap_or(MAX_RANKS));
        let rank = rank.and_then(|rank| u32::try_from(rank).ok());
        let key = |decoder: &Self, handle| GroupKey {
            pid,
            library,
            handle: decoder.canonical(pid, function, handle),
        };
        if let Some(made) = values.get(Meaning::Made).filter(|&made| made != 0) {
            let made = key(self, made);
            let old = values.get(Meaning::Comm).map(|old| key(self, old)).filter(|_| function.flags.same);
            let old = old.and_then(|old| self.groups.get(&old)).cloned().unwrap_or_default();
            let id = values.get(Meaning::Id).filter(|&id| id != 0);
            let group = Group {
                name: id.map(|id| format!("{}:{id:016x}", library.name().to_lowercase())),
                // Of several that one call makes, the first has rank 0.
                rank: rank.or(old.rank),
                size: size.or(old.size),
            };
            self.remember(made, group);
        } else if let Some(handle) = values.get(Meaning::Comm)
            && (rank.is_some() || size.is_some())
        {
            let key = key(self, handle);
            let mut group = self.groups.get(&key).cloned().unwrap_or_default();
            group.rank = rank.or(group.rank);
            group.size = size.or(group.size);
            self.remember(key, group);
        }
    }

    fn remember(&mut self, key: GroupKey, group: Group) {
        if self.groups.len() < MAX_GROUPS || self.groups.contains_key(&key) {
            self.groups.insert(key, group);
        }
    }

    /// How a process's MPI handles are to be read.
    fn mpi(&self, pid: u32, function: &Function, handle: u64) -> MpiHandles {
        match self.names.get(&pid) {
            Some(names) if function.binding == Binding::C && !names.is_empty() => {
                MpiHandles::Address(names.get(&handle).copied())
            }
            _ => MpiHandles::Integer,
        }
    }

    /// One number for a communicator, however the language passes it.
    fn canonical(&self, pid: u32, function: &Function, handle: u64) -> u64 {
        if function.library != CollectiveLibrary::Mpi {
            return handle;
        }
        let handles = self.mpi(pid, function, handle);
        match (handles::mpi_communicator(handles, handle), handles) {
            // Those that have names are the same in C and in Fortran.
            (Some(handles::WORLD), _) => MPI_WORLD,
            (Some(_), _) => MPI_SELF,
            (None, MpiHandles::Address(_)) => handle,
            (None, MpiHandles::Integer) => handle & u64::from(u32::MAX),
        }
    }

    fn group_name(&self, key: GroupKey, function: &Function, handle: u64) -> String {
        if let Some(name) = self.groups.get(&key).and_then(|group| group.name.clone()) {
            return name;
        }
        // The kernel half counts calls by handle. Open MPI has one for C and another, a small number, for Fortran: the
        // calls of the two languages are two sequences, and so that they are not mixed up, two groups.
        let numbered = function.binding == Binding::Fortran && handles::is_number(handle);
        let language = if numbered { "/fortran" } else { "" };
        match (key.library, key.handle) {
            (CollectiveLibrary::Mpi, MPI_WORLD) => format!("{}{language}", handles::WORLD),
            (CollectiveLibrary::Mpi, MPI_SELF) => format!("{}{language}", handles::SELF),
            (library, handle) => format!("{}{language}@{handle:x}", library.name().to_lowercase()),
        }
    }

    fn datatype(&self, pid: u32, library: CollectiveLibrary, values: &Values<'_>) -> DataType {
        let Some(handle) = values.get(Meaning::Type) else { return DataType::default() };
        match library {
            CollectiveLibrary::Mpi => handles::mpi_type(self.mpi(pid, values.function, handle), handle),
            CollectiveLibrary::Nccl | CollectiveLibrary::Rccl => handles::nccl_type(handle),
            CollectiveLibrary::OneCcl => handles::oneccl_type(values.function.binding == Binding::C, handle),
            // Gloo knows sizes only. Larger elements than complex numbers of 16 bytes each are not reduced.
            _ if values.function.flags.element && (1..=32).contains(&handle) => {
                DataType { name: "", bytes: handle }
            }
            _ => DataType::default(),
        }
    }

    fn reduction(&self, pid: u32, library: CollectiveLibrary, values: &Values<'_>) -> &'static str {
        let Some(handle) = values.get(Meaning::Op) else { return "" };
        match library {
            CollectiveLibrary::Mpi => handles::mpi_operation(self.mpi(pid, values.function, handle), handle),
            CollectiveLibrary::Nccl | CollectiveLibrary::Rccl => handles::nccl_operation(handle),
            CollectiveLibrary::OneCcl => {
                handles::oneccl_operation(values.function.binding == Binding::C, handle)
            }
            _ => "",
        }
    }
}

/// Bytes that the rank puts in; 0 where one of the factors is unknown.
fn bytes(function: &Function, elements: u64, datatype: DataType, size: u64) -> u64 {
    let each = if function.flags.bytes { 1 } else { datatype.bytes };
    let parts = if function.flags.ranks { size } else { 1 };
    let bytes = elements.checked_mul(each).and_then(|b| b.checked_mul(parts));
    bytes.filter(|&b| b <= MAX_BYTES).unwrap_or(0)
}

/// The values of a call by what they mean.
struct Values<'a> {
    call: &'a Call,
    function: &'a Function,
}

impl Values<'_> {
    /// `None` where the function has no such value, or it could not be read.
    fn get(&self, meaning: Meaning) -> Option<u64> {
        let at = self.function.position(meaning)?;
        let known = self.call.head.flags & 1u16.checked_shl(u32::try_from(at).ok()?)? != 0;
        self.call.values.get(at).copied().filter(|_| known)
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};
    use stallscope_schemas::wire::Call;
    use zerocopy::FromZeros;

    use super::{Decoded, DecodedCall, Decoder, ProcessHandles};

    /// A record of a function by name; values in the order of its row, with holes.
    fn call(decoder: &Decoder, symbol: &str, values: &[Option<u64>]) -> Call {
        let mut call = Call::new_zeroed();
        call.function = decoder.table.find(symbol.as_bytes()).expect("in the table").into();
        for (at, value) in values.iter().enumerate() {
            if let Some(value) = value {
                call.values[at] = *value;
                call.head.flags |= 1 << at;
            }
        }
        call
    }

    fn decode(decoder: &mut Decoder, symbol: &str, values: &[Option<u64>]) -> DecodedCall {
        let call = call(decoder, symbol, values);
        match decoder.decode(7, &call) {
            Decoded::Call(call) => *call,
            other => panic!("{other:?}"),
        }
    }

    fn all<const N: usize>(values: [u64; N]) -> [Option<u64>; N] {
        values.map(Some)
    }

    #[test]
    fn nccl_communicators_are_known_by_the_id_that_their_ranks_share() {
        let mut decoder = Decoder::default();
        let init = decode(&mut decoder, "ncclCommInitRankConfig", &all([0x5000, 8, 3, 0xfeed]));
        assert_eq!((init.operation, init.group.as_str()), (CollectiveOp::Init, "nccl:000000000000feed"));
        assert_eq!((init.group_size, init.rank), (8, Some(3)));
        let reduce = decode(&mut decoder, "ncclAllReduce", &all([1000, 7, 0, 0x5000, 0x99]));
        assert_eq!((reduce.bytes, reduce.elements, reduce.datatype), (4000, 1000, "float32"));
        assert_eq!((reduce.reduction, reduce.stream, reduce.rank), ("sum", 0x99, Some(3)));
        assert_eq!(reduce.group, init.group);
        // Each rank puts in a part for every other.
        let scatter = decode(&mut decoder, "pncclReduceScatter", &all([1000, 9, 2, 0x5000, 0]));
        assert_eq!((scatter.bytes, scatter.reduction), (16_000, "max"));
        decode(&mut decoder, "ncclCommDestroy", &all([0x5000]));
        let after = decode(&mut decoder, "ncclAllReduce", &all([1000, 7, 0, 0x5000, 0x99]));
        assert_eq!((after.group.as_str(), after.group_size), ("nccl@5000", 0));
    }

    #[test]
    fn rccl_is_told_by_the_file_that_holds_the_function() {
        let mut decoder = Decoder::default();
        let mut record = call(&decoder, "ncclAllReduce", &all([1, 7, 0, 0x5000, 0]));
        record.function |= u32::from(CollectiveLibrary::Rccl.id()) << 16;
        let Decoded::Call(decoded) = decoder.decode(7, &record) else { panic!("not a call") };
        assert_eq!((decoded.library, decoded.group.as_str()), (CollectiveLibrary::Rccl, "rccl@5000"));
        assert_eq!(decoded.bytes, 4);
    }

    #[test]
    fn open_mpi_handles_are_addresses_of_one_process() {
        let mut decoder = Decoder::default();
        let names = vec![(0x7f00, "double"), (0x7f10, "op_sum"), (0x7f20, "comm_world")];
        decoder.learn(ProcessHandles { pid: 7, names });
        let record = call(&decoder, "MPI_Comm_rank", &all([0x7f20, 2]));
        assert_eq!(decoder.decode(7, &record), Decoded::Learnt);
        let record = call(&decoder, "MPI_Comm_size", &all([0x7f20, 4]));
        assert_eq!(decoder.decode(7, &record), Decoded::Learnt);
        let reduce = decode(&mut decoder, "MPI_Allreduce", &all([10, 0x7f00, 0x7f10, 0x7f20]));
        assert_eq!((reduce.bytes, reduce.datatype, reduce.reduction), (80, "MPI_DOUBLE", "sum"));
        assert_eq!((reduce.group.as_str(), reduce.group_size, reduce.rank), ("MPI_COMM_WORLD", 4, Some(2)));
        // The same communicator from Fortran, where it is a number.
        let fortran = decode(&mut decoder, "mpi_allreduce_", &all([10, 17, 3, 0]));
        assert_eq!((fortran.bytes, fortran.group_size, fortran.rank), (80, 4, Some(2)));
        assert_eq!(fortran.group, "MPI_COMM_WORLD/fortran");
        // MPICH has one handle for all languages.
        let mpich = decode(&mut decoder, "mpi_barrier_", &all([0x4400_0000]));
        assert_eq!(mpich.group, "MPI_COMM_WORLD");
        decoder.forget(7);
        let after = decode(&mut decoder, "MPI_Allreduce", &all([10, 0x7f00, 0x7f10, 0x7f20]));
        assert_eq!((after.bytes, after.rank, after.group.as_str()), (0, None, "mpi@7f20"));
    }

    #[test]
    fn a_duplicate_has_the_members_of_its_original_and_the_environment_knows_the_world() {
        let mut decoder = Decoder::default();
        decoder.world(7, 1, 2);
        let barrier = decode(&mut decoder, "MPI_Barrier", &all([0x4400_0000]));
        assert_eq!(
            (barrier.group.as_str(), barrier.rank, barrier.group_size),
            ("MPI_COMM_WORLD", Some(1), 2)
        );
        for (symbol, value) in [("MPI_Comm_rank", 0), ("MPI_Comm_size", 3)] {
            let record = call(&decoder, symbol, &all([0x8400_0001, value]));
            decoder.decode(7, &record);
        }
        decode(&mut decoder, "MPI_Comm_dup", &all([0xffff_ffff_8400_0001, 0x8400_0002]));
        let on = decode(&mut decoder, "MPI_Alltoall", &all([5, 0x4c00_0405, 0x8400_0002]));
        assert_eq!((on.rank, on.group_size, on.bytes), (Some(0), 3, 60));
    }

    #[test]
    fn what_is_not_plausible_or_not_read_is_unknown() {
        let mut decoder = Decoder::default();
        // Element size, count, then rank and size of the context.
        let gloo =
            decode(&mut decoder, "_ZN4gloo9allreduceERKNS_16AllreduceOptionsE", &all([100, 4, 0x1, 1, 2]));
        assert_eq!((gloo.bytes, gloo.rank, gloo.group_size), (400, Some(1), 2));
        let wild = [100, 0x7fff_0000_0000, 0x2, 0xffff_ffff_ffff_fff0, 1 << 40];
        let gloo = decode(&mut decoder, "_ZN4gloo9allreduceERKNS_16AllreduceOptionsE", &all(wild));
        assert_eq!((gloo.bytes, gloo.rank, gloo.group_size), (0, None, 0));
        let cut = decode(&mut decoder, "MPI_Send", &[None, None, Some(u64::MAX), None]);
        assert_eq!((cut.bytes, cut.peer, cut.group.as_str()), (0, None, ""));
        let huge = decode(&mut decoder, "ncclAllReduce", &all([u64::MAX, 8, 0, 1, 0]));
        assert_eq!((huge.bytes, huge.elements), (0, 0));
        // Told by two calls, of which one is wrong.
        for (symbol, value) in [("ncclCommUserRank", 7), ("ncclCommCount", 4)] {
            let record = call(&decoder, symbol, &all([0x6000, value]));
            decoder.decode(7, &record);
        }
        let reduce = decode(&mut decoder, "ncclAllReduce", &all([10, 7, 0, 0x6000, 0]));
        assert_eq!((reduce.rank, reduce.group_size), (None, 4));
        let mut nowhere = Call::new_zeroed();
        nowhere.function = 0xffff;
        assert_eq!(decoder.decode(7, &nowhere), Decoded::Unknown);
    }

    #[test]
    fn a_call_that_failed_or_did_not_return_tells_nothing() {
        let mut decoder = Decoder::default();
        let mut failed = call(&decoder, "ncclCommInitRank", &all([0x5000, 8, 3, 0xfeed]));
        failed.call_flags = u32::try_from(call_flags::RETURNED).expect("small");
        failed.result = 5;
        decoder.decode(7, &failed);
        let mut open = call(&decoder, "ncclCommInitRank", &all([0x6000, 8, 3, 0xfeed]));
        open.call_flags = u32::try_from(call_flags::OPEN).expect("small");
        let Decoded::Call(hangs) = decoder.decode(7, &open) else { panic!("not a call") };
        assert_eq!(hangs.flags, call_flags::OPEN);
        assert!(decoder.groups.is_empty());
    }
}
