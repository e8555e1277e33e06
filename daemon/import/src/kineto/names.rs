//! Names and stacks of the trace to ids of the capture, with a cache by the raw text in front.
//!
//! A name occurs thousands of times: it is looked up by its bytes as they stand in the file, so that decoding, interning
//! and the questions that a name answers are paid for once. The caches are emptied when they have grown to their bound;
//! that costs time, never correctness.

use std::io::Write;

use hashbrown::HashMap;
use stallscope_core::capture::CaptureWriter;
use stallscope_core::classify::is_collective_range;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CopyKind, OpKind};
use stallscope_schemas::units::{StackId, StringId};

use super::args::copy_kind;
use super::text::decode;

/// Bytes of raw text that a cache holds: a hundred thousand long kernel names.
const MAX_CACHE_BYTES: usize = 32 << 20;

/// Longest name that is kept whole. The longest kernel names (CUTLASS) have some ten thousand bytes.
const MAX_NAME_BYTES: usize = 64 << 10;

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Its id in the capture.
    pub(super) id: StringId,
    /// Whether it marks a step of the loop.
    pub(super) step: bool,
    /// Whether a host range of this name belongs to a collective library.
    pub(super) collective: bool,
    /// Whether it is that of a call into CUDA or HIP.
    pub(super) api: bool,
    /// Whether it is that of a Python function as XLA's profiler writes them.
    pub(super) python: bool,
    /// The kind of operation that it names, where it names one that is no kernel.
    pub(super) op: Option<OpKind>,
    /// Between what a copy of this name moves data.
    pub(super) copy: CopyKind,
}

/// Values by raw text, within a bound.
#[derive(Debug)]
struct Cache<V> {
    values: HashMap<Box<[u8]>, V>,
    bytes: usize,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), bytes: 0 }
    }
}

impl<V: Copy> Cache<V> {
    fn get(&self, raw: &[u8]) -> Option<V> {
        self.values.get(raw).copied()
    }

    fn insert(&mut self, raw: &[u8], value: V) {
        // What the map itself takes for an entry, roughly.
        let cost = raw.len() + 64;
        if self.bytes + cost > MAX_CACHE_BYTES {
            self.values.clear();
            self.bytes = 0;
        }
        if cost <= MAX_CACHE_BYTES / 64 {
            self.bytes += cost;
            self.values.insert(raw.into(), value);
        }
    }
}

/// Both caches.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Cache<Name>,
    stacks: Cache<StackId>,
}

impl Names {
    /// What a raw name is and says.
    pub(super) fn name<W: Write>(&mut self, writer: &mut CaptureWriter<W>, raw: &[u8]) -> Name {
        if let Some(name) = self.names.get(raw) {
            return name;
        }
        let name = describe(writer, raw);
        self.names.insert(raw, name);
        name
    }

    /// The stack of a raw "Call stack": frames separated by semicolons, innermost first.
    pub(super) fn call_stack<W: Write>(&mut self, writer: &mut CaptureWriter<W>, raw: &[u8]) -> StackId {
        if let Some(stack) = self.stacks.get(raw) {
            return stack;
        }
        let text = decode(raw);
        let frames = text.rsplit(';').map(str::trim).filter(|frame| !frame.is_empty());
        let stack = frames.fold(StackId(0), |parent, frame| {
            let name = writer.intern(frame);
            writer.intern_frame(parent, name)
        });
        self.stacks.insert(raw, stack);
        stack
    }
}

fn describe<W: Write>(writer: &mut CaptureWriter<W>, raw: &[u8]) -> Name {
    let text = decode(raw);
    let mut kept = text.as_ref();
    if kept.len() > MAX_NAME_BYTES {
        writer.count_loss(LossCounter::StringTableFull, 1);
        kept = kept.get(..kept.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default();
    }
    let copy = copy_kind(kept.get(..kept.floor_char_boundary(128)).unwrap_or_default());
    Name {
        id: writer.intern(kept),
        step: kept.starts_with("ProfilerStep"),
        collective: is_collective_range(kept),
        api: is_api_call(kept),
        python: kept.starts_with('$'),
        op: op_named(kept),
        copy,
    }
}

fn is_api_call(name: &str) -> bool {
    let driver =
        name.strip_prefix("cu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    driver || name.starts_with("cuda") || name.starts_with("hip")
}

/// Copies and fills that go by their name where the category does not say (XLA) or says "kernel" (old AMD traces).
fn op_named(name: &str) -> Option<OpKind> {
    let starts = |prefixes: &[&str]| {
        prefixes.iter().any(|p| name.get(..p.len()).is_some_and(|start| start.eq_ignore_ascii_case(p)))
    };
    if starts(&["memcpy", "CopyHostTo", "CopyDeviceTo", "CopyPeer"]) {
        Some(OpKind::Memcpy)
    } else if starts(&["memset", "FillBuffer"]) {
        Some(OpKind::Memset)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use stallscope_core::capture::{CaptureWriter, WriterOptions};
    use stallscope_schemas::record::OpKind;

    use super::{MAX_CACHE_BYTES, MAX_NAME_BYTES, Names};

    fn writer() -> CaptureWriter<Vec<u8>> {
        CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("a Vec takes everything")
    }

    #[test]
    fn names_are_decoded_once_and_described() {
        let (mut names, mut writer) = (Names::default(), writer());
        let step = names.name(&mut writer, b"ProfilerStep#6");
        assert!(step.step && !step.api);
        assert_eq!(names.name(&mut writer, b"ProfilerStep#6"), step);
        let escaped = names.name(&mut writer, br"a\u0062c");
        assert_eq!(writer.tables().string(escaped.id), "abc");
        assert_eq!(names.name(&mut writer, b"abc").id, escaped.id);
        assert!(names.name(&mut writer, b"nccl:all_reduce").collective);
        assert_eq!(names.name(&mut writer, b"MemcpyH2D").op, Some(OpKind::Memcpy));
        assert!(names.name(&mut writer, b"cuLaunchKernel").api);
        assert!(!names.name(&mut writer, b"cutlass_gemm").api);
    }

    #[test]
    fn call_stacks_become_frames_with_the_outermost_first() {
        let (mut names, mut writer) = (Names::default(), writer());
        let stack = names.call_stack(&mut writer, b"profiler.py(611): __init__;resnet.py(54): <module>");
        let tables = writer.tables();
        let frames: Vec<&str> =
            tables.stack_names(stack).into_iter().map(|name| tables.string(name)).collect();
        assert_eq!(frames, ["resnet.py(54): <module>", "profiler.py(611): __init__"]);
    }

    #[test]
    fn the_cache_never_outgrows_its_bound_and_long_names_are_cut() {
        let (mut names, mut writer) = (Names::default(), writer());
        for i in 0..3000 {
            let raw = format!("{i}{}", "x".repeat(20_000));
            names
                .names
                .insert(raw.as_bytes(), names.names.get(b"").unwrap_or(super::describe(&mut writer, b"x")));
            assert!(names.names.bytes <= MAX_CACHE_BYTES);
        }
        let long = names.name(&mut writer, "é".repeat(MAX_NAME_BYTES).as_bytes());
        assert!(writer.tables().string(long.id).len() <= MAX_NAME_BYTES);
    }
}
