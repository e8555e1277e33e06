//! A record of the rings as a value.
//!
//! The rings are written by the kernel on behalf of programs that read another process's memory: lengths and tags are
//! checked here, and every number after that is data.

use stallscope_schemas::wire::{
    BlockIo, Call, Connection, Faults, FileIo, Head, Launch, Loss, MAX_FRAMES, Moment, Object, Preempt,
    Sample, Stack, Task, WaitRecord, record,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes of a Python frame: code object and instruction offset.
const PYTHON_FRAME: usize = 16;

/// A stack as it was walked: addresses, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrames {
    /// What other records call it.
    pub id: u64,
    /// The task that it was taken of.
    pub task: u32,
    /// Bits of `wire::stack_flag`.
    pub flags: u16,
    /// Native or kernel addresses.
    pub native: Vec<u64>,
    /// Code object and instruction offset.
    pub python: Vec<(u64, u64)>,
}

/// One record.
#[derive(Clone, Debug)]
pub enum Event {
    /// A thread is followed from now on, or one outside of the job was met.
    Task(Task),
    /// A followed thread ended.
    TaskEnd(Moment),
    /// A followed process began another program.
    Exec(Moment),
    /// A thread waited.
    Wait(WaitRecord),
    /// A thread was runnable and did not run.
    Preempt(Preempt),
    /// A thread was found on a CPU.
    Sample(Sample),
    /// A stack that later records refer to.
    Stack(StackFrames),
    /// An object that later records refer to.
    Object(Box<Object>),
    /// Records of a thread were lost.
    Loss(Loss),
    /// A request to a block device was completed.
    BlockIo(BlockIo),
    /// A call into a collective library.
    Call(Box<Call>),
    /// What a process did with a file.
    FileIo(FileIo),
    /// What a connection has done.
    Connection(Connection),
    /// Page faults of a thread.
    Faults(Faults),
    /// A launch that was sampled.
    Launch(Launch),
}

/// A record that is not one: too short, or of an unknown type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of type {kind} and {length} bytes")]
pub struct Malformed {
    /// The type that it claims.
    pub kind: u16,
    /// Its length.
    pub length: usize,
}

impl Event {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Malformed`] where the bytes are too few for the type that they claim, or the type is unknown.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let kind = prefix::<Head>(bytes).map_or(0, |h| h.kind);
        let malformed = Malformed { kind, length: bytes.len() };
        Self::parse_as(kind, bytes).ok_or(malformed)
    }

    fn parse_as(kind: u16, bytes: &[u8]) -> Option<Self> {
        Some(match kind {
            record::TYPE_TASK => Self::Task(prefix(bytes)?),
            record::TYPE_TASK_END => Self::TaskEnd(prefix(bytes)?),
            record::TYPE_EXEC => Self::Exec(prefix(bytes)?),
            record::TYPE_WAIT => Self::Wait(prefix(bytes)?),
            record::TYPE_PREEMPT => Self::Preempt(prefix(bytes)?),
            record::TYPE_SAMPLE => Self::Sample(prefix(bytes)?),
            record::TYPE_STACK => Self::Stack(stack(bytes)?),
            record::TYPE_OBJECT => Self::Object(Box::new(prefix(bytes)?)),
            record::TYPE_LOSS => Self::Loss(prefix(bytes)?),
            record::TYPE_BLOCK_IO => Self::BlockIo(prefix(bytes)?),
            record::TYPE_CALL => Self::Call(Box::new(prefix(bytes)?)),
            record::TYPE_FILE_IO => Self::FileIo(prefix(bytes)?),
            record::TYPE_CONNECTION => Self::Connection(prefix(bytes)?),
            record::TYPE_FAULTS => Self::Faults(prefix(bytes)?),
            record::TYPE_LAUNCH => Self::Launch(prefix(bytes)?),
            _ => return None,
        })
    }
}

fn prefix<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

/// A stack's frames lie in two arrays of fixed places; the second begins after all places of the first.
fn stack(bytes: &[u8]) -> Option<StackFrames> {
    let (head, frames) = Stack::read_from_prefix(bytes).ok()?;
    let (native, python) = (usize::from(head.native), usize::from(head.python));
    if native > MAX_FRAMES || python > MAX_FRAMES {
        return None;
    }
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    };
    let pairs = frames.get(MAX_FRAMES * 8..).unwrap_or_default();
    let python = words(pairs.get(..python * PYTHON_FRAME)?);
    Some(StackFrames {
        id: head.id,
        task: head.head.task,
        flags: head.head.flags,
        native: words(frames.get(..native * 8)?),
        python: python.as_chunks::<2>().0.iter().map(|&[code, offset]| (code, offset)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::wire::{Head, MAX_FRAMES, Stack, WaitRecord, record};
    use zerocopy::{FromZeros, IntoBytes};

    use super::{Event, Malformed};

    fn head(kind: u16) -> Head {
        Head { kind, flags: 0, task: 7 }
    }

    #[test]
    fn a_record_that_is_cut_or_unknown_is_malformed_at_every_length() {
        let mut wait = WaitRecord::new_zeroed();
        wait.head = head(record::TYPE_WAIT);
        let bytes = wait.as_bytes();
        for length in 0..bytes.len() {
            assert!(Event::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(matches!(Event::parse(bytes), Ok(Event::Wait(w)) if w.head.task == 7));
        let unknown = head(999);
        assert_eq!(Event::parse(unknown.as_bytes()).err(), Some(Malformed { kind: 999, length: 8 }));
    }

    #[test]
    fn a_stack_gives_its_frames_and_no_more_than_it_has() {
        let mut bytes = Vec::new();
        let stack = Stack { head: head(record::TYPE_STACK), id: 5, native: 2, python: 1, reserved: 0 };
        bytes.extend_from_slice(stack.as_bytes());
        for address in 0..MAX_FRAMES as u64 {
            bytes.extend_from_slice(&(address + 100).to_ne_bytes());
        }
        bytes.extend_from_slice(&[900u64, 44].map(u64::to_ne_bytes).concat());
        let Ok(Event::Stack(frames)) = Event::parse(&bytes) else { panic!("not a stack") };
        assert_eq!((frames.native, frames.python), (vec![100, 101], vec![(900, 44)]));
        bytes.truncate(bytes.len() - 1);
        assert!(Event::parse(&bytes).is_err(), "a Python frame is cut");
        let many = Stack { native: 200, ..stack };
        assert!(Event::parse(many.as_bytes()).is_err(), "more frames than there can be");
    }
}
