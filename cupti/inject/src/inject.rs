//! One injection, from the first look at the target to the call of the agent.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::Refusal;
use crate::examine::examine;
use crate::libraries::CLibrary;
use crate::load::load;
use crate::new_thread::NewThread;
use crate::plant::{Plan, Planted, plant};
use crate::process::Process;
use crate::room::Room;
use crate::settle::settle;
use crate::step::{Observer, Step};

/// What is put into the target.
pub struct Payload<'a> {
    /// A shared object without dependencies that exports `stallscope_cupti_wire::ENTRY`.
    pub image: &'a [u8],
    /// Bytes of the ring's memory, which is shared with the target and cannot change its size.
    pub ring_bytes: u64,
    /// Called with the ring's memory, all zeros, before the agent sees it.
    pub prepare: &'a (dyn Fn(&OwnedFd) -> io::Result<()> + Sync),
    /// A CUPTI library to bring along, for a target that has none. Where the target may not have executable memory, it
    /// is left out.
    pub cupti: Option<&'a File>,
    /// `StartArguments::flags`.
    pub flags: u64,
    /// The image is unloaded when its entry returns. Only for one that leaves nothing behind which refers to it.
    pub unload: bool,
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Payload")
            .field("image", &self.image.len())
            .field("ring_bytes", &self.ring_bytes)
            .field("cupti", &self.cupti)
            .field("flags", &self.flags)
            .field("unload", &self.unload)
            .finish_non_exhaustive()
    }
}

/// How patient the injector is, and who is told of its steps.
pub struct Options<'a> {
    /// How long to wait for a thread that can be borrowed.
    pub safe_point_within: Duration,
    /// How long each answer of the new thread may take. Loading waits for whoever holds the loader's lock.
    pub answer_within: Duration,
    /// Inject although the target's seccomp filters cannot be read, which needs CAP_SYS_ADMIN and an injector without a
    /// filter of its own. The default profiles of container runtimes allow all that is needed; a filter that does not
    /// may end the process.
    pub trust_seccomp: bool,
    /// Called after each step, on the thread that took it. Nothing waits for it but the target: it must be quick.
    pub observe: Option<&'a mut (dyn FnMut(Step) + Send)>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            safe_point_within: Duration::from_secs(3),
            answer_within: Duration::from_secs(5),
            trust_seccomp: false,
            observe: None,
        }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Options")
            .field("safe_point_within", &self.safe_point_within)
            .field("answer_within", &self.answer_within)
            .field("trust_seccomp", &self.trust_seccomp)
            .finish_non_exhaustive()
    }
}

/// The agent was called.
#[derive(Debug)]
pub struct Injected {
    /// The memory that is shared with the agent.
    pub ring: OwnedFd,
    /// The agent's thread, as this process numbers it.
    pub tid: i32,
    /// The same, as the target numbers it.
    pub inner_tid: u32,
    /// The thread that was borrowed.
    pub victim: i32,
    /// For how long it was: from the request to stop until it was let go.
    pub stopped: Duration,
    /// Threads that were stopped until one could be borrowed, that one included.
    pub attempts: u32,
}

/// Puts the agent into a process and calls its entry on a thread of its own.
///
/// Nothing is looked for that may be there already: see [`crate::find_agent`].
///
/// # Errors
/// A [`Refusal`]; the target is as it was.
pub fn inject(pid: i32, payload: &Payload<'_>, options: Options<'_>) -> Result<Injected, Refusal> {
    let mut observer = Observer(options.observe);
    let process = Process::open(pid)?;
    let facts = examine(&process)?;
    process.lock()?;
    let maps = process.maps()?;
    let library = CLibrary::find(&process, &maps)?;
    let room = Room::find(&process, &maps)?;
    settle(&process, &room, options.safe_point_within)?;
    room.write_code(&process)?;
    observer.step(Step::CodeWritten);
    let plan = Plan {
        process: &process,
        facts,
        library: &library,
        room: &room,
        within: options.safe_point_within,
        trust_seccomp: options.trust_seccomp,
    };
    let planted = match plant(&plan, &mut observer) {
        Ok(planted) => planted,
        Err(refusal) => return Err(undo(&process, &room, refusal)),
    };
    let within = options.answer_within;
    let mut thread = NewThread::meet(&process, planted.region, within, || observer.step(Step::Left))?;
    observer.step(Step::Answered);
    let (tid, inner_tid) = (thread.tid, thread.inner_tid);
    match load(&process, &library.functions, &mut thread, payload, &mut observer) {
        Ok((ring, ready)) => {
            thread.start(ready.entry, ready.finally)?;
            observer.step(Step::Started);
            let Planted { victim, stopped, attempts, .. } = planted;
            Ok(Injected { ring, tid, inner_tid, victim, stopped, attempts })
        }
        Err(refusal) => {
            if thread.end() {
                return Err(undo(&process, &room, refusal));
            }
            Err(refusal)
        }
    }
}

/// Takes the code away again, where no thread can be in it.
fn undo(process: &Process, room: &Room, refusal: Refusal) -> Refusal {
    let may_be_in_it = matches!(refusal, Refusal::Stuck { .. } | Refusal::Stopped { .. });
    if !may_be_in_it {
        // The page is a private copy by now; that it stays is of no consequence, nor would the code be.
        let _ = room.restore(process);
    }
    refusal
}
