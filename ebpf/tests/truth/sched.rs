//! Waits, wakers, stops, run queue, throttling, threads that come and go, and that it all adds up.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use stallscope_ebpf::{Event, Kernel};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::wire::{OUTSIDE, task_flag, wait, wait_flag};

use crate::recording::{Recording, child, overlap, record, record_while, signal, span, start};

const READ: i32 = 0;
const FUTEX: i32 = 202;
const CLOCK_NANOSLEEP: i32 = 230;

/// Between two clock reads of a thread and its wait lie the call and the switch; a test machine may be busy, and then
/// the run queue is in the wait. What remains is code.
const CODE_NS: u64 = 1_000_000;

/// A timer counts from when the call sets it, a little before the thread leaves the CPU: preempted between, less of the
/// time is left to wait.
const TIMER_SLACK_NS: u64 = 1_000_000;

#[test]
fn a_sleep_is_as_long_as_the_sleeper_says() {
    let length = 50_000_000;
    let Some(mut command) = child(&["sleep", "10", "50000000"]) else { return };
    let stolen = stolen_ns();
    let recording = record(&mut command);
    let stamps = recording.said("slept");
    assert_eq!(stamps.len(), 10);
    let waits = recording.waits_in(1, CLOCK_NANOSLEEP);
    let lost = recording.lost(1);
    let mut outside = 0;
    for stamp in &stamps {
        let stamp = (stamp[0], stamp[1]);
        if lost.iter().any(|lost| overlap(*lost, stamp) > 0) {
            println!("a switch in {stamp:?} was lost and is counted: {:?}", recording.losses);
            continue;
        }
        let within: Vec<_> = waits.iter().filter(|w| overlap(span(w), stamp) > 0).collect();
        let [wait] = within.as_slice() else { panic!("one wait in {stamp:?}: {within:?}") };
        assert!(stamp.0 <= span(wait).0 && span(wait).1 <= stamp.1, "the wait lies within the call");
        assert!(wait.duration_ns - wait.run_queue_ns >= length - TIMER_SLACK_NS, "{wait:?}");
        assert_ne!(wait.head.flags & wait_flag::WAIT_IRQ_WAKER, 0, "a timer ends it, nobody: {wait:?}");
        assert_ne!(wait.head.flags & wait_flag::WAIT_RETURNED, 0);
        assert_eq!((wait.result, wait.object, wait.fd), (0, 0, -1));
        outside += stamp.1 - stamp.0 - wait.duration_ns;
    }
    let queued: u64 = recording.preempts(1).iter().map(|p| p.run_queue_ns).sum();
    assert!(outside <= CODE_NS + queued + stolen_ns() - stolen, "{outside} ns outside of waits are running");
}

#[test]
fn a_reader_of_a_pipe_waits_for_who_writes_to_it() {
    let Some(mut command) = child(&["pipe", "10"]) else { return };
    let recording = record(&mut command);
    let (reader, writer) = (recording.task(recording.one("reader")), recording.task(recording.one("writer")));
    let waits = recording.waits_in(reader, READ);
    let waits: Vec<_> = waits.iter().filter(|w| w.wanted == 1).collect();
    // Where the reader was slow, the byte was there before it asked.
    assert!((5..=10).contains(&waits.len()), "{waits:?}");
    for wait in waits {
        assert_eq!(wait.waker, writer);
        assert_eq!(wait.head.flags & wait_flag::WAIT_IRQ_WAKER, 0);
        assert_eq!((wait.result, wait.object_kind), (1, ObjectKind::Pipe.id()));
        assert!(recording.object(wait.object).text.starts_with("pipe:["));
    }
}

#[test]
fn a_futex_waiter_waits_for_who_wakes_it() {
    let Some(mut command) = child(&["futex", "10"]) else { return };
    let recording = record(&mut command);
    let (sleeper, waker) = (recording.task(recording.one("sleeper")), recording.task(recording.one("waker")));
    let address = recording.one("futex");
    let waits = recording.waits_in(sleeper, FUTEX);
    let waits: Vec<_> = waits.iter().filter(|w| w.object == address).collect();
    // Where the sleeper was slow, the word had changed before it slept.
    assert!((5..=10).contains(&waits.len()), "{waits:?}");
    for wait in waits {
        assert_eq!((wait.waker, wait.object_kind, wait.fd), (waker, ObjectKind::Futex.id(), -1));
    }
}

#[test]
fn a_stopped_process_is_stopped_for_as_long_as_it_was() {
    let Some(mut command) = child(&["gaps", "1000000000", "50000000"]) else { return };
    let stolen = stolen_ns();
    let mut began = None;
    let mut next = Some("STOP");
    let recording = record_while(start(&mut command), |child: &Child| {
        let began = began.get_or_insert_with(Instant::now);
        if next == Some("STOP") && began.elapsed() > Duration::from_millis(200) {
            signal("STOP", child.id());
            next = Some("CONT");
        } else if next == Some("CONT") && began.elapsed() > Duration::from_millis(400) {
            signal("CONT", child.id());
            next = None;
        }
    });
    let stops: Vec<_> =
        recording.waits(1).into_iter().filter(|w| u16::from(w.kind) == wait::WAIT_STOPPED).collect();
    assert_eq!(stops.len(), 1, "{stops:?}");
    let (from, to) = span(stops[0]);
    let gaps = recording.said("gap");
    let gap = gaps.iter().find(|gap| gap[0] <= from && to <= gap[1]);
    let gap = gap.unwrap_or_else(|| panic!("{from}..{to} in one of {gaps:?}"));
    // The rest of the gap is other waiting for a CPU, just before or after.
    let queued = queued_within(&recording, 1, (gap[0], gap[1]));
    let rest = gap[1] - gap[0] - (to - from);
    assert!(rest <= CODE_NS + queued + stolen_ns() - stolen, "{rest} of {gap:?} is not in {from}..{to}");
}

#[test]
fn threads_and_processes_that_come_later_are_followed_to_their_end() {
    let Some(mut command) = child(&["family"]) else { return };
    let recording = record(&mut command);
    let main = recording.one("main");
    for (word, same_process) in [("thread", true), ("forked", false), ("execed", false)] {
        let tid = recording.one(word);
        let task = recording.tasks().find(|t| u64::from(t.tid) == tid).expect("followed");
        assert_ne!(task.head.flags & task_flag::TASK_FORKED, 0, "{word}");
        assert_eq!(task.head.flags & task_flag::TASK_LEADER != 0, !same_process, "{word}");
        assert_eq!(u64::from(task.pid) == main, same_process, "{word}");
        if !same_process {
            assert_eq!(u64::from(task.ppid), main);
        }
        let id = task.head.task;
        let ends = recording.events.iter().filter(|e| matches!(e, Event::TaskEnd(m) if m.head.task == id));
        assert_eq!(ends.count(), 1, "{word} ends once");
        let sleeps = recording.waits_in(id, CLOCK_NANOSLEEP);
        assert_eq!(sleeps.len(), 1, "{word} sleeps once");
        assert!(sleeps[0].duration_ns >= 5_000_000);
        let execs: Vec<_> = recording
            .events
            .iter()
            .filter_map(|e| match e {
                Event::Exec(moment) if moment.head.task == id => Some(moment),
                _ => None,
            })
            .collect();
        assert_eq!(execs.len(), usize::from(word == "execed"));
    }
}

/// Σ waits + Σ run queue + time on a CPU = span, with the time on a CPU from the kernel's own account.
#[test]
fn waits_run_queue_and_running_add_up_to_the_span() {
    let Some(mut command) = child(&["mixed", "4", "60"]) else { return };
    let stolen = stolen_ns();
    let recording = record(&mut command);
    let stolen = stolen_ns() - stolen;
    assert!(
        recording.losses.iter().all(|(loss, _)| *loss == LossCounter::ProbeMissed),
        "{:?}",
        recording.losses
    );
    let ends = recording.said("end");
    assert_eq!(ends.len(), 4);
    for begin in recording.said("begin") {
        let end = ends.iter().find(|end| end[0] == begin[0]).expect("the thread ended");
        let task = recording.task(begin[0]);
        let within = (begin[1], end[1]);
        let wall = within.1 - within.0;
        let waits: u64 = recording.waits(task).into_iter().map(|w| overlap(span(w), within)).sum();
        let queued = queued_within(&recording, task, within);
        let unknown: u64 = recording.lost(task).into_iter().map(|lost| overlap(lost, within)).sum();
        let ran = end[2] - begin[2];
        let sum = waits + queued + ran;
        println!(
            "wall {wall} = waits {waits} + queue {queued} + ran {ran} + {}, stolen {stolen}",
            wall as i64 - sum as i64
        );
        // What the hypervisor took while the thread was on a CPU is not in the kernel's account of it.
        let missing = wall.saturating_sub(sum).saturating_sub(stolen + unknown);
        let surplus = sum.saturating_sub(wall);
        let share = wall / 100 + CODE_NS;
        assert!(
            missing.max(surplus) <= share,
            "wall {wall}: {waits} + {queued} + {ran} = {sum}, stolen {stolen}"
        );
    }
}

/// Time that a hypervisor took from all CPUs, to the tick.
fn stolen_ns() -> u64 {
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ticks.unwrap_or(0) * TICK_NS
}

/// Time on the run queue within a stretch; a record that reaches over the edge counts by its share.
fn queued_within(recording: &Recording, task: u32, within: (u64, u64)) -> u64 {
    let shares = recording.preempts(task).into_iter().map(|p| {
        let common = overlap((p.start_ns, p.start_ns + p.duration_ns), within);
        let share = u128::from(p.run_queue_ns) * u128::from(common) / u128::from(p.duration_ns.max(1));
        u64::try_from(share).expect("a part of a u64")
    });
    shares.sum()
}

#[test]
fn run_queue_time_is_the_kernels_and_who_ran_instead_is_named() {
    let Some(mut command) = child(&["burn", "300000000"]) else { return };
    let Some(mut other) = child(&["burn", "3000000000"]) else { return };
    let cpu = "0";
    let mut antagonist = start(&mut pinned(cpu, &mut other));
    std::io::Write::write_all(antagonist.stdin.as_mut().expect("piped"), b"go\n").expect("it listens");
    let recording = record(&mut pinned(cpu, &mut command));
    antagonist.kill().expect("a child of ours");
    antagonist.wait().expect("a child of ours");
    let (begin, end) = (&recording.said("begin")[0], &recording.said("end")[0]);
    let within = (begin[1], end[1]);
    let kernel = end[3] - begin[3];
    let waits: u64 =
        recording.waits(1).iter().map(|w| w.run_queue_ns * u64::from(overlap(span(w), within) > 0)).sum();
    let ours = queued_within(&recording, 1, within) + waits;
    println!("run queue: kernel {kernel}, ours {ours}");
    assert!(ours.abs_diff(kernel) <= kernel / 20 + CODE_NS, "kernel {kernel}, ours {ours}");
    assert!(kernel > 100_000_000, "two processes on one CPU wait for each other");
    // Who ran last before it: with others on the CPU as well, that need never be the antagonist.
    let mut preemptors: Vec<u32> =
        recording.preempts(1).iter().map(|p| p.preemptor).filter(|p| *p != 0).collect();
    preemptors.sort_unstable();
    preemptors.dedup();
    let other = OUTSIDE | antagonist.id();
    assert!(preemptors.contains(&other) || preemptors.len() > 1, "{preemptors:?} without {other}");
    for preemptor in preemptors {
        let task = recording.tasks().find(|task| task.head.task == preemptor);
        assert!(
            task.is_some_and(|task| task.tid == preemptor & !OUTSIDE),
            "{preemptor:x} was not introduced"
        );
    }
}

/// The same command on one CPU.
fn pinned(cpu: &str, command: &mut std::process::Command) -> std::process::Command {
    let mut pinned = std::process::Command::new("taskset");
    pinned.args(["-c", cpu]).arg(command.get_program()).args(command.get_args());
    pinned
}

#[test]
fn a_throttled_thread_is_throttled_for_as_long_as_its_cgroup_says() {
    let Some(mut command) = child(&["burn", "200000000"]) else { return };
    let root = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].into_iter().find(|root| {
        fs::metadata(format!("{root}/cpu.stat")).is_ok() || fs::metadata(format!("{root}/cpu.shares")).is_ok()
    });
    let Some(root) = root else {
        println!("skipped: no cgroup hierarchy with the cpu controller");
        return;
    };
    let group = format!("{root}/stallscope-truth-{}", std::process::id());
    let made = fs::create_dir(&group);
    let limited = fs::write(format!("{group}/cpu.cfs_quota_us"), "20000")
        .or_else(|_| fs::write(format!("{group}/cpu.max"), "20000 100000"));
    if made.is_err() || limited.is_err() {
        let _ = fs::remove_dir(&group);
        println!("skipped: no cgroup with a quota can be made under {root}");
        return;
    }
    // On one CPU: a thread that is moved to a CPU whose queue is throttled there seems to queue.
    let child = start(&mut pinned("0", &mut command));
    fs::write(format!("{group}/cgroup.procs"), child.id().to_string()).expect("the child moves");
    let recording = record_while(child, |_| {});
    let stat = fs::read_to_string(format!("{group}/cpu.stat")).expect("a cgroup has it");
    let _ = fs::remove_dir(&group);
    let of = |name: &str| stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
    let kernel =
        of("throttled_time ").or_else(|| of("throttled_usec ").map(|us| us * 1000)).expect("cpu.stat");
    let throttled: u64 = recording
        .preempts(1)
        .iter()
        .filter(|p| p.kind == u32::from(wait::WAIT_THROTTLED))
        .map(|p| p.run_queue_ns)
        .sum();
    println!("throttled: kernel {kernel}, ours {throttled}");
    assert!(kernel > 100_000_000, "a fifth of a CPU is not enough: {stat}");
    // Kernels before 6.6 do not say when the throttling ended and the queueing began.
    let share = if Kernel::detect().at_least(6, 6) { kernel / 50 } else { kernel / 5 };
    assert!(throttled.abs_diff(kernel) <= share, "kernel {kernel}, ours {throttled}");
}
