//! The tables of a capture: strings, stacks, sources, processes, threads, devices.
//!
//! The writer and the reader share one in-memory form. Row 0 of the string table is "" and row 0 of the stack table is
//! the empty stack, so that "none" needs no special case.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, StackId, StringId, ThreadId};

/// Frames of a stack that are looked at: twice what CPython lets a program call. Damage may make each of a million stacks one deeper.
const MAX_DEPTH: usize = 2048;

/// An origin with a clock of its own: an imported file, a ring of the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Path or name, as given.
    pub path: String,
    /// What it was: `kineto`, `chrome`, `nsys`, `live`.
    pub format: String,
}

/// How a source's clock relates to the time line of the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The source.
    pub source: SourceId,
    /// Add to the source's times, ns.
    pub offset_ns: i64,
    /// Bound on the error of the sum, ns.
    pub error_ns: u64,
    /// Where the relation comes from.
    pub note: String,
}

/// A process that ran host code for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Where it was seen.
    pub source: SourceId,
    /// Its pid in its own time and namespace.
    pub pid: i64,
    /// Command or the name in the trace.
    pub name: String,
    /// Rank in the job, where known.
    pub rank: Option<u32>,
    /// Ranks in the job, where known.
    pub world_size: Option<u32>,
    /// Host name, where known.
    pub host: String,
    /// Job, where known.
    pub job: String,
}

/// A host thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub process: ProcessId,
    /// Its tid.
    pub tid: i64,
    /// Its name, where known.
    pub name: String,
}

/// A GPU, a MIG instance, or a rank on a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Where it was seen.
    pub source: SourceId,
    /// A number of [`device_kind`](stallscope_schemas::record::device_kind).
    pub kind: u8,
    /// UUID, or a made-up identity where the trace has none.
    pub id: String,
    /// Number by which the process knows it.
    pub ordinal: u32,
    /// Model name, where known.
    pub model: String,
    /// Processes that used it.
    pub processes: Vec<ProcessId>,
}

/// A node of the stack tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The caller's node; 0 where this is the outermost frame.
    pub parent: StackId,
    /// Function, with file and line where known.
    pub name: StringId,
}

/// All tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Bytes of all strings, one after the other.
    text: String,
    /// Where each string ends in `text`.
    ends: Vec<usize>,
    pub(super) stacks: Vec<Frame>,
    pub(super) sources: Vec<Source>,
    pub(super) clocks: Vec<Clock>,
    pub(super) processes: Vec<Process>,
    pub(super) threads: Vec<Thread>,
    pub(super) devices: Vec<Device>,
    pub(super) labels: Vec<(String, String)>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            text: String::new(),
            ends: vec![0],
            stacks: vec![Frame::default()],
            sources: Vec::new(),
            clocks: Vec::new(),
            processes: Vec::new(),
            threads: Vec::new(),
            devices: Vec::new(),
            labels: Vec::new(),
        }
    }
}

impl Tables {
    /// The text of a string; a placeholder where the table lost it.
    #[must_use]
    pub fn string(&self, id: StringId) -> &str {
        let end = self.ends.get(id.index()).copied();
        let start = id.index().checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        match (start, end) {
            (Some(start), Some(end)) => self.text.get(start..end).unwrap_or("<damaged name>"),
            _ => "<lost name>",
        }
    }

    /// Number of strings.
    #[must_use]
    pub fn string_count(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all strings together.
    #[must_use]
    pub fn string_bytes(&self) -> usize {
        self.text.len()
    }

    /// The node of a stack, `None` for the empty stack and for ids that the table lost.
    #[must_use]
    pub fn frame(&self, id: StackId) -> Option<Frame> {
        (id.0 != 0).then(|| self.stacks.get(id.index()).copied()).flatten()
    }

    /// Names of a stack, outermost caller first; of a stack that is very deep the innermost.
    #[must_use]
    pub fn stack_names(&self, id: StackId) -> Vec<StringId> {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(frame) = self.frame(at).filter(|_| names.len() < MAX_DEPTH) {
            names.push(frame.name);
            // A parent always has a lower number; anything else is damage and would loop.
            if frame.parent >= at {
                break;
            }
            at = frame.parent;
        }
        names.reverse();
        names
    }

    /// Number of stack nodes, with the empty stack.
    #[must_use]
    pub fn stack_count(&self) -> usize {
        self.stacks.len()
    }

    /// A source by its number.
    #[must_use]
    pub fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id.index())
    }

    /// All sources, in the order of their numbers.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The latest known relation of a source's clock to the capture's time line.
    #[must_use]
    pub fn clock(&self, source: SourceId) -> Option<&Clock> {
        self.clocks.iter().rev().find(|c| c.source == source)
    }

    /// A process by its number.
    #[must_use]
    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(id.index())
    }

    /// All processes, in the order of their numbers.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// A thread by its number.
    #[must_use]
    pub fn thread(&self, id: ThreadId) -> Option<&Thread> {
        self.threads.get(id.index())
    }

    /// All threads, in the order of their numbers.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// A device by its number.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(id.index())
    }

    /// All devices, in the order of their numbers.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Labels that whoever recorded the capture gave it.
    #[must_use]
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// Appends a string without looking for an equal one.
    pub(super) fn push_string(&mut self, text: &str) -> StringId {
        let id = StringId(u32::try_from(self.ends.len()).unwrap_or(u32::MAX));
        self.text.push_str(text);
        self.ends.push(self.text.len());
        id
    }
}

/// Finds equal strings and stacks while a capture is written. The texts stay in the tables: only ids are kept here.
#[derive(Debug, Default)]
pub(super) struct Interner {
    strings: HashTable<StringId>,
    hasher: DefaultHashBuilder,
    stacks: HashMap<Frame, StackId>,
}

/// Bounds of the interner: what a hostile or endless input can make it hold.
pub(super) const MAX_STRING_BYTES: usize = 256 << 20;
pub(super) const MAX_STRINGS: usize = 4 << 20;
pub(super) const MAX_STACKS: usize = 8 << 20;

impl Interner {
    /// The id of `text`, new or known; `None` when the table is full.
    pub(super) fn string(&mut self, tables: &mut Tables, text: &str) -> Option<StringId> {
        if text.is_empty() {
            return Some(StringId(0));
        }
        let hash = self.hasher.hash_one(text);
        if let Some(&id) = self.strings.find(hash, |&id| tables.string(id) == text) {
            return Some(id);
        }
        if tables.string_count() >= MAX_STRINGS || tables.string_bytes() + text.len() > MAX_STRING_BYTES {
            return None;
        }
        let id = tables.push_string(text);
        self.strings.insert_unique(hash, id, |&id| self.hasher.hash_one(tables.string(id)));
        Some(id)
    }

    /// The id of the stack `name` called from `parent`; `None` when the table is full.
    pub(super) fn stack(&mut self, tables: &mut Tables, frame: Frame) -> Option<StackId> {
        if let Some(&id) = self.stacks.get(&frame) {
            return Some(id);
        }
        if tables.stacks.len() >= MAX_STACKS {
            return None;
        }
        let id = StackId(u32::try_from(tables.stacks.len()).ok()?);
        tables.stacks.push(frame);
        self.stacks.insert(frame, id);
        Some(id)
    }
}
