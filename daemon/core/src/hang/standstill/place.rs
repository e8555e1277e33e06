//! Where a thread was in nearly all of a recording: one place, or several.
//!
//! Time on a CPU, and in the run queue, is placed by the samples, time off it by the waits. A rank that waits for others by
//! spinning or yielding is met in its communication library at one line of the program; single samples often show no more
//! than the C library, so at least half of them have to show communication, and next to none the program's own work.
//!
//! A wait that began before the recording has the kernel's stack only, until it returns. Putting an agent into a process interrupts
//! the call that its main thread is in, which returns to be made again: that shows where it is.
//!
//! What always holds: a thread that cannot be placed [`Moves`](Place::Moves), which is the answer that accuses nobody.

use std::collections::HashMap;

use stallscope_schemas::record::{ObjectKind, WaitKind, wait_flags};
use stallscope_schemas::units::{StackId, StringId, ThreadId, TimeNs};

use crate::capture::{Capture, ReadAt, Tables};
use crate::classify::frames::{Frame, Sight, sight};
use crate::findings::{best_of, frame_rank};
use crate::rows::{CpuSample, ThreadWait};
use crate::timeline::thread::{State, ThreadStates};

/// Share of a thread's time that it has to be at one place, in percent: the rest is what attaching to it costs.
const MOSTLY_PERCENT: u64 = 95;
/// Samples that it takes to say what a thread does on a CPU.
const MIN_SAMPLES: u64 = 5;

/// Results of calls that a signal or a tracer interrupted and that the kernel makes again: ERESTARTSYS to ERESTART_RESTARTBLOCK.
const MADE_AGAIN: std::ops::RangeInclusive<i64> = -516..=-512;
/// Within this time of the interruption: a tracer stops the thread meanwhile.
const AGAIN_WITHIN_NS: u64 = 1_000_000_000;

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a communication library.
    Communicates {
        /// The program's line, where one is known.
        line: Option<String>,
        /// It was on a CPU, or wanted one, most of the time.
        spins: bool,
    },
    /// In a call that waits for a GPU.
    WaitsForDevice {
        /// The program's line, where one is known.
        line: Option<String>,
        /// It was on a CPU, or wanted one, most of the time.
        spins: bool,
    },
    /// In a call that blocks, once or again and again.
    Blocked {
        /// The longest of the waits.
        wait: ThreadWait,
        /// That one alone took most of the time.
        is_one: bool,
        /// The program's line, where one is known.
        line: Option<String>,
    },
    /// On a CPU at one line of the program.
    Computes {
        /// That line.
        line: String,
    },
    /// Its process ended before the recording did.
    Ended,
    /// Its records are missing.
    Unseen,
    /// None of these, or several.
    Moves,
}

impl Place {
    /// Whether it waits there for other ranks.
    pub(super) fn is_communication(&self) -> bool {
        matches!(self, Self::Communicates { .. } | Self::WaitsForDevice { .. })
    }
}

/// Whether a part is nearly all of a whole.
pub(super) fn mostly(part: u64, whole: u64) -> bool {
    whole > 0 && u128::from(part) * 100 >= u128::from(whole) * u128::from(MOSTLY_PERCENT)
}

/// What stacks and their frames say, each looked at once.
#[derive(Debug)]
pub(super) struct Stacks<'a> {
    tables: &'a Tables,
    known: HashMap<StackId, (Sight, Option<String>)>,
    /// With how much a frame looks like a place of the program.
    frames: HashMap<StringId, (Frame, u8)>,
}

impl<'a> Stacks<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, known: HashMap::new(), frames: HashMap::new() }
    }

    /// What a thread with this stack does, and at which place of the program.
    fn of(&mut self, stack: StackId) -> (Sight, Option<String>) {
        if let Some(known) = self.known.get(&stack) {
            return known.clone();
        }
        let (tables, frames) = (self.tables, &mut self.frames);
        let names = tables.stack_names(stack);
        let mut frame = |&name: &StringId| {
            let read = || (Frame::of(tables.string(name)), frame_rank(tables.string(name)));
            *frames.entry(name).or_insert_with(read)
        };
        let all: Vec<(Frame, u8)> = names.iter().map(&mut frame).collect();
        let seen = sight(all.iter().map(|(frame, _)| *frame));
        let ranked = names.iter().copied().zip(all.iter().map(|(_, rank)| *rank));
        // A frame of the library that waits is no place of the program.
        let line = best_of(ranked, tables).filter(|place| {
            let is_line = !place.line.ends_with(')') && !place.line.starts_with("0x");
            is_line || sight(std::iter::once(Frame::of(&place.line))) == Sight::Own
        });
        self.known.entry(stack).or_insert((seen, line.map(|place| place.text))).clone()
    }
}

/// What the samples of a thread say.
#[derive(Debug, Default)]
struct Samples {
    all: u64,
    /// By what they show.
    by_sight: HashMap<Sight, u64>,
    by_line: HashMap<Option<String>, u64>,
}

impl Samples {
    fn read<S: ReadAt>(capture: &Capture<S>, thread: ThreadId, stacks: &mut Stacks<'_>) -> Self {
        let mut of = Self::default();
        for sample in capture.rows::<CpuSample>(thread.0) {
            let (seen, line) = stacks.of(sample.stack);
            of.all = of.all.saturating_add(1);
            let of_sight = of.by_sight.entry(seen).or_default();
            *of_sight = of_sight.saturating_add(1);
            let of_line = of.by_line.entry(line).or_default();
            *of_line = of_line.saturating_add(1);
        }
        of
    }

    fn seen(&self, seen: Sight) -> u64 {
        self.by_sight.get(&seen).copied().unwrap_or(0)
    }

    /// The place of nearly all of them; of several alike any one.
    fn place(&self) -> Option<Place> {
        if self.all < MIN_SAMPLES {
            return None;
        }
        let lines = self.by_line.iter().filter_map(|(line, count)| Some((line.as_ref()?, *count)));
        let top = lines.clone().max_by_key(|&(line, count)| (count, std::cmp::Reverse(line)));
        let with_line = lines.map(|(_, count)| count).fold(0, u64::saturating_add);
        let (device, library) = (self.seen(Sight::Device), self.seen(Sight::Communicates));
        let waits = device.saturating_add(library).saturating_add(self.seen(Sight::Yields));
        if waits.saturating_mul(2) >= self.all {
            let own = self.seen(Sight::Own);
            let one_place = top.is_none_or(|(_, count)| mostly(count, with_line));
            let line = top.map(|(line, _)| line.clone());
            if !one_place || !mostly(self.all.saturating_sub(own), self.all) {
                return None;
            }
            return Some(match device > library {
                true => Place::WaitsForDevice { line, spins: true },
                false => Place::Communicates { line, spins: true },
            });
        }
        let works = mostly(self.all.saturating_sub(waits), self.all);
        let top = top.filter(|&(_, count)| works && mostly(count, self.all));
        top.map(|(line, _)| Place::Computes { line: line.clone() })
    }
}

/// Waits of one kind for one thing.
#[derive(Clone, Copy, Debug)]
struct Waits {
    ns: u64,
    longest: ThreadWait,
}

/// What makes waits the same to a person.
type WaitKey = (WaitKind, StringId, ObjectKind, StringId);

/// Time of a thread by what it did.
#[derive(Debug, Default)]
struct Times {
    all_ns: u64,
    on_cpu_ns: u64,
    lost_ns: u64,
    /// Blocked in a communication library, and in a call that waits for a GPU.
    library_ns: u64,
    device_ns: u64,
    /// The program's line of such a wait.
    line: Option<String>,
    blocked: HashMap<WaitKey, Waits>,
    /// The last wait that was not a stop, as recorded and from where its call was first made.
    last: Option<(ThreadWait, ThreadWait)>,
}

fn key(wait: &ThreadWait) -> WaitKey {
    (wait.kind, wait.call, wait.object_kind, wait.object)
}

fn add(sum: &mut u64, ns: u64) {
    *sum = sum.saturating_add(ns);
}

impl Times {
    fn read<S: ReadAt>(capture: &Capture<S>, thread: ThreadId, stacks: &mut Stacks<'_>) -> Self {
        let mut of = Self::default();
        let mut states = ThreadStates::new(capture, thread);
        while let Some(stretch) = states.next() {
            let ns = stretch.ns();
            add(&mut of.all_ns, ns);
            match stretch.state {
                State::Ran | State::Preempted { .. } | State::Queued => add(&mut of.on_cpu_ns, ns),
                State::Lost => add(&mut of.lost_ns, ns),
                State::Waited => of.wait(*states.wait(), ns, stacks),
            }
        }
        of
    }

    /// The wait, from where its call was first made.
    fn whole(&mut self, wait: ThreadWait) -> ThreadWait {
        let last = self.last;
        if let Some((_, whole)) = last.filter(|(recorded, _)| recorded.start == wait.start) {
            return whole;
        }
        let made_again = |before: &ThreadWait| {
            let returned = before.flags & wait_flags::RETURNED != 0;
            let end: TimeNs = before.start.plus(before.duration_ns);
            returned
                && MADE_AGAIN.contains(&before.result)
                && key(before) == key(&wait)
                && wait.start.since(end) <= AGAIN_WITHIN_NS
        };
        let whole = match last.filter(|(recorded, _)| made_again(recorded)) {
            None => wait,
            Some((_, before)) => ThreadWait {
                start: before.start,
                duration_ns: wait.start.plus(wait.duration_ns).since(before.start),
                stack: before.stack,
                flags: wait.flags | before.flags & wait_flags::BEGAN_BEFORE,
                ..wait
            },
        };
        self.last = Some((wait, whole));
        whole
    }

    fn wait(&mut self, wait: ThreadWait, ns: u64, stacks: &mut Stacks<'_>) {
        let wait = if wait.kind == WaitKind::Stopped { wait } else { self.whole(wait) };
        // Whoever is stopped waits for nobody, wherever it was.
        let (seen, line) = match wait.kind {
            WaitKind::Stopped => (Sight::Own, None),
            _ => stacks.of(wait.stack),
        };
        match seen {
            Sight::Communicates | Sight::Yields => add(&mut self.library_ns, ns),
            Sight::Device => add(&mut self.device_ns, ns),
            Sight::Own | Sight::Neutral => {
                let of = self.blocked.entry(key(&wait)).or_insert(Waits { ns: 0, longest: wait });
                add(&mut of.ns, ns);
                if wait.duration_ns > of.longest.duration_ns {
                    of.longest = wait;
                }
                return;
            }
        }
        self.line = self.line.take().or(line);
    }
}

/// Where a thread was in nearly all of the time in which it was followed.
pub(super) fn place<S: ReadAt>(capture: &Capture<S>, thread: ThreadId, stacks: &mut Stacks<'_>) -> Place {
    let times = Times::read(capture, thread, stacks);
    let nearly_all = |ns: u64| mostly(ns, times.all_ns);
    if !nearly_all(times.all_ns.saturating_sub(times.lost_ns)) {
        return Place::Unseen;
    }
    // Of what is known of the time: attaching may cost a moment of records.
    let on_cpu_ns = times.on_cpu_ns.saturating_add(times.lost_ns);
    let on_cpu = match nearly_all(times.all_ns.saturating_sub(on_cpu_ns)) {
        true => None,
        false => Samples::read(capture, thread, stacks).place(),
    };
    match on_cpu {
        Some(Place::Communicates { line, .. }) if nearly_all(on_cpu_ns.saturating_add(times.library_ns)) => {
            let spins = on_cpu_ns > times.library_ns;
            return Place::Communicates { line: line.or(times.line), spins };
        }
        Some(Place::WaitsForDevice { line, .. }) if nearly_all(on_cpu_ns.saturating_add(times.device_ns)) => {
            let spins = on_cpu_ns > times.device_ns;
            return Place::WaitsForDevice { line: line.or(times.line), spins };
        }
        Some(place @ Place::Computes { .. }) if nearly_all(on_cpu_ns) => return place,
        _ => {}
    }
    if nearly_all(times.library_ns) {
        return Place::Communicates { line: times.line, spins: false };
    }
    if nearly_all(times.device_ns) {
        return Place::WaitsForDevice { line: times.line, spins: false };
    }
    let most = times.blocked.values().max_by_key(|of| (of.ns, of.longest.start));
    match most.filter(|of| nearly_all(of.ns)) {
        Some(of) => Place::Blocked {
            wait: of.longest,
            is_one: nearly_all(of.longest.duration_ns),
            line: stacks.of(of.longest.stack).1,
        },
        None => Place::Moves,
    }
}

/// The thread that worked most, by samples, and for how long, ns: its own work, or what nothing says to be waiting.
pub(super) fn busiest<S: ReadAt>(
    capture: &Capture<S>,
    threads: impl Iterator<Item = ThreadId>,
    stacks: &mut Stacks<'_>,
) -> Option<(ThreadId, u64)> {
    let worked = threads.map(|thread| {
        let mut ns = 0;
        for sample in capture.rows::<CpuSample>(thread.0) {
            if matches!(stacks.of(sample.stack).0, Sight::Own | Sight::Neutral) {
                add(&mut ns, sample.duration_ns);
            }
        }
        (thread, ns)
    });
    worked.max_by_key(|&(thread, ns)| (ns, std::cmp::Reverse(thread)))
}
