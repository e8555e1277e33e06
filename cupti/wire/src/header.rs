//! The first page: who is there, how far each side is, what is wanted, how it stands.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// `STALLRNG`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STALLRNG");

/// Raised with every change that an older side would misread.
pub const VERSION: u32 = 2;

/// The ring's slots begin here.
pub const HEADER_BYTES: usize = 4096;

/// Room for counters of losses.
pub const LOST_COUNTERS: usize = 16;

/// Room for the path of a CUPTI, with its end.
pub const CUPTI_PATH_BYTES: usize = 1024;

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $id:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $id,)* }

        impl $name {
            /// Every one, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The one with this number.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// Its number.
            #[must_use]
            pub const fn id(self) -> u32 {
                self as u32
            }

            /// What it is called where people read it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

numbers! {
    /// What the daemon wants.
    Command {
        /// Nothing: stay dormant, or go dormant.
        Rest = 0 "rest",
        /// Collect activity, of the kinds of `Header::kinds`.
        Collect = 1 "collect",
        /// Return from the entry: the agent's thread ends.
        Leave = 2 "leave",
    }
}

numbers! {
    /// Where the agent is.
    State {
        /// It has not been heard of.
        None = 0 "not started",
        /// It waits for a command; CUPTI is not attached.
        Idle = 1 "idle",
        /// It attaches CUPTI.
        Attaching = 2 "attaching",
        /// Records flow.
        On = 3 "on",
        /// It takes what CUPTI still has, and detaches it.
        Flushing = 4 "flushing",
        /// CUPTI is detached; it can be attached again.
        Dormant = 5 "dormant",
        /// It cannot collect; `Header::reason` says why.
        Refused = 6 "refused",
        /// The entry has returned.
        Gone = 7 "gone",
    }
}

numbers! {
    /// Why the agent does not collect, or stopped.
    Reason {
        /// No reason: all is well.
        None = 0 "none",
        /// The daemon's magic, version or sizes are not this agent's.
        Version = 1 "the agent and the daemon are of different versions",
        /// There is no CUDA driver in the process.
        NoCuda = 2 "the process does not use CUDA (yet)",
        /// No CUPTI is mapped and none was brought, or it cannot be loaded.
        NoCupti = 3 "there is no libcupti that can be loaded",
        /// A function that is needed is not in this CUPTI.
        CuptiTooOld = 4 "this libcupti is older than 11.8",
        /// Another profiler uses CUPTI.
        OtherProfiler = 5 "another profiler is active in the process",
        /// CUPTI's clock is neither CLOCK_REALTIME nor a steady function of it.
        ForeignClock = 6 "a profiler in the process has changed CUPTI's clock",
        /// A CUPTI call failed; `Header::detail` has its code.
        Cupti = 7 "CUPTI refused",
        /// The daemon has not been heard of for the time that it had announced.
        DaemonGone = 8 "the daemon is gone",
        /// `cuptiFinalize` did not come back: CUPTI is not touched again.
        Stuck = 9 "CUPTI does not come back",
        /// A CUPTI of a version whose records this agent cannot know.
        CuptiTooNew = 10 "this libcupti is newer than what this version knows",
        /// The agent could not get memory or shared memory; `Header::detail` has errno.
        NoMemory = 11 "no memory",
    }
}

numbers! {
    /// What is counted as lost: the index into `Header::lost`.
    Lost {
        /// Records for which the ring had no room.
        RingFull = 0 "ring full",
        /// Records that CUPTI says it dropped.
        CuptiDropped = 1 "dropped by CUPTI",
        /// Times that CUPTI asked for a buffer and all were in use.
        NoBuffer = 2 "no buffer",
        /// Records with a size, a kind or times that make no sense.
        Malformed = 3 "malformed",
        /// Names that did not fit.
        NameLost = 4 "name lost",
        /// Operations that CUPTI returned without an end.
        Unfinished = 5 "without an end",
        /// Ranges of the user that were open when there was no room to remember them, or whose start was not seen.
        RangeLost = 6 "range lost",
        /// Records that came back after another profiler had come.
        Yielded = 7 "given up to another profiler",
        /// Times that another profiler had taken CUPTI's callbacks before it was noticed.
        Taken = 8 "taken by another profiler",
    }
}

numbers! {
    /// How CUPTI was left.
    Detached {
        /// It was not, or not yet.
        None = 0 "attached or never attached",
        /// `cuptiFinalize` has removed all of it.
        Finalized = 1 "finalised",
        /// Everything is disabled, and stays loaded: this version crashes at `cuptiFinalize` in jobs with CUDA graphs.
        DisabledOld = 2 "disabled only: this libcupti cannot be finalised safely",
        /// Everything is disabled; the job has not made a call into the driver yet within which it could be finalised.
        DisabledIdle = 3 "disabled only: the job makes no call within which it could be finalised",
        /// Everything is disabled; another profiler holds the subscription that finalising needs.
        DisabledOther = 4 "disabled only: another profiler is active",
        /// `cuptiFinalize` returned an error.
        DisabledFailed = 5 "disabled only: cuptiFinalize failed",
    }
}

/// The first page of the shared memory. Everything is an atomic: the other side may write at any time.
#[derive(Debug)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`], written last by the daemon when it makes the ring.
    pub magic: AtomicU64,
    /// [`VERSION`] of the daemon.
    pub version: AtomicU32,
    /// [`VERSION`] of the agent.
    pub agent_version: AtomicU32,
    /// Slots of the ring: a power of two.
    pub slots: AtomicU32,
    /// Pid of the job's process as it sees itself.
    pub pid: AtomicU32,
    /// Thread of the agent as the process sees it.
    pub tid: AtomicU32,
    /// Version of CUPTI as it says, e.g. 130100; 0 while there is none.
    pub cupti_version: AtomicU32,
    padding0: [u64; 4],

    /// Slots written since the beginning. Agent.
    pub head: AtomicU64,
    padding1: [u64; 7],

    /// Slots read since the beginning. Daemon.
    pub tail: AtomicU64,
    padding2: [u64; 7],

    /// Raised with every change of the words below; the agent waits on it (futex, shared).
    pub control: AtomicU32,
    /// A [`Command`].
    pub command: AtomicU32,
    /// Bits of activity kinds to enable: bit n is `CUpti_ActivityKind` n.
    pub kinds: AtomicU64,
    /// CLOCK_MONOTONIC ns at which the daemon was last there. Only its changes count: clocks of namespaces differ.
    pub heartbeat: AtomicU64,
    /// The agent rests when the heartbeat is older than this.
    pub heartbeat_timeout_ns: AtomicU64,
    /// How often the agent asks CUPTI for what is complete.
    pub flush_interval_ns: AtomicU64,
    /// Launches a second that may fire the agent's USDT site; 0 none.
    pub launch_sample: AtomicU64,
    padding3: [u64; 2],

    /// A [`State`]; raised changes are signalled on `state_changes` (futex, shared).
    pub state: AtomicU32,
    /// A [`Reason`].
    pub reason: AtomicU32,
    /// The CUPTI code, or errno, that goes with it.
    pub detail: AtomicI32,
    /// The value of `control` that the state answers.
    pub answered: AtomicU32,
    /// Raised with every change of state.
    pub state_changes: AtomicU32,
    /// A [`Detached`].
    pub detached: AtomicU32,
    /// Activity kinds that are enabled, as in `kinds`: what was asked for less what this CUPTI does not know.
    pub enabled: AtomicU64,
    /// CLOCK_MONOTONIC ns at which the agent last did something: while it is on, one that stands still hangs in CUPTI.
    pub alive: AtomicU64,
    /// Times that it was attached.
    pub attaches: AtomicU64,
    /// Launches that the agent saw while `launch_sample` was not 0.
    pub launches_seen: AtomicU64,
    /// Of these, those that fired the USDT site.
    pub launches_sampled: AtomicU64,

    /// What was lost, by [`Lost`].
    pub lost: [AtomicU64; LOST_COUNTERS],

    /// CLOCK_MONOTONIC ns up to which everything is known to have come, for when nothing more comes: the process was killed, CUPTI
    /// hangs, another profiler has taken over. It stays as it is while the agent makes way; 0 once it has told all.
    pub known_until: AtomicU64,

    /// Path of a CUPTI to load where the process has none and none came with the agent, as the process sees it; ends with a
    /// zero, all zero where there is none. Daemon. See [`Header::offer_cupti`].
    pub cupti_path: [AtomicU64; CUPTI_PATH_BYTES / 8],
}

impl Header {
    /// Offers a CUPTI. A path that has no room is not offered.
    pub fn offer_cupti(&self, path: &[u8]) {
        if path.len() >= CUPTI_PATH_BYTES {
            return;
        }
        let mut bytes = path.iter().copied();
        for word in &self.cupti_path {
            let next: [u8; 8] = core::array::from_fn(|_| bytes.next().unwrap_or(0));
            word.store(u64::from_le_bytes(next), Ordering::Relaxed);
        }
    }

    /// The path that was offered. One that is just being written is no file, and is asked for again.
    #[must_use]
    pub fn offered_cupti(&self) -> [u8; CUPTI_PATH_BYTES] {
        let mut path = [0; CUPTI_PATH_BYTES];
        let words = self.cupti_path.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        for (to, from) in path.iter_mut().zip(words) {
            *to = from;
        }
        path
    }
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(core::mem::offset_of!(Header, head) == 64);
const _: () = assert!(core::mem::offset_of!(Header, tail) == 128);
const _: () = assert!(core::mem::offset_of!(Header, control) == 192);
const _: () = assert!(core::mem::offset_of!(Header, state) == 256);
const _: () = assert!(core::mem::offset_of!(Header, enabled) == 280);
const _: () = assert!(core::mem::offset_of!(Header, lost) == 320);
