//! Injects again and again into a busy program that checks itself, and says how that went.
//!
//! `soak COUNT [REST_MS [BURNERS [SETGID]]]`: how often; how long the program's threads rest between rounds (20: an idle
//! target, 0: a busy one); how many of its threads burn a CPU; whether it sets its group all the time. Needs root and cc.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use stallscope_cupti_inject::{Options, inject};
use stallscope_cupti_wire::State;
use support::{Ring, Target, compile, payload};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(count) = arguments.first().and_then(|count| count.parse::<u32>().ok()) else {
        eprintln!("usage: soak COUNT [REST_MS [BURNERS [SETGID]]]");
        return;
    };
    if !support::can_run() {
        return;
    }
    let mut target =
        Target::start(Command::new(compile("stress.c", "stress", &[])).args(arguments.iter().skip(1)));
    std::thread::sleep(Duration::from_millis(200));
    let before = target.belongings();
    let (mut stopped, mut whole) = (Vec::new(), Vec::new());
    let mut refusals: BTreeMap<String, u32> = BTreeMap::new();
    let mut attempts = 0;
    let began = Instant::now();
    for number in 1..=count {
        let began_one = Instant::now();
        match inject(target.pid(), &payload(0), Options::default()) {
            Ok(injected) => {
                whole.push(began_one.elapsed());
                stopped.push(injected.stopped);
                attempts += injected.attempts;
                Ring::new(&injected.ring).wait_for(State::Gone);
            }
            Err(refusal) => {
                println!("{number}: {refusal}");
                let name = format!("{refusal:?}");
                *refusals.entry(name.split([' ', '{']).next().unwrap_or_default().to_owned()).or_default() +=
                    1;
            }
        }
        if !target.is_alive() {
            println!("{number}: the target is dead");
            return;
        }
        if number.is_multiple_of(1000) {
            target.write(b"?\n");
            println!("{number} after {:.0?}: {}", began.elapsed(), target.line());
        }
    }
    stopped.sort();
    whole.sort();
    println!("{} injections, {} threads stopped for them; refusals: {refusals:?}", stopped.len(), attempts);
    println!("a thread stopped: {}", percentiles(&stopped));
    println!("until the agent was called: {}", percentiles(&whole));
    println!("threads, descriptors, mappings: {before:?} before, {:?} after", target.belongings());
    target.write(b"?\n");
    println!("{}", target.line());
    target.close();
    println!("the target found nothing wrong");
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is an index"
        )]
        let index = (share * sorted.len() as f64) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    format!("p50 {:.0?}, p90 {:.0?}, p99 {:.0?}, max {:.0?}", at(0.5), at(0.9), at(0.99), at(1.0))
}
