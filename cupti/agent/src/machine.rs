//! The state machine: what is done when, driven by the daemon's control words and, where the daemon is gone, by its
//! silence.
//!
//! | State | CUPTI | Goes on |
//! |---|---|---|
//! | idle | never touched | to attaching when the daemon says collect |
//! | attaching | being attached | to on, or to refused |
//! | on | attached | to flushing when the daemon says rest, or is silent; to refused when another profiler comes |
//! | flushing | being detached | to dormant |
//! | dormant | gone, or disabled where it could not be removed | as idle |
//! | refused | untouched or detached | tries again each second while the daemon says collect |
//! | gone | as dormant | the entry has returned |

use core::sync::atomic::Ordering;

use stallscope_cupti_abi::{Functions, VERSION_12_6};
use stallscope_cupti_wire::{Detached, Lost, Reason, Ring, State};

use crate::Refusal;
use crate::callbacks::POOL;
use crate::exit::{self, Leave};
use crate::library::Library;
use crate::output::Output;
use crate::session::{self, Session};
use crate::subscriber::{self, Finalized};
use crate::sys::{self, Scope};
use crate::watch::{Plan, Watch, Wish};

/// How often what was refused is tried again, and what could not be finished is looked at.
const RETRY_NS: u64 = 1_000_000_000;

/// How long the subscription is held for a chance to finalise, and how often that is tried.
const FINALIZE_WINDOW_NS: u64 = 150_000_000;
const FINALIZE_TRIES: u32 = 20;

/// How long a stretch without records may wait for room in the ring before it is given up.
const LAST_WORD_NS: u64 = 200_000_000;

/// How long kinds that another profiler shares with us are left to it, where nothing says that it is done. A profile
/// takes seconds; kinds that nobody disables cost the job for ever.
const OWED_NS: u64 = 120_000_000_000;

/// Where the machine is in its dealings with CUPTI.
#[derive(Debug)]
enum Phase {
    /// Nothing is enabled.
    Off,
    On(Session),
    /// Another profiler has come; kinds that it shares with us are still enabled.
    Yielded(Session, Other),
}

/// Another profiler that we have made way for.
#[derive(Clone, Copy, Debug)]
struct Other {
    since_ns: u64,
    /// When it was last looked at, and how many buffers had come back to us by then.
    looked_ns: u64,
    returned: u64,
}

impl Other {
    fn new(now_ns: u64) -> Self {
        Self { since_ns: now_ns, looked_ns: now_ns, returned: POOL.returned() }
    }

    /// Looks again. Whether records still come to us: not only in the first second, in which it may have the subscription
    /// and not have registered its callbacks yet.
    fn leaves_them_to_us(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.looked_ns) < RETRY_NS {
            return false;
        }
        let is_first = self.looked_ns == self.since_ns;
        let before = core::mem::replace(&mut self.returned, POOL.returned());
        self.looked_ns = now_ns;
        !is_first && self.returned > before
    }
}

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for a change of the control words, for so long or for ever.
    Control(Option<u64>),
    /// Wait for buffers, for so long.
    Buffers(u64),
    /// Return.
    Leave,
    /// The process ends: wait for that.
    End,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine<'r, L> {
    ring: Ring<'r>,
    output: Output<'r>,
    library: L,
    watch: Watch,
    phase: Phase,
    /// Version of CUPTI; 0 while there is none.
    version: u32,
    /// Attempts that are left to remove CUPTI, which is disabled already.
    finalize_tries: u32,
    /// Not before this it is tried again to attach.
    retry_ns: u64,
    /// Until when everything is known, where we made way for another profiler and have not come back.
    known_until_ns: Option<u64>,
    /// CUPTI did not come back: it is not called again.
    is_stuck: bool,
    control: u32,
}

impl<'r, L: Library> Machine<'r, L> {
    pub(crate) fn new(ring: Ring<'r>, library: L) -> Self {
        let watch = Watch::new(ring.header(), sys::monotonic_ns());
        let machine = Self {
            ring,
            output: Output::new(ring),
            library,
            watch,
            phase: Phase::Off,
            version: 0,
            finalize_tries: 0,
            retry_ns: 0,
            known_until_ns: None,
            is_stuck: false,
            control: 0,
        };
        machine.set_state(State::Idle, Refusal::new(Reason::None, 0));
        machine
    }

    /// Runs until the daemon says leave.
    pub(crate) fn run(&mut self) {
        loop {
            match self.step() {
                Next::Leave => return,
                Next::End => sys::sleep_ns(RETRY_NS),
                Next::Control(timeout_ns) => {
                    let control = &self.ring.header().control;
                    sys::futex_wait(control, self.control, timeout_ns, Scope::Shared);
                }
                Next::Buffers(timeout_ns) => POOL.wait(timeout_ns),
            }
        }
    }

    /// Does what there is to do, once.
    pub(crate) fn step(&mut self) -> Next {
        let next = match exit::begin_step() {
            Leave::Work => self.work(),
            leave => self.end(leave),
        };
        exit::end_step(matches!(self.phase, Phase::On(_)));
        next
    }

    fn work(&mut self) -> Next {
        let now_ns = sys::monotonic_ns();
        let header = self.ring.header();
        header.alive.store(now_ns, Ordering::Relaxed);
        let (wish, control) = self.watch.wish(header, now_ns);
        let is_new = control != self.control;
        self.control = control;
        let next = match wish {
            Wish::Leave => self.leave(),
            Wish::Rest(reason) => self.rest(reason, now_ns),
            Wish::Collect(plan) => self.collect(&plan, is_new, now_ns),
        };
        self.count();
        if next == Next::Leave {
            self.set_state(State::Gone, Refusal::new(Reason::None, 0));
        }
        header.answered.store(control, Ordering::Release);
        next
    }

    /// The job ends: the last records, and then no call into CUPTI any more. It goes down by itself.
    fn end(&mut self, leave: Leave) -> Next {
        match core::mem::replace(&mut self.phase, Phase::Off) {
            Phase::On(session) if leave == Leave::LastRecords => {
                session.detach(&mut self.output);
                self.ring.header().known_until.store(0, Ordering::Relaxed);
            }
            // Its memory goes with the process.
            phase => core::mem::forget(phase),
        }
        self.set_state(State::Gone, Refusal::new(Reason::None, 0));
        Next::End
    }

    fn leave(&mut self) -> Next {
        if let Phase::On(session) = core::mem::replace(&mut self.phase, Phase::Off) {
            self.detach(session);
        }
        // What is owed to another profiler stays owed: it works, and nobody is left to look when it is done.
        if self.finalize_tries > 0 {
            self.finalize();
        }
        POOL.close();
        Next::Leave
    }

    fn rest(&mut self, reason: Reason, now_ns: u64) -> Next {
        // What is wanted next is another recording.
        self.known_until_ns = None;
        match core::mem::replace(&mut self.phase, Phase::Off) {
            Phase::On(mut session) => {
                self.set_state(State::Flushing, Refusal::new(reason, 0));
                // Else the subscription that is found would be ours.
                session.stop_sampling();
                if session.is_taken() && self.is_other_there() {
                    self.make_way(session, now_ns);
                } else {
                    self.detach(session);
                }
                self.set_state(State::Dormant, Refusal::new(reason, 0));
            }
            Phase::Yielded(session, other) => self.settle(session, other, now_ns),
            Phase::Off if self.finalize_tries > 0 => self.finalize(),
            Phase::Off => {}
        }
        if self.state() == Some(State::Refused) {
            let was_attached = self.ring.header().attaches.load(Ordering::Relaxed) > 0;
            self.set_state(if was_attached { State::Dormant } else { State::Idle }, Refusal::new(reason, 0));
        }
        let has_more = self.finalize_tries > 0 || !matches!(self.phase, Phase::Off);
        Next::Control(has_more.then_some(RETRY_NS))
    }

    fn collect(&mut self, plan: &Plan, is_new: bool, now_ns: u64) -> Next {
        match core::mem::replace(&mut self.phase, Phase::Off) {
            Phase::On(mut session) => {
                let followed = if is_new { session.follow(plan) } else { Ok(()) };
                match followed.and_then(|()| session.collect(plan, &mut self.output)) {
                    Ok(()) => self.on(session),
                    Err(refusal) => self.stop(session, refusal, now_ns),
                }
            }
            Phase::Yielded(session, other) => {
                self.settle(session, other, now_ns);
                Next::Control(Some(RETRY_NS))
            }
            Phase::Off if is_new || now_ns >= self.retry_ns => match self.attach(plan) {
                Ok(session) => {
                    let attaches = &self.ring.header().attaches;
                    attaches.fetch_add(1, Ordering::Relaxed);
                    if let Some(since_ns) = self.known_until_ns.take() {
                        self.output.publish(sys::monotonic_ns());
                        self.output.lose(Lost::Taken, 1, since_ns);
                        self.output.publish(sys::monotonic_ns());
                    }
                    self.set_state(State::On, Refusal::new(Reason::None, 0));
                    self.on(session)
                }
                Err(refusal) => {
                    self.refuse(refusal);
                    self.retry_ns = now_ns + RETRY_NS;
                    Next::Control(Some(RETRY_NS))
                }
            },
            Phase::Off => Next::Control(Some(self.retry_ns - now_ns)),
        }
    }

    fn on(&mut self, session: Session) -> Next {
        let header = self.ring.header();
        header.enabled.store(session.enabled(), Ordering::Relaxed);
        // Should this be its last word: what CUPTI holds goes with the process.
        header.known_until.store(session.known_until_ns(), Ordering::Relaxed);
        let idle_ns = session.idle_ns(sys::monotonic_ns());
        self.phase = Phase::On(session);
        Next::Buffers(idle_ns)
    }

    fn attach(&mut self, plan: &Plan) -> Result<Session, Refusal> {
        if self.is_stuck {
            return Err(Refusal::new(Reason::Stuck, 0));
        }
        self.library.offer(self.ring.header().offered_cupti());
        let functions = self.library.functions()?;
        self.version = session::version(&functions)?;
        let header = self.ring.header();
        header.cupti_version.store(self.version, Ordering::Relaxed);
        // Not while it is tried again each second: the state would flicker.
        if self.state() != Some(State::Refused) {
            self.set_state(State::Attaching, Refusal::new(Reason::None, 0));
        }
        let session =
            Session::attach(&functions, self.library.texts(), self.library.driver(), plan, &mut self.output)?;
        self.library.watch_exit();
        // Whatever was left to remove is in use again.
        self.finalize_tries = 0;
        self.set_detached(Detached::None);
        Ok(session)
    }

    /// The session cannot go on.
    fn stop(&mut self, session: Session, refusal: Refusal, now_ns: u64) -> Next {
        if refusal.reason == Reason::OtherProfiler {
            self.known_until_ns = Some(session.known_until_ns());
            self.make_way(session, now_ns);
        } else {
            self.set_state(State::Flushing, refusal);
            self.detach(session);
        }
        self.refuse(refusal);
        self.retry_ns = now_ns + RETRY_NS;
        Next::Control(Some(RETRY_NS))
    }

    /// Leaves CUPTI to another profiler.
    fn make_way(&mut self, mut session: Session, now_ns: u64) {
        self.ring.header().known_until.store(session.known_until_ns(), Ordering::Relaxed);
        session.yield_to_other();
        self.set_detached(Detached::DisabledOther);
        self.phase = Phase::Yielded(session, Other::new(now_ns));
    }

    fn is_other_there(&mut self) -> bool {
        self.library.functions().is_ok_and(|functions| subscriber::is_free(&functions).is_err())
    }

    /// Disables what was left to another profiler once it is done: its subscription is gone; or records still come to us,
    /// so it collects none; or it has had its time.
    fn settle(&mut self, mut session: Session, mut other: Other, now_ns: u64) {
        session.discard(&mut self.output);
        let is_free = self.library.functions().is_ok_and(|functions| subscriber::is_free(&functions).is_ok());
        let age_ns = now_ns.saturating_sub(other.since_ns);
        if is_free || other.leaves_them_to_us(now_ns) || age_ns >= OWED_NS {
            session.pay();
            self.ring.header().enabled.store(0, Ordering::Relaxed);
        } else {
            self.phase = Phase::Yielded(session, other);
        }
    }

    fn detach(&mut self, session: Session) {
        session.detach(&mut self.output);
        // What is not told now would be told in the next recording.
        let deadline_ns = sys::monotonic_ns() + LAST_WORD_NS;
        while self.output.has_gap() && sys::monotonic_ns() < deadline_ns {
            sys::sleep_ns(LAST_WORD_NS / 20);
            self.output.publish(sys::monotonic_ns());
        }
        let header = self.ring.header();
        header.enabled.store(0, Ordering::Relaxed);
        header.known_until.store(0, Ordering::Relaxed);
        if self.version >= VERSION_12_6 {
            self.finalize_tries = FINALIZE_TRIES;
            self.finalize();
        } else {
            self.set_detached(Detached::DisabledOld);
        }
    }

    /// Removes CUPTI from the process, if the job gives a chance to.
    fn finalize(&mut self) {
        let Ok(functions) = self.library.functions() else { return };
        self.finalize_tries = self.finalize_tries.saturating_sub(1);
        let detached = self.try_finalize(&functions);
        if detached != Detached::DisabledIdle {
            self.finalize_tries = 0;
        }
        self.set_detached(detached);
    }

    fn try_finalize(&mut self, functions: &Functions) -> Detached {
        match subscriber::finalize(functions, FINALIZE_WINDOW_NS) {
            Finalized::Yes => {
                POOL.reclaim();
                POOL.close();
                Detached::Finalized
            }
            Finalized::Idle => Detached::DisabledIdle,
            Finalized::Other => Detached::DisabledOther,
            Finalized::Failed(_) => Detached::DisabledFailed,
            Finalized::Stuck => {
                self.is_stuck = true;
                Detached::DisabledFailed
            }
        }
    }

    fn refuse(&self, refusal: Refusal) {
        let header = self.ring.header();
        let same = self.state() == Some(State::Refused)
            && header.reason.load(Ordering::Relaxed) == refusal.reason.id()
            && header.detail.load(Ordering::Relaxed) == refusal.detail;
        if !same {
            self.set_state(State::Refused, refusal);
        }
    }

    fn state(&self) -> Option<State> {
        State::from_id(self.ring.header().state.load(Ordering::Relaxed))
    }

    fn set_state(&self, state: State, why: Refusal) {
        let header = self.ring.header();
        header.reason.store(why.reason.id(), Ordering::Relaxed);
        header.detail.store(why.detail, Ordering::Relaxed);
        header.state.store(state.id(), Ordering::Release);
        header.state_changes.fetch_add(1, Ordering::AcqRel);
        sys::futex_wake(&header.state_changes, Scope::Shared);
    }

    fn set_detached(&self, detached: Detached) {
        self.ring.header().detached.store(detached.id(), Ordering::Relaxed);
    }

    /// Tells of launches, which are counted on the job's threads: those may not touch the ring, which a fork's child lacks.
    fn count(&self) {
        let (seen, sampled) = subscriber::launch_counts();
        self.ring.header().launches_seen.store(seen, Ordering::Relaxed);
        self.ring.header().launches_sampled.store(sampled, Ordering::Relaxed);
    }
}
