//! What walking Python frames costs, as the kernel accounts for it. Not a test of speed: it prints, and only a walk that
//! did not happen fails it. `cargo test -p stallscope-ebpf --test python_cost -- --ignored --nocapture`, as root; the
//! interpreters are python3.10 … python3.14 on PATH, or those in STALLSCOPE_PYTHONS.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use stallscope_ebpf::cost::{Accounting, program_costs};
use stallscope_ebpf::python::detect;
use stallscope_ebpf::{Event, Kernel, Session, Settings};

/// Recursion to a depth, and there a loop that is only computing.
const PROGRAM: &str = "
import sys
def down(n):
    if n > 1: return down(n - 1)
    while True: pass
down(int(sys.argv[1]))
";
const FRAMES: [usize; 3] = [1, 29, 119];
const ROUNDS: usize = 5;

struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "a measurement, to be run as root on a quiet host"]
fn cost_of_a_walk() {
    let more = std::env::var_os("STALLSCOPE_PYTHONS").unwrap_or_default();
    let named = (10..=14).map(|minor| PathBuf::from(format!("python3.{minor}")));
    for python in named.chain(std::env::split_paths(&more)) {
        for frames in FRAMES {
            let Ok(child) = Command::new(&python).args(["-c", PROGRAM, &frames.to_string()]).spawn() else {
                continue;
            };
            let job = Job(child);
            std::thread::sleep(Duration::from_millis(500));
            let Ok(process) = detect(job.0.id()) else { continue };
            let mut rounds: Vec<[u64; 2]> = (0..ROUNDS)
                .map(|_| [sample_ns(job.0.id(), false, frames + 1), sample_ns(job.0.id(), true, frames + 1)])
                .collect();
            rounds.sort_by_key(|[without, with]| with.saturating_sub(*without));
            let [without, with] = rounds[ROUNDS / 2];
            println!(
                "{process}: a sample without {without} ns, with {} Python frames {with} ns, {} ns more (median of {ROUNDS}; least {}, most {})",
                frames + 1,
                with.saturating_sub(without),
                rounds[0][1].saturating_sub(rounds[0][0]),
                rounds[ROUNDS - 1][1].saturating_sub(rounds[ROUNDS - 1][0]),
            );
        }
    }
}

/// Mean time of the sampling program for a sample of the job.
fn sample_ns(pid: u32, walk: bool, frames: usize) -> u64 {
    let settings = Settings { sample_hz: 997, ..Settings::default() };
    let mut session = Session::load(&Kernel::detect(), settings).unwrap();
    if walk {
        session.set_python(pid, &detect(pid).unwrap()).unwrap();
    }
    let counted = std::cell::Cell::new((0u64, 0u64));
    let reader = session.reader(|event| {
        let (samples, walked) = counted.get();
        match event {
            Ok(Event::Sample(_)) => counted.set((samples + 1, walked)),
            Ok(Event::Stack(stack)) if stack.python.len() == frames => counted.set((samples, walked + 1)),
            _ => {}
        }
    });
    let reader = reader.unwrap();
    let _accounting = Accounting::start().unwrap();
    session.attach(&[pid]).unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        reader.poll(Duration::from_millis(50)).unwrap();
    }
    let cost: u64 = program_costs(&["sample"]).iter().map(|cost| cost.time_ns).sum();
    session.detach().unwrap();
    reader.poll(Duration::ZERO).unwrap();
    let (samples, walked) = counted.get();
    assert!(samples > 100, "{samples} samples");
    assert_eq!(walked > 0, walk, "stacks of {frames} Python frames");
    cost / samples
}
