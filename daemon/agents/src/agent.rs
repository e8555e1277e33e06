//! The agent in one process, from looking for it to its rest.
//!
//! ```text
//! no CUDA yet ─▶ found | put in ─▶ collect ─▶ on: read the ring, say that we are there ─▶ rest ─▶ read what is left
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use stallscope_cupti_inject::{Options, Payload, Refusal, find_agent, inject};
use stallscope_cupti_wire::{Command, Header, NameBuffer, Reader, Reason, Ring, State, ring_bytes};

use crate::control::{self, Standing, Wanted};
use crate::decode::{Decoder, Event};
use crate::memory::Memory;
use crate::process::{
    Process, Threads, brings_its_own, cupti_of_host, cupti_within, is_copy_of_gpu_user, is_forked_only,
    mapped,
};
use crate::room::{NEEDED_BYTES, groups, room};
use crate::stop::Stop;
use crate::{Told, Why};

/// Slots of a ring: 4 MiB. At 3 M records a second that is 22 ms; we look every 5 ms while records come.
const SLOTS: u32 = 1 << 16;
/// How often the ring is looked at while records come, and while none do.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_IDLE: Duration = Duration::from_millis(25);
/// How often a process without CUDA is looked at: one that has just begun may load it any moment.
const LOOK_FOR_CUDA: Duration = Duration::from_secs(1);
const LOOK_FOR_CUDA_FIRST: Duration = Duration::from_millis(20);
/// How long a process may take from loading CUDA to loading the agent that it was started with.
const OWN_AGENT_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent may take to attach: enabling CUPTI late has been seen to take seconds.
const ATTACH_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to go to rest.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// How often an agent that has refused is looked at: it tries again each second.
const LOOK_REFUSED: Duration = Duration::from_millis(100);
/// Another recorder that is at work says so in this time.
const HEARTBEATS_WITHIN: Duration = Duration::from_millis(300);
/// How long a process may take to end once its agent has heard of that.
const EXIT_WITHIN: Duration = Duration::from_secs(1);
/// Events handed over at once.
const BATCH: usize = 1 << 13;

/// Where an agent and its process stand when the recording ends.
pub(crate) struct Settings<'a> {
    pub(crate) image: &'a [u8],
    pub(crate) wanted: Wanted,
    pub(crate) demangle: fn(&str) -> std::sync::Arc<str>,
    /// When the recording began, CLOCK_MONOTONIC.
    pub(crate) began_ns: u64,
}

/// Follows the GPU work of one process until `stop`, and hands out what its agent tells.
pub(crate) fn follow(pid: u32, settings: &Settings<'_>, stop: &Stop, tell: &dyn Fn(Told)) {
    let Some(process) = Process::of(pid) else { return tell(Told::Ended { pid, why: Why::ProcessEnded }) };
    let mut since_ns = settings.began_ns;
    loop {
        let why = follow_program(process, since_ns, settings, stop, tell);
        let again = matches!(why, Why::Replaced);
        tell(Told::Ended { pid, why });
        if !again {
            return;
        }
        since_ns = monotonic_ns();
    }
}

/// Follows one program of a process, which may have used its devices since that moment. Returns why nothing more comes of it.
fn follow_program(
    process: Process,
    since_ns: u64,
    settings: &Settings<'_>,
    stop: &Stop,
    tell: &dyn Fn(Told),
) -> Why {
    let pid = process.pid;
    // A process that has not loaded the driver has nothing to tell, and is left alone.
    let mut patience = LOOK_FOR_CUDA_FIRST;
    // A copy stays one when its parent has ended and nobody can tell any more.
    let mut copy = false;
    // Until when it has certainly not used a device.
    let mut unused_ns = since_ns;
    let mapped = loop {
        let now_ns = monotonic_ns();
        copy =
            is_forked_only(Path::new("/proc"), pid) && (copy || is_copy_of_gpu_user(Path::new("/proc"), pid));
        match mapped(pid) {
            Some(mapped) if mapped.cuda && !copy => break mapped,
            Some(_) if process.lives() => unused_ns = now_ns,
            _ => return Why::ProcessEnded,
        }
        if stop.wait(patience) {
            return Why::NoCuda;
        }
        patience = (patience * 5 / 4).min(LOOK_FOR_CUDA);
    };
    // One in its own file system is offered by its path; one of the host's, which it may not see, goes along.
    let within = if mapped.cupti { None } else { cupti_within(pid, &mapped) };
    let cupti = if mapped.cupti || within.is_some() { None } else { cupti_of_host() };
    if brings_its_own(Path::new("/proc"), pid) && !until_agent_is_there(process, stop) {
        return Why::TooShort;
    }
    if !process.lives() {
        return Why::ProcessEnded;
    }
    let begun = Instant::now();
    let (memory, new) = match enter(pid, settings.image, cupti.as_ref()) {
        Ok(entered) => entered,
        Err(why) => return why,
    };
    let ring = match memory.ring() {
        Ok(ring) => ring,
        Err(error) => return Why::Ring(error),
    };
    if let Some(path) = within {
        ring.header().offer_cupti(path.as_os_str().as_bytes());
    }
    Visit { pid, process, ring, settings, stop, tell, begun, new, unused_ns }.run()
}

/// Waits for the agent that a process was started with, which CUDA loads while it is initialised: two in one process would
/// take CUPTI from each other. One that does not come in time is not waited for. False where the recording ends.
fn until_agent_is_there(process: Process, stop: &Stop) -> bool {
    let Ok(target) = i32::try_from(process.pid) else { return true };
    let begun = Instant::now();
    while begun.elapsed() < OWN_AGENT_WITHIN && process.lives() && !matches!(find_agent(target), Ok(Some(_)))
    {
        if stop.wait(LOOK_FOR_CUDA_FIRST) {
            return false;
        }
    }
    true
}

/// Whether what an agent refuses for may be over a moment later.
fn may_pass(reason: Reason) -> bool {
    matches!(reason, Reason::NoCuda | Reason::NoCupti | Reason::OtherProfiler | Reason::Cupti)
}

/// Until when everything has come, where the agent says that something may not have; it is not believed beyond `now_ns`.
fn known_until(header: &Header, now_ns: u64) -> u64 {
    match header.known_until.load(Ordering::Relaxed) {
        0 => now_ns,
        known_ns => known_ns.min(now_ns),
    }
}

pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let ns = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    u64::try_from(ns).unwrap_or(0)
}

/// The ring of the agent in a process: of one that is there, or of one that is put in now. Says whether it is new.
fn enter(pid: u32, image: &[u8], cupti: Option<&File>) -> Result<(Memory, bool), Why> {
    let target = i32::try_from(pid).map_err(|_| Why::ProcessEnded)?;
    let map = |fd: &OwnedFd, bytes: usize| Memory::map(fd, bytes).map_err(Why::Memory);
    match find_agent(target) {
        Ok(Some(found)) => {
            let bytes = usize::try_from(found.ring_bytes).unwrap_or(usize::MAX);
            let memory = map(&found.ring, bytes.min(ring_bytes(stallscope_cupti_wire::MAX_SLOTS)))?;
            take_over(&memory.ring().map_err(Why::Ring)?)?;
            return Ok((memory, false));
        }
        Ok(None) => {}
        Err(refusal) => return Err(Why::Refused(refusal)),
    }
    // Beyond its limit the kernel would end it.
    if let Some(left) = room(Path::new("/proc"), &groups(), pid)
        && left < NEEDED_BYTES
    {
        return Err(Why::NoRoom(left));
    }
    let bytes = ring_bytes(SLOTS);
    let prepare = |fd: &OwnedFd| -> io::Result<()> {
        let memory = Memory::map(fd, bytes)?;
        let ring = memory.create(SLOTS).map_err(io::Error::other)?;
        control::heartbeat(ring.header(), monotonic_ns());
        Ok(())
    };
    let payload =
        Payload { image, ring_bytes: bytes as u64, prepare: &prepare, cupti, flags: 0, unload: false };
    let injected = inject(target, &payload, Options::default()).map_err(Why::Refused)?;
    Ok((map(&injected.ring, bytes)?, true))
}

/// Sees to it that nobody else reads the ring, and that an agent which still collects for a recorder that is gone begins
/// anew: what it has told of names and devices was for that one.
fn take_over(ring: &Ring<'_>) -> Result<(), Why> {
    let header = ring.header();
    let collects = || {
        let state = control::standing(header).state;
        matches!(state, State::Attaching | State::On | State::Flushing)
    };
    let heartbeat = header.heartbeat.load(Ordering::Relaxed);
    // One that the job was started with has told nobody yet; one that nobody wants has no recorder.
    if heartbeat == 0 || header.command.load(Ordering::Relaxed) != Command::Collect.id() {
        return Ok(());
    }
    let begun = Instant::now();
    while begun.elapsed() < HEARTBEATS_WITHIN {
        if header.heartbeat.load(Ordering::Relaxed) != heartbeat {
            return Err(Why::Busy);
        }
        std::thread::sleep(LOOK);
    }
    control::command(header, Command::Rest, None);
    let begun = Instant::now();
    while collects() && begun.elapsed() < REST_WITHIN {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// One recording of one agent.
struct Visit<'a> {
    pid: u32,
    process: Process,
    ring: Ring<'a>,
    settings: &'a Settings<'a>,
    stop: &'a Stop,
    tell: &'a dyn Fn(Told),
    begun: Instant,
    new: bool,
    /// Until when the process has certainly not used a device.
    unused_ns: u64,
}

impl Visit<'_> {
    fn run(&self) -> Why {
        let header = self.ring.header();
        let lost_before = control::lost(header);
        // An agent that the job was started with may have told something already, which nobody has read.
        let unread = self.new || header.tail.load(Ordering::Relaxed) == 0;
        let mut reader = if unread { Reader::from_start(self.ring) } else { Reader::new(self.ring) };
        let mut out = Out::new(self.pid, self.settings, self.tell);
        // One that collects without having been told to began when CUDA did.
        let nobody_before = header.heartbeat.load(Ordering::Relaxed) == 0;
        let mut from_start = unread
            && nobody_before
            && !self.new
            && matches!(control::standing(header).state, State::Attaching | State::On);
        control::heartbeat(header, monotonic_ns());
        control::command(header, Command::Collect, Some(&self.settings.wanted));
        let mut yielded = 0;
        let mut seen_until = self.unused_ns;
        let unseen = |from, to| (self.tell)(Told::Unseen { pid: self.pid, from, to });
        let end = loop {
            let standing = match self.until_on(&mut reader, &mut out) {
                Ok(standing) => standing,
                Err(why) => {
                    control::command(header, Command::Rest, None);
                    out.finish();
                    break why;
                }
            };
            let from = monotonic_ns();
            if !from_start {
                unseen(seen_until, Some(from));
            }
            (self.tell)(Told::On {
                pid: self.pid,
                attach: self.begun.elapsed(),
                cupti_version: standing.cupti_version,
                new: self.new,
            });
            let mut pulse = Pulse::new(self.pid);
            let end = self.collect(&mut reader, &mut out, &mut pulse);
            let (left, begun) = (control::left(header), Instant::now());
            let whole = std::mem::take(&mut from_start);
            let observed = |to: u64, detach, left| Told::Observed {
                pid: self.pid,
                from,
                to,
                from_start: whole,
                detach,
                left,
            };
            if let Why::Agent(standing) = &end
                && matches!(standing.reason, Reason::OtherProfiler | Reason::Cupti | Reason::DaemonGone)
                && !self.stop.is_asked()
            {
                // It says from when on nothing is known, and tries again each second. One that has missed our heartbeat, because
                // we were stopped or held up, is asked again.
                if standing.reason == Reason::DaemonGone {
                    control::heartbeat(header, monotonic_ns());
                    control::command(header, Command::Collect, Some(&self.settings.wanted));
                }
                yielded += u64::from(standing.reason == Reason::OtherProfiler);
                seen_until = known_until(header, monotonic_ns()).max(from);
                (self.tell)(observed(seen_until, Duration::ZERO, left));
                continue;
            }
            // What was not there any more when we noticed had been gone for a while.
            let to = if matches!(end, Why::Asked) { monotonic_ns() } else { pulse.last_ns };
            self.rest(&mut reader, &mut out);
            out.finish();
            // An agent that could still detach has told what was lost; else it may have said from when on.
            seen_until = known_until(header, to).max(from);
            (self.tell)(observed(seen_until, begun.elapsed(), control::left(header)));
            break end;
        };
        // All are put to rest at the same moment, up to which each is asked for its records.
        if !matches!(end, Why::Asked | Why::ProcessEnded | Why::Replaced) {
            unseen(seen_until, None);
        }
        let mut lost = control::lost_since(&control::lost(header), &lost_before);
        let faults = reader.faults();
        let malformed = out.decoder.malformed() + faults.unknown + faults.names + faults.jumps;
        let ours = [
            (stallscope_cupti_wire::Lost::Malformed, malformed),
            (stallscope_cupti_wire::Lost::Yielded, yielded),
        ];
        lost.extend(ours.into_iter().filter(|(_, count)| *count > 0));
        let clock_error_ns = out.decoder.clock().error_ns();
        (self.tell)(Told::Losses { pid: self.pid, lost, clock_error_ns });
        end
    }

    /// Waits until records flow.
    fn until_on(&self, reader: &mut Reader<'_>, out: &mut Out<'_>) -> Result<Standing, Why> {
        let begun = Instant::now();
        let mut pulse = Pulse::new(self.pid);
        let mut offered: Option<Instant> = None;
        loop {
            control::heartbeat(self.ring.header(), monotonic_ns());
            out.read(reader);
            let standing = control::standing(self.ring.header());
            if standing.state == State::Refused && standing.reason == Reason::NoCupti {
                self.offer_cupti(&mut offered);
            }
            match standing.state {
                State::On if standing.answered => return Ok(standing),
                State::Gone => return Err(Why::AgentGone),
                // It looks again by itself each second; for some reasons that is of no use.
                State::Refused if standing.answered && !may_pass(standing.reason) => {
                    return Err(Why::Agent(standing));
                }
                _ => {}
            }
            if !self.process.lives() {
                return Err(Why::ProcessEnded);
            }
            if pulse.has_stopped(self.ring.header()) {
                return Err(Why::Replaced);
            }
            if begun.elapsed() > ATTACH_WITHIN && standing.state != State::Refused {
                return Err(Why::Silent(standing));
            }
            let patience = if standing.state == State::Refused { LOOK_REFUSED } else { LOOK };
            if self.stop.wait(patience) {
                return Err(if standing.state == State::Refused {
                    Why::Agent(standing)
                } else {
                    Why::TooShort
                });
            }
        }
    }

    /// Looks for a CUPTI for an agent that has none, each second: a job that was started with its agent has only now loaded
    /// the libraries beside which one lies. The agent tries what it is offered.
    fn offer_cupti(&self, offered: &mut Option<Instant>) {
        if offered.is_some_and(|when| when.elapsed() < LOOK_FOR_CUDA) {
            return;
        }
        *offered = Some(Instant::now());
        if let Some(path) = mapped(self.pid).and_then(|mapped| cupti_within(self.pid, &mapped)) {
            self.ring.header().offer_cupti(path.as_os_str().as_bytes());
        }
    }

    /// Reads until the recording ends, or the agent stops by itself.
    fn collect(&self, reader: &mut Reader<'_>, out: &mut Out<'_>, pulse: &mut Pulse) -> Why {
        let mut looked = Instant::now();
        while !self.stop.is_asked() {
            control::heartbeat(self.ring.header(), monotonic_ns());
            let read = out.read(reader);
            let standing = control::standing(self.ring.header());
            if standing.state != State::On {
                return self.stopped(standing);
            }
            if looked.elapsed() > LOOK_FOR_CUDA {
                looked = Instant::now();
                if !self.process.lives() {
                    return Why::ProcessEnded;
                }
            }
            if pulse.has_stopped(self.ring.header()) {
                return Why::Replaced;
            }
            if read == 0 {
                self.stop.wait(LOOK_IDLE);
            } else if read < BATCH {
                self.stop.wait(LOOK);
            }
        }
        Why::Asked
    }

    /// Why an agent stopped by itself: nearly always because its process ends, of which it hears before we do.
    fn stopped(&self, standing: Standing) -> Why {
        if standing.reason != Reason::None {
            return Why::Agent(standing);
        }
        let begun = Instant::now();
        while begun.elapsed() < EXIT_WITHIN {
            if !self.process.lives() {
                return Why::ProcessEnded;
            }
            std::thread::sleep(LOOK);
        }
        Why::AgentGone
    }

    /// Puts the agent to rest and reads what it still had.
    fn rest(&self, reader: &mut Reader<'_>, out: &mut Out<'_>) {
        let header = self.ring.header();
        control::command(header, Command::Rest, None);
        let begun = Instant::now();
        let mut pulse = Pulse::new(self.pid);
        while begun.elapsed() < REST_WITHIN && self.process.lives() && !pulse.has_stopped(header) {
            out.read(reader);
            let standing = control::standing(header);
            let resting =
                matches!(standing.state, State::Dormant | State::Idle | State::Refused | State::Gone);
            if resting && standing.answered {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // A ring that is filled as fast as it is read is not told to the end.
        let most = usize::try_from(self.ring.header().slots.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let mut read = 0;
        while read <= most {
            match out.read(reader) {
                0 => break,
                some => read += some,
            }
        }
    }
}

/// Whether the agent that we speak with is still in the process: it goes when that executes another program, and
/// nobody says so.
struct Pulse {
    pid: u32,
    alive: u64,
    since: Instant,
    /// When it was last seen to have done something, CLOCK_MONOTONIC.
    last_ns: u64,
}

impl Pulse {
    /// An agent that does something says so several times in that time; only of one that does not the mappings are read.
    const STILL: Duration = Duration::from_millis(250);

    fn new(pid: u32) -> Self {
        Self { pid, alive: 0, since: Instant::now(), last_ns: monotonic_ns() }
    }

    fn has_stopped(&mut self, header: &Header) -> bool {
        let alive = header.alive.load(Ordering::Relaxed);
        if alive != self.alive {
            (self.alive, self.since, self.last_ns) = (alive, Instant::now(), monotonic_ns());
            return false;
        }
        if self.since.elapsed() < Self::STILL {
            return false;
        }
        self.since = Instant::now();
        let pid = i32::try_from(self.pid).unwrap_or(0);
        // One that cannot be looked at is asked again.
        matches!(find_agent(pid), Ok(None))
    }
}

/// Decodes, translates and hands over.
struct Out<'a> {
    pid: u32,
    decoder: Decoder,
    threads: Threads,
    text: NameBuffer,
    events: Vec<Event>,
    tell: &'a dyn Fn(Told),
}

impl<'a> Out<'a> {
    fn new(pid: u32, settings: &Settings<'_>, tell: &'a dyn Fn(Told)) -> Self {
        let decoder = Decoder::new(settings.demangle);
        Self {
            pid,
            decoder,
            threads: Threads::new(pid),
            text: NameBuffer::default(),
            events: Vec::new(),
            tell,
        }
    }

    /// Reads what is there, at most a batch. Returns how many items that were.
    fn read(&mut self, reader: &mut Reader<'_>) -> usize {
        let mut read = 0;
        let events = &mut self.events;
        while read < BATCH
            && let Some(item) = reader.next(&mut self.text)
        {
            self.decoder.item(item, &mut |event| events.push(event));
            read += 1;
        }
        reader.release();
        if read < BATCH || self.events.len() >= BATCH {
            self.hand_over();
        }
        read
    }

    fn finish(&mut self) {
        let events = &mut self.events;
        self.decoder.finish(&mut |event| events.push(event));
        self.hand_over();
    }

    fn hand_over(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        for event in &mut events {
            if let Event::Call { tid, .. } | Event::Range { tid, .. } = event {
                *tid = self.threads.outer(*tid);
            }
        }
        (self.tell)(Told::Events { pid: self.pid, events });
    }
}

/// What the injector refused, as a reason.
impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
