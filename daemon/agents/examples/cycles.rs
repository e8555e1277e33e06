//! Attaches to a process that uses CUDA and leaves again, again and again, and says what that took and what stayed.
//!
//! `cycles PID COUNT [COUNTER [TWIN TWIN_COUNTER]]`: COUNTER is a file with the process's own count of its work (8 bytes),
//! TWIN another process that does the same and is left alone. Both take turns before the first and after the last cycle,
//! each stopped while the other works, best on the same processor: what the cycles left behind is how the ratio of their
//! rates changed. Needs root.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use stallscope_agents::{Team, Told, everything};

/// How long a rate is taken for, and how many pairs of them.
const WINDOW: Duration = Duration::from_millis(100);
const PAIRS: usize = 400;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(pid), Some(count)) = (number(0), number(1)) else {
        eprintln!("usage: cycles PID COUNT [COUNTER [TWIN TWIN_COUNTER]]");
        std::process::exit(2);
    };
    let worker = |pid: Option<u32>, counter: usize| {
        pid.zip(arguments.get(counter)).map(|(pid, counter)| Worker { pid, counter: Path::new(counter) })
    };
    let pair = worker(Some(pid), 2).map(|job| (job, worker(number(3), 4)));
    let rates_before = pair.as_ref().map(|(job, twin)| rates(job, twin.as_ref()));
    let (mut attach, mut first, mut detach) = (Vec::new(), Vec::new(), Vec::new());
    let mut events_of = Vec::new();
    let mut belongings = Vec::new();
    for cycle in 0..count {
        match once(pid) {
            Ok(cycle) => {
                attach.push(cycle.attach);
                first.extend(cycle.first);
                detach.push(cycle.detach);
                events_of.push(cycle.events);
            }
            Err(why) => println!("{cycle}: {why}"),
        }
        if cycle == 0 || cycle + 1 == count {
            belongings.push(Belongings::of(pid));
        }
    }
    println!("{} of {count} cycles", attach.len());
    show("from the decision to attach until records can flow", &mut attach);
    show("until the first record was here", &mut first);
    show("to rest", &mut detach);
    let least = events_of.iter().min().copied().unwrap_or(0);
    println!("records a cycle: {least} at least, {} in all", events_of.iter().sum::<usize>());
    for (when, what) in ["after the first", "after the last"].iter().zip(&belongings) {
        println!("{when}: {what:?}");
    }
    if let (Some(before), Some((job, twin))) = (rates_before, &pair) {
        let after = rates(job, twin.as_ref());
        let per_second = if twin.is_some() { "work, of what the twin does" } else { "work a second" };
        println!(
            "{per_second}: {before} before, {after} after ({:+.2} %)",
            after.change_from(&before) * 100.0
        );
    }
}

struct Cycle {
    attach: Duration,
    first: Option<Duration>,
    detach: Duration,
    events: usize,
}

fn once(pid: u32) -> Result<Cycle, String> {
    let mut team = Team::new(stallscope_cupti_image::AGENT, everything(), |name| Arc::from(name));
    let begun = Instant::now();
    team.follow(pid);
    let (mut attach, mut first, mut detach, mut events, mut asked) = (None, None, None, 0, false);
    loop {
        let over = team.is_at_rest();
        for told in team.told() {
            match told {
                Told::On { attach: took, .. } => attach = Some(took),
                Told::Events { events: some, .. } => {
                    first.get_or_insert(begun.elapsed());
                    events += some.len();
                }
                Told::Observed { detach: took, .. } => detach = Some(took),
                Told::Ended { why, .. } if attach.is_none() => return Err(why.to_string()),
                _ => {}
            }
        }
        if over {
            let whole = attach.zip(detach).map(|(attach, detach)| Cycle { attach, first, detach, events });
            return whole.ok_or_else(|| "it ended without having collected".to_owned());
        }
        if !asked && (first.is_some() || begun.elapsed() > Duration::from_secs(10)) {
            team.ask_to_rest();
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at =
        |share: usize| times.get(times.len() * share / 100).or(times.last()).copied().unwrap_or_default();
    println!("{what}: p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(50), at(99), at(100));
}

/// What a process has that may grow.
#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
struct Belongings {
    threads: usize,
    descriptors: usize,
    mappings: usize,
    resident_kib: u64,
}

impl Belongings {
    fn of(pid: u32) -> Self {
        let entries =
            |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        let text = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let status = text("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        Self {
            threads: entries("task"),
            descriptors: entries("fd"),
            mappings: text("maps").lines().count(),
            resident_kib: resident.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0),
        }
    }
}

/// A process, and the file with its count of its work.
struct Worker<'a> {
    pid: u32,
    counter: &'a Path,
}

impl Worker<'_> {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it lives");
    }

    /// Work a second over a window.
    fn rate(&self) -> f64 {
        let count = || {
            let bytes = std::fs::read(self.counter).unwrap_or_default();
            bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let (begun, from) = (Instant::now(), count());
        std::thread::sleep(WINDOW);
        (count() - from) as f64 / begun.elapsed().as_secs_f64()
    }
}

/// Sorted.
struct Rates(Vec<f64>);

impl Rates {
    fn at(&self, share: usize) -> f64 {
        self.0.get((self.0.len() - 1) * share / 100).copied().unwrap_or(f64::NAN)
    }

    fn change_from(&self, before: &Self) -> f64 {
        self.at(50) / before.at(50) - 1.0
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:.4} ({:.4} to {:.4})", self.at(50), self.at(25), self.at(75))
    }
}

/// The job's work a second, or what share of its twin's that is: the twin is measured right before or right after.
fn rates(job: &Worker<'_>, twin: Option<&Worker<'_>>) -> Rates {
    let mut rates: Vec<f64> = (0..PAIRS)
        .map(|pair| {
            let Some(twin) = twin else { return job.rate() };
            let alone = |one: &Worker<'_>, other: &Worker<'_>| {
                other.signal(Signal::STOP);
                one.signal(Signal::CONT);
                one.rate()
            };
            if pair % 2 == 0 {
                let rate = alone(job, twin);
                rate / alone(twin, job)
            } else {
                let rate = alone(twin, job);
                alone(job, twin) / rate
            }
        })
        .collect();
    if let Some(twin) = twin {
        job.signal(Signal::CONT);
        twin.signal(Signal::STOP);
    }
    rates.sort_by(f64::total_cmp);
    Rates(rates)
}
