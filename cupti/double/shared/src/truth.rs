//! The truth log: what really happened on the made-up devices, as JSON lines, for tests to compare with.
//!
//! `STALLSCOPE_DOUBLE_TRUTH` names the file; `%p` in it stands for the pid. Without `%p` all processes append to one
//! file, in whole lines. All times are CLOCK_MONOTONIC in nanoseconds. Lines reach the file within [`HOLD_NS`] while
//! the process makes CUDA calls, and at its end; a process that is killed loses the lines of that time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sys;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Line {
    /// A process called cuInit.
    Process(Process),
    /// An operation of a device.
    Op(Op),
    /// The host was held inside a CUDA or NCCL call.
    Block(Block),
    /// A collective or a send-receive pair, as one rank took part in it.
    Collective(Collective),
    /// A fault was injected.
    Fault(Fault),
    /// CUPTI was told something that changes its state.
    Cupti(Cupti),
    /// A caller did what the libraries' documentation forbids, or what our agent must never do.
    Misuse(Misuse),
    /// The process ended by itself.
    End(End),
    /// A trainer took a step. Written by trainers, not by stand-ins.
    Step(Step),
    /// A trainer did itself harm. Written by trainers, not by stand-ins.
    Dose(Dose),
}

/// A process called cuInit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// As it sees itself.
    pub pid: u32,
    /// When.
    pub at_ns: u64,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC at that time.
    pub realtime_minus_monotonic_ns: i64,
    /// UUIDs of the devices that it sees, in CUDA's order.
    pub devices: Vec<String>,
    /// `RANK` of its environment.
    pub rank: Option<u32>,
    /// All settings.
    pub settings: String,
}

/// An operation of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// The process.
    pub pid: u32,
    /// Number of the operation in its process.
    pub id: u64,
    /// kernel, collective, copy, set, event.
    pub kind: OpKind,
    /// Kernel's name, or direction of the copy.
    pub name: String,
    /// CUDA's number of the device.
    pub device: u32,
    /// Number of the context.
    pub context: u32,
    /// Number of the stream.
    pub stream: u32,
    /// The thread that launched it.
    pub thread: u32,
    /// Of the launching call.
    pub correlation: u32,
    /// Entry of the launching call.
    pub launched_ns: u64,
    /// Start; absent if it never started.
    pub start_ns: Option<u64>,
    /// End; absent if it had not ended when the process did.
    pub end_ns: Option<u64>,
    /// Bytes that it copies, sets or sends.
    pub bytes: u64,
    /// Graph that it is part of; 0 if none.
    pub graph: u32,
    /// Its node in the graph; 0 if none.
    pub node: u64,
    /// The part of its duration that a `slow` setting added.
    pub slowed_ns: u64,
    /// What CUPTI was told to record when it was launched: a record is due.
    pub observed: bool,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Computes.
    Kernel,
    /// Communicates.
    Collective,
    /// Copies.
    Copy,
    /// Sets memory.
    Set,
    /// Records an event.
    Event,
}

/// The host was held inside a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub thread: u32,
    /// The function.
    pub call: String,
    /// Its correlation id.
    pub correlation: u32,
    /// Why.
    pub why: Why,
    /// The wait began.
    pub enter_ns: u64,
    /// It ended.
    pub leave_ns: u64,
    /// When what was waited for happened; `leave_ns` is later by the time it took to wake up.
    pub until_ns: u64,
}

/// Why the host was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Synchronisation with a stream.
    Stream,
    /// Synchronisation with an event.
    Event,
    /// Synchronisation with the context.
    Context,
    /// A copy that waits for its end.
    Copy,
    /// A copy from pageable memory that is being staged.
    Staging,
    /// Device memory was allocated.
    Alloc,
    /// Device memory was freed.
    Free,
    /// Host memory was pinned.
    Pin,
    /// The stream's queue was full.
    QueueFull,
    /// Ranks meet to make a communicator.
    CommInit,
}

/// A collective or a send-receive pair, as one rank took part in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collective {
    /// The process.
    pub pid: u32,
    /// Hash of the communicator, hexadecimal.
    pub comm: String,
    /// Number of the collective in its communicator, from 0; of pairs, among those of the same two ranks.
    pub sequence: u64,
    /// AllReduce, …; SendRecv.
    pub what: String,
    /// This rank.
    pub rank: u32,
    /// Ranks of the communicator.
    pub world: u32,
    /// Bytes, as NCCL counts them for this function.
    pub bytes: u64,
    /// The operation on this rank's device.
    pub op: u64,
    /// Ranks that took part.
    pub ranks: Vec<u32>,
    /// When each of `ranks` started.
    pub starts_ns: Vec<u64>,
    /// The rank that started last.
    pub late_rank: u32,
    /// From this rank's start to the last one's.
    pub wait_ns: u64,
    /// From the last start to the end.
    pub transfer_ns: u64,
    /// The part of `transfer_ns` that `nccl.slow` added.
    pub slowed_ns: u64,
}

/// A fault was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The process.
    pub pid: u32,
    /// When.
    pub at_ns: u64,
    /// The setting that asked for it.
    pub key: String,
    /// How much: nanoseconds for times, else a count.
    pub dose: u64,
    /// The record or the call that it hit.
    pub correlation: u32,
}

/// CUPTI was told something that changes its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cupti {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub thread: u32,
    /// When.
    pub at_ns: u64,
    /// The function.
    pub call: String,
    /// What with, or what came of it.
    pub detail: String,
    /// What it returned.
    pub code: u32,
}

/// A caller did what it must not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misuse {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub thread: u32,
    /// When.
    pub at_ns: u64,
    /// What.
    pub what: String,
}

/// The process ended by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The process.
    pub pid: u32,
    /// When.
    pub at_ns: u64,
    /// Operations launched: there is a line for each.
    pub ops: u64,
    /// Those that had not ended.
    pub unfinished: u64,
}

/// A trainer took a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The process.
    pub pid: u32,
    /// Its rank.
    pub rank: u32,
    /// Number of the step, from 0.
    pub step: u64,
    /// It began.
    pub begin_ns: u64,
    /// The host was done with it; devices may not be.
    pub end_ns: u64,
}

/// A trainer did itself harm, as it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// The process that was harmed: a data loader's worker has its own.
    pub pid: u32,
    /// The thread that lost the time.
    pub thread: u32,
    /// The rank.
    pub rank: u32,
    /// The step; of a loader's worker, the batch.
    pub step: u64,
    /// Which harm, as on the trainer's command line.
    pub what: String,
    /// It began.
    pub begin_ns: u64,
    /// It ended.
    pub end_ns: u64,
    /// What of it was the harm, where not all was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_ns: Option<u64>,
    /// How long it waited for a CPU meanwhile, with the threads that it waited for, by the kernel's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ns: Option<u64>,
}

/// Lines are held back at most this long.
pub const HOLD_NS: u64 = 50_000_000;

/// Or until they are this many bytes.
const HOLD_BYTES: usize = 64 * 1024;

struct Log {
    file: File,
    held: Vec<u8>,
    written_ns: u64,
    /// Who wrote what is held: a forked child must not write its parent's lines again.
    pid: u32,
}

fn log() -> Option<&'static Mutex<Log>> {
    static LOG: OnceLock<Option<Mutex<Log>>> = OnceLock::new();
    let open = || {
        let path = std::env::var("STALLSCOPE_DOUBLE_TRUTH").ok()?;
        let log = Log { file: open_file(&path), held: Vec::new(), written_ns: 0, pid: sys::process_id() };
        sys::at_exit(flush_at_exit);
        Some(Mutex::new(log))
    };
    LOG.get_or_init(open).as_ref()
}

extern "C" fn flush_at_exit() {
    flush();
}

/// # Panics
/// Ends the process where there cannot be a log: a test without its truth proves nothing.
fn open_file(path: &str) -> File {
    let path = path.replace("%p", &sys::process_id().to_string());
    OpenOptions::new().create(true).append(true).open(&path).unwrap_or_else(|error| {
        eprintln!("stallscope double: truth log {path}: {error}");
        std::process::abort();
    })
}

/// Does anybody want the truth?
#[must_use]
pub fn is_wanted() -> bool {
    log().is_some()
}

/// Add lines.
pub fn write(lines: &[Line]) {
    let Some(log) = log() else { return };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.own();
    for line in lines {
        if let Ok(()) = serde_json::to_writer(&mut log.held, line) {
            log.held.push(b'\n');
        }
    }
    let now_ns = sys::monotonic_ns();
    if log.held.len() > HOLD_BYTES || now_ns.saturating_sub(log.written_ns) > HOLD_NS {
        log.flush(now_ns);
    }
}

/// Write out what is held if it is due: called now and then by those who make calls but have no lines.
pub fn tick(now_ns: u64) {
    let Some(log) = log() else { return };
    let Ok(mut log) = log.try_lock() else { return };
    if !log.held.is_empty() && now_ns.saturating_sub(log.written_ns) > HOLD_NS {
        log.flush(now_ns);
    }
}

/// Write out everything.
pub fn flush() {
    let Some(log) = log() else { return };
    log.lock().unwrap_or_else(PoisonError::into_inner).flush(sys::monotonic_ns());
}

impl Log {
    /// Begin anew in a forked child.
    fn own(&mut self) {
        let pid = sys::process_id();
        if self.pid != pid {
            self.pid = pid;
            self.held.clear();
            if let Ok(path) = std::env::var("STALLSCOPE_DOUBLE_TRUTH") {
                self.file = open_file(&path);
            }
        }
    }

    fn flush(&mut self, now_ns: u64) {
        self.own();
        // One write of whole lines: appends of several processes do not mix.
        if let Err(error) = self.file.write_all(&self.held) {
            eprintln!("stallscope double: truth log: {error}");
        }
        self.held.clear();
        self.written_ns = now_ns;
    }
}

/// Note that a caller did what it must not.
pub fn misuse(what: &str) {
    eprintln!("stallscope double: misuse: {what}");
    let (pid, thread, at_ns) = (sys::process_id(), sys::thread_id(), sys::monotonic_ns());
    write(&[Line::Misuse(Misuse { pid, thread, at_ns, what: what.to_owned() })]);
    flush();
}

/// Read the lines of a file's text. A last line that was cut off is left out.
///
/// # Errors
/// The number and text of the first whole line that is not one of [`Line`].
pub fn parse(text: &str) -> Result<Vec<Line>, String> {
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let lines = whole.lines().enumerate().filter(|(_, l)| !l.is_empty());
    lines.map(|(n, l)| serde_json::from_str(l).map_err(|e| format!("line {}: {e}: {l}", n + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written() {
        let line = Line::Fault(Fault { pid: 1, at_ns: 2, key: "fault.drop".into(), dose: 1, correlation: 9 });
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"t":"fault","pid":1,"at_ns":2,"key":"fault.drop","dose":1,"correlation":9}"#);
        assert_eq!(parse(&format!("{text}\n{text}\n{{\"t\":\"fau")).unwrap(), [line.clone(), line]);
        assert!(parse("{\"t\":\"nothing\"}\n").is_err());
    }
}
