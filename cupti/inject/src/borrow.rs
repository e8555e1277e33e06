//! One thread, stopped, sent to the seed, and put back.
//!
//! It is done on a thread of the injector that is there for it: when that ends, the kernel lets go of whatever it still
//! traces. The steps, and what the target does if the injector dies after one of them, are in the crate's head.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::arch::{Context, Registers, Target};
use crate::candidate::Candidate;
use crate::marker::run_to_marker;
use crate::plant::Plan;
use crate::process::{Process, refused};
use crate::safe_point::{self, Return};
use crate::step::{Observer, Step};
use crate::sys::{self, Event, Resume};
use crate::unsafe_point::UnsafePoint;
use crate::{Refusal, seccomp};

/// A thread that waits stops as soon as it is scheduled. One that does not, waits for the disk. It is no worse off for
/// being waited for, and a call that ends with EINTR can be mended only once it has stopped.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Why one thread was not borrowed: another may be, or none.
#[derive(Debug)]
pub(crate) enum Setback {
    Thread(UnsafePoint),
    Target(Refusal),
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        Self::Target(refusal)
    }
}

/// A thread that this one traces.
#[derive(Debug)]
pub(crate) struct Traced<'a> {
    pub(crate) process: &'a Process,
    pub(crate) tid: i32,
    /// Processors had nothing to do when it began.
    calm: bool,
}

/// Whether there are no more threads that want to run than processors, this one included.
fn is_calm() -> bool {
    let runnable = fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
        let (runnable, _all) = text.split(' ').nth(3)?.split_once('/')?;
        runnable.parse::<usize>().ok()
    });
    let processors = thread::available_parallelism().map_or(1, usize::from);
    runnable.is_some_and(|runnable| runnable <= processors)
}

impl Traced<'_> {
    /// What a failed request means: the thread is gone, the kernel refuses, or else.
    pub(crate) fn setback(&self, what: &'static str, error: io::Error) -> Setback {
        match error.raw_os_error() {
            Some(libc::ESRCH | libc::ECHILD) if self.process.is_alive() => {
                Setback::Thread(UnsafePoint::Moved)
            }
            _ => Setback::Target(self.process.error(what, error)),
        }
    }

    /// Waits for what happens next, no longer than until `deadline`.
    ///
    /// On processors that have nothing else to do it looks all the time at first. Else it sleeps in between, and longer as
    /// time passes, because the thread that it waits for needs a processor as well, maybe this one; but when there is
    /// something to see, it sees it before anybody else runs. Measured on two busy processors: a look every 10 us took
    /// ten times as long, and without going first it was five times.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<Option<Event>, Setback> {
        const SPIN: Duration = Duration::from_micros(100);
        const LEAST: Duration = Duration::from_micros(30);
        const MOST: Duration = Duration::from_millis(1);
        let began = Instant::now();
        let mut spins = self.calm;
        loop {
            if let Some(event) =
                sys::poll_event(self.tid).map_err(|error| self.setback("wait for a thread", error))?
            {
                return Ok(Some(event));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let waited = began.elapsed();
            if spins && waited < SPIN {
                thread::yield_now();
                continue;
            }
            if spins {
                spins = false;
                sys::go_first();
            }
            thread::sleep((waited / 8).clamp(LEAST, MOST));
        }
    }

    /// Lets the thread go with what it has.
    pub(crate) fn detach(&self, signal: i32) -> Result<(), Setback> {
        sys::resume(self.tid, Resume::Detach, signal)
            .map_err(|error| self.setback("detach from a thread", error))
    }
}

/// Borrows this thread, or leaves it as it was. Returns the region, and how long the thread was away.
pub(crate) fn borrow(
    plan: &Plan<'_>,
    candidate: &Candidate,
    observer: &mut Observer<'_>,
) -> Result<(u64, Duration), Setback> {
    let process = plan.process;
    let tid = candidate.tid;
    let traced = Traced { process, tid, calm: is_calm() };
    if !traced.calm {
        sys::go_first();
    }
    sys::seize(tid).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => Setback::Thread(UnsafePoint::Moved),
        _ => Setback::Target(refused(process.pid, &process.file(""), error)),
    })?;
    // The number could be another's by now. A thread that is traced keeps its number.
    if !process.has_thread(tid) {
        return Err(Setback::Thread(UnsafePoint::Moved));
    }
    let inner_tid = innermost(process, tid)?;
    observer.step(Step::Seized);
    let began = Instant::now();
    sys::interrupt(tid).map_err(|error| traced.setback("stop a thread", error))?;
    observer.step(Step::Interrupted);
    match traced.wait(began + STOP_WITHIN)? {
        Some(Event::Stopped { signal: libc::SIGTRAP, event: libc::PTRACE_EVENT_STOP }) => {}
        Some(Event::Stopped { event: libc::PTRACE_EVENT_STOP, .. }) => {
            traced.detach(0)?;
            return Err(Setback::Thread(UnsafePoint::Stopped));
        }
        Some(Event::Stopped { signal, .. }) => {
            traced.detach(signal)?;
            return Err(Setback::Thread(UnsafePoint::Signal));
        }
        Some(Event::Ended) => return Err(Setback::Thread(UnsafePoint::Moved)),
        None => return Err(Setback::Thread(UnsafePoint::Unresponsive)),
    }
    observer.step(Step::Stopped);
    let registers =
        sys::registers(tid).map_err(|error| traced.setback("read the registers of a thread", error))?;
    observer.step(Step::RegistersRead);
    let mask =
        sys::signal_mask(tid).map_err(|error| traced.setback("read the signal mask of a thread", error))?;
    observer.step(Step::MaskRead);
    let back = safe_point::interrupted(&registers, || safe_point::signals_wait(tid, mask))
        .map_err(|error| traced.setback("read the signals of a thread", error))?;
    let Some(back) = back else {
        traced.detach(0)?;
        return Err(Setback::Thread(UnsafePoint::Moved));
    };
    let checked = safe_point::check(process, |at| plan.is_library_code(at), candidate, &registers)
        .map_err(Setback::Thread)
        .and_then(|()| if plan.facts.has_seccomp { Ok(filters(plan, tid)?) } else { Ok(()) });
    if let Err(setback) = checked {
        put_back(&traced, &back)?;
        return Err(setback);
    }
    let target = target(plan, tid, inner_tid, mask, &back);
    let written = plan.room.write_context(process, &Context::new(&target, &registers));
    if let Err(error) = written {
        put_back(&traced, &back)?;
        return Err(Setback::Target(process.error("write to the code", error)));
    }
    observer.step(Step::ContextWritten);
    // Whatever was looked at so far is memory of the program that ran in the beginning. The thread could run another.
    if sys::read_word(tid, plan.room.context()).ok() != Some(u64::from(tid.unsigned_abs())) {
        put_back(&traced, &back)?;
        return Err(Setback::Target(Refusal::Gone { pid: process.pid }));
    }
    seed(plan, &traced, &target, &back, observer).map(|region| (region, began.elapsed()))
}

/// Whether the seccomp filters of a stopped thread allow what is to come.
fn filters(plan: &Plan<'_>, tid: i32) -> Result<(), Refusal> {
    match seccomp::check(plan.process.pid, tid) {
        Err(Refusal::SeccompUnknown { .. }) if plan.trust_seccomp => Ok(()),
        other => other,
    }
}

/// The kernel restarts the interrupted call by itself; where it would not, it is told to.
fn put_back(traced: &Traced<'_>, back: &Return) -> Result<(), Setback> {
    sys::set_registers(traced.tid, &back.registers)
        .map_err(|error| traced.setback("restore the registers of a thread", error))?;
    traced.detach(0)
}

fn innermost(process: &Process, tid: i32) -> Result<u32, Setback> {
    let status = process.thread_status(tid).map_err(|_| Setback::Thread(UnsafePoint::Moved))?;
    status.innermost("NSpid").ok_or(Setback::Thread(UnsafePoint::Moved))
}

/// What the stub is told. Handlers wait until the thread is back: only then is it known what they interrupt.
fn target(plan: &Plan<'_>, tid: i32, inner_tid: u32, mask: u64, back: &Return) -> Target {
    const fn bit(signal: i32) -> u64 {
        1 << (signal - 1)
    }
    /// glibc's own: `setuid` waits, with the lock that `pthread_create` needs, until every thread has handled it.
    const SIGSETXID: i32 = 33;
    let signal = plan.facts.ignored_signal.unwrap_or(0);
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    let passing = faults.into_iter().chain([SIGSETXID, signal]).filter(|signal| *signal > 0);
    let functions = &plan.library.functions;
    Target {
        tid,
        inner_tgid: plan.facts.inner_tgid.into(),
        inner_tid: inner_tid.into(),
        mask,
        blocked: !passing.map(bit).fold(0, |all, one| all | one),
        signal: u64::from(signal.unsigned_abs()),
        on_signal: back.on_signal,
        by_restart: back.by_restart,
        errno_location: functions.errno_location,
        pthread_create: functions.pthread_create,
        pthread_detach: functions.pthread_detach,
    }
}

/// Sends the stopped thread to the seed, waits for it at the marker and puts it back. Returns the region.
fn seed(
    plan: &Plan<'_>,
    traced: &Traced<'_>,
    target: &Target,
    back: &Return,
    observer: &mut Observer<'_>,
) -> Result<u64, Setback> {
    let tid = traced.tid;
    let failed = |what| move |error| traced.setback(what, error);
    sys::set_registers(tid, &back.registers.called_at(plan.room.address))
        .map_err(failed("set the registers of a thread"))?;
    observer.step(Step::RegistersSet);
    sys::set_signal_mask(tid, target.blocked).map_err(failed("set the signal mask of a thread"))?;
    observer.step(Step::MaskSet);
    let end = run_to_marker(plan, traced, target, back, || observer.step(Step::Resumed))?;
    observer.step(Step::AtMarker);
    if end.fault.is_none() {
        // Should the injector die before the registers are restored: a handler that ends the call must do so then too.
        let armed = end.registers.in_call_of(&back.registers).called_at(plan.room.marker());
        sys::set_registers(tid, &armed).map_err(failed("set the registers of a thread"))?;
        observer.step(Step::ReturnArmed);
    }
    sys::set_signal_mask(tid, target.mask).map_err(failed("restore the signal mask of a thread"))?;
    observer.step(Step::MaskRestored);
    sys::set_registers(tid, &back.registers).map_err(failed("restore the registers of a thread"))?;
    observer.step(Step::RegistersRestored);
    traced.detach(0)?;
    observer.step(Step::Detached);
    let pid = plan.process.pid;
    plan.room.release(plan.process).map_err(|error| plan.process.error("write to the code", error))?;
    match end.fault {
        None => region(pid, &end.registers),
        Some(signal) => Err(Setback::Target(Refusal::Faulted { pid, signal })),
    }
}

/// The region, if the stub has one and the new thread.
fn region(pid: i32, at_marker: &Registers) -> Result<u64, Setback> {
    let (memory, thread_error) = at_marker.report();
    let limits = |what, error: i64| {
        let error = io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(i32::MAX));
        Setback::Target(Refusal::Limits { pid, what, error })
    };
    if thread_error != 0 {
        return Err(limits("threads", thread_error.into()));
    }
    u64::try_from(memory).map_err(|_| limits("memory", -memory))
}
