//! Attaches to a process that uses CUDA and leaves again, again and again, and says what that took and what stayed.
//!
//! `cycles PID COUNT [COUNTER]`: COUNTER is a file with the process's own count of its work (8 bytes), for its rate in
//! windows without an agent that collects, before and after. Needs root.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stallscope_agents::{Team, Told, everything};

/// How long the process's rate is taken for, without us.
const WINDOW: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(pid), Some(count)) = (number(0), number(1)) else {
        eprintln!("usage: cycles PID COUNT [COUNTER]");
        std::process::exit(2);
    };
    let counter = arguments.get(2).map(Path::new);
    let rate_before = counter.map(rate);
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
    if let (Some(before), Some(counter)) = (rate_before, counter) {
        let after = rate(counter);
        println!(
            "work a second: {before:.1} before, {after:.1} after ({:+.2} %)",
            (after / before - 1.0) * 100.0
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

/// Work a second over a window.
fn rate(counter: &Path) -> f64 {
    let count = || {
        let bytes = std::fs::read(counter).unwrap_or_default();
        bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    let (begun, from) = (Instant::now(), count());
    std::thread::sleep(WINDOW);
    (count() - from) as f64 / begun.elapsed().as_secs_f64()
}
