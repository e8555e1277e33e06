//! Ranks that are threads of this process, or processes of their own, without devices: only that they meet, and when.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// A communicator of ranks whose clocks are so far ahead, and which may share memory or may not.
fn job(ranks: &[(i64, bool)]) -> Vec<Arc<Comm>> {
    let address = root::start().unwrap();
    let world = u32::try_from(ranks.len()).unwrap();
    std::thread::scope(|scope| {
        let join = |(rank, &(offset_ns, shares_memory)): (u32, &(i64, bool))| {
            let address = &address;
            scope.spawn(move || Comm::meet(address, 7, (rank, world), offset_ns, shares_memory).unwrap().0)
        };
        let threads: Vec<_> = (0..).zip(ranks).map(join).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn sharing(world: usize) -> Vec<Arc<Comm>> {
    job(&vec![(0, true); world])
}

fn not_sharing(world: usize) -> Vec<Arc<Comm>> {
    job(&vec![(0, false); world])
}

/// A kernel of the rank starts; its transfer takes 10 ns.
fn start(comm: &Arc<Comm>, keys: &[Key], start_ns: u64) -> Arc<Launch> {
    let launch = Launch::nowhere(comm, keys);
    for key in keys {
        comm.arrive(&launch, key, start_ns, (10, 0));
    }
    launch
}

/// Much longer than what other threads do takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn assert_ends(launches: &[Arc<Launch>], end_ns: impl Fn(usize) -> u64) {
    for (place, launch) in launches.iter().enumerate() {
        until("a kernel ends", || launch.end_ns().is_some());
        assert_eq!(launch.end_ns(), Some(end_ns(place)), "kernel {place}");
    }
}

#[test]
fn ranks_share_memory_if_all_of_them_can() {
    assert!(sharing(3).iter().all(|c| c.board.is_some()));
    assert!(not_sharing(3).iter().all(|c| c.board.is_none()));
    let mixed = job(&[(0, true), (0, false), (0, true)]);
    assert!(mixed.iter().all(|c| c.board.is_none()));
    for ranks in [sharing(3), mixed, sharing(1)] {
        let all = [Key::All(0)];
        let launches: Vec<_> =
            (0..).zip(&ranks).map(|(rank, comm)| start(comm, &all, 1_000 * rank)).collect();
        assert_ends(&launches, |_| 1_000 * (ranks.len() as u64 - 1) + 10);
    }
}

/// Each rank has so many collectives out at once, as with several streams, and waits for the oldest.
fn meet_again_and_again(ranks: &[Arc<Comm>], out_at_once: usize, count: u64) {
    let last = ranks.len() as u64 - 1;
    let one = |rank: u64, comm: &Arc<Comm>| {
        let mut out = VecDeque::new();
        for number in 0..count {
            out.push_back((number, start(comm, &[Key::All(number)], 100 * number + rank)));
            while out.len() >= out_at_once || (number + 1 == count && !out.is_empty()) {
                let (number, launch) = out.pop_front().unwrap();
                let begin = Instant::now();
                while launch.end_ns().is_none() {
                    assert!(begin.elapsed() < PATIENCE, "rank {rank}, collective {number}");
                    std::thread::yield_now();
                }
                assert_eq!(launch.end_ns(), Some(100 * number + last + 10));
            }
        }
    };
    std::thread::scope(|scope| {
        for (rank, comm) in (0..).zip(ranks) {
            scope.spawn(move || one(rank, comm));
        }
    });
    assert!(ranks.iter().all(|c| c.meetings().is_empty()));
}

#[test]
fn nobody_sleeps_through_a_meeting() {
    meet_again_and_again(&sharing(4), 6, 3_000);
    meet_again_and_again(&not_sharing(4), 6, 1_000);
}

#[test]
fn ranks_that_arrive_at_the_same_moment_see_each_other() {
    // Nothing comes after a collective that would make them look again.
    meet_again_and_again(&sharing(2), 1, 20_000);
}

#[test]
fn a_rank_may_be_far_ahead() {
    // Many times what the board holds, and none of the others there yet.
    const COUNT: u64 = 2_000;
    let ranks = sharing(3);
    let keys: Vec<Key> = (0..COUNT).map(Key::All).collect();
    let mut launches = Vec::new();
    for (comm, at_ns) in ranks.iter().zip([50, 70, 60]) {
        launches.extend(keys.iter().map(|key| start(comm, std::slice::from_ref(key), at_ns)));
    }
    assert_ends(&launches, |_| 80);
    // All in one kernel, too.
    let keys: Vec<Key> = (COUNT..2 * COUNT).map(Key::All).collect();
    let launches: Vec<_> = ranks.iter().rev().map(|comm| start(comm, &keys, 5)).collect();
    assert_ends(&launches, |_| 15);
    assert!(ranks.iter().all(|c| c.meetings().is_empty()));
}

#[test]
fn who_hears_by_tcp_of_the_last_arrival_wakes_the_others() {
    let ranks = sharing(3);
    let by_tcp = Arrival { key: Key::All(0), rank: 2, start_ns: 70, transfer_ns: 10, slowed_ns: 0 };
    let second = start(&ranks[1], &[Key::All(0)], 50);
    ranks[1].heard(by_tcp.clone());
    // For the first rank somebody is still missing, and the second has looked before it came.
    let first = start(&ranks[0], &[Key::All(0)], 60);
    assert_eq!(first.end_ns(), None);
    ranks[0].heard(by_tcp);
    assert_ends(&[first, second], |_| 80);
}

#[test]
fn messages_meet_in_pairs() {
    const COUNT: u64 = 2_000;
    for ranks in [sharing(3), not_sharing(3)] {
        // Three at once each way, and one to itself.
        let pair = |from, to| (0..3).map(move |number| Key::Pair(from, to, number));
        let first: Vec<Key> = pair(0, 1).chain(pair(1, 0)).collect();
        let launches = [start(&ranks[0], &first, 100), start(&ranks[1], &first, 300)];
        assert_ends(&launches, |_| 310);
        let own = start(&ranks[2], &[Key::Pair(2, 2, 0), Key::Pair(2, 2, 0)], 50);
        assert_eq!(own.end_ns(), Some(60));
        // The third rank has nothing to do with any of these, and does not stand in their way.
        let between = |rank: usize| {
            let each = (3..COUNT).map(|number| start(&ranks[rank], &[Key::Pair(0, 1, number)], number));
            each.collect::<Vec<_>>()
        };
        let launches = [between(0), between(1)].concat();
        assert_ends(&launches, |place| 3 + place as u64 % (COUNT - 3) + 10);
        assert!(ranks.iter().all(|c| c.meetings().is_empty()));
    }
}

#[test]
fn whoever_has_nothing_to_do_makes_room_all_the_same() {
    let ranks = sharing(3);
    let room = || {
        let progress = ranks[0].meetings().progress.take().unwrap();
        let is_room = ranks[0].board.as_ref().unwrap().has_room(&progress);
        ranks[0].meetings().progress = Some(progress);
        is_room
    };
    let mut number = 0;
    while room() {
        start(&ranks[0], &[Key::Pair(0, 1, number)], 5);
        number += 1;
        assert!(number < 10_000, "the board is never full, so this test shows nothing");
    }
    start(&ranks[0], &[Key::Pair(0, 1, number)], 5);
    until("there is room again", room);
}

#[test]
fn clocks_of_time_namespaces_agree() {
    for shares in [true, false] {
        let ranks = job(&[(0, shares), (5_000_000, shares), (-400, shares)]);
        // By the machine's clock 1000, 3000 and 2000.
        let starts = [1_000, 5_003_000, 1_600];
        let launches: Vec<_> =
            ranks.iter().zip(starts).map(|(c, at_ns)| start(c, &[Key::All(0)], at_ns)).collect();
        assert_ends(&launches, |rank| [3_010, 5_003_010, 2_610][rank]);
    }
}

#[test]
fn a_rank_that_goes_away_after_its_arrival_is_not_missed() {
    for ranks in [sharing(3), not_sharing(3)] {
        let mut launches: Vec<_> = ranks[..2].iter().map(|c| start(c, &[Key::All(0)], 5)).collect();
        assert!(launches.iter().all(|l| l.end_ns().is_none()));
        let arrival = Arrival { key: Key::All(0), rank: 2, start_ns: 9, transfer_ns: 10, slowed_ns: 0 };
        // It ends before it has woken anybody.
        if !ranks[2].write_down(&mut ranks[2].meetings(), &arrival) {
            ranks[2].send(&arrival);
        }
        ranks[2].close();
        assert_ends(&launches, |_| 19);
        until("the others see that it is gone", || {
            ranks[..2].iter().all(|c| c.broken.load(Ordering::Acquire))
        });
        // Nor does it come back.
        launches.push(start(&ranks[2], &[Key::All(1)], 5));
        launches.extend(ranks[..2].iter().map(|c| start(c, &[Key::All(1)], 5)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(launches[2..].iter().all(|l| l.end_ns().is_none()));
        assert_eq!(ranks[0].meetings().give_up().len(), 1);
    }
}

#[test]
fn a_communicator_that_is_closed_leaves_nothing_behind() {
    for ranks in [sharing(3), not_sharing(3)] {
        drop(start(&ranks[0], &[Key::All(0)], 5));
        ranks[0].abort();
        assert!(ranks[0].meetings().is_empty());
        ranks[1].close();
        ranks[2].close();
        // Each of its threads holds it.
        until("its threads end", || ranks.iter().all(|c| Arc::strong_count(c) == 1));
    }
}

/// A rank in a process of its own: this program once more, told to run the test `rank_of_its_own`.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(address: &str, rank: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["comm::tests::rank_of_its_own", "--exact", "--ignored", "--nocapture"])
            .env("DOUBLE_RANK", format!("{address} {rank}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers) }
    }

    fn order(&mut self, what: &str) {
        writeln!(self.orders, "{what}").unwrap();
    }

    /// The next line that is not the test harness's.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the process has ended");
            if let Some(answer) = line.trim().strip_prefix("rank: ") {
                return answer.to_owned();
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn maps(&self) -> Vec<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let names = maps.lines().filter_map(|l| Some(l.split_once("/memfd:double-nccl-")?.1.to_owned()));
        names.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Arrives at the next collective when told to, and says when that has ended or that a rank is gone.
#[test]
#[ignore = "is run by other tests, in a process of its own"]
fn rank_of_its_own() {
    let Ok(told) = std::env::var("DOUBLE_RANK") else { return };
    let (address, rank) = told.split_once(' ').unwrap();
    let (comm, _) = Comm::meet(address, 7, (rank.parse().unwrap(), 3), 0, true).unwrap();
    println!("rank: is there");
    for line in io::stdin().lines() {
        match line.unwrap().split_once(' ') {
            Some(("arrive", at_ns)) => {
                let launch = start(&comm, &[comm.next_collective()], at_ns.parse().unwrap());
                println!("rank: arrived");
                let gone = || comm.broken.load(Ordering::Acquire);
                until("the kernel ends", || launch.end_ns().is_some() || gone());
                match launch.end_ns() {
                    Some(end_ns) => println!("rank: ended {end_ns}"),
                    None => println!("rank: somebody is gone"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn processes() -> Vec<Process> {
    let address = root::start().unwrap();
    let mut ranks: Vec<_> = (0..3).map(|rank| Process::start(&address, rank)).collect();
    for rank in &mut ranks {
        assert_eq!(rank.answer(), "is there");
    }
    ranks
}

fn arrive(ranks: &mut [Process], at_ns: u64) {
    for rank in ranks.iter_mut() {
        rank.order(&format!("arrive {at_ns}"));
        assert_eq!(rank.answer(), "arrived");
    }
}

#[test]
fn a_rank_that_is_killed_is_missed_if_it_has_not_arrived() {
    let mut ranks = processes();
    arrive(&mut ranks, 30);
    for rank in &mut ranks {
        assert_eq!(rank.answer(), "ended 40");
    }
    arrive(&mut ranks[1..], 50);
    ranks[0].kill();
    for rank in &mut ranks[1..] {
        assert_eq!(rank.answer(), "somebody is gone");
    }
}

#[test]
fn ranks_that_are_killed_leave_no_memory_behind() {
    let mut ranks = processes();
    arrive(&mut ranks, 30);
    let name = ranks[0].maps().first().expect("the memory is there while they are").clone();
    let name = name.split(' ').next().unwrap();
    assert!(ranks.iter().all(|rank| rank.maps().iter().any(|map| map.starts_with(name))));
    for rank in &mut ranks {
        rank.kill();
    }
    let in_memory = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    assert!(in_memory.map(|e| e.file_name()).all(|n| !n.to_string_lossy().contains("double-nccl")));
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    for process in processes.filter(|p| p.join("maps").exists()) {
        let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
        assert!(!maps.contains(name), "{} has it mapped", process.display());
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|f| std::fs::read_link(f.path()).ok());
        assert!(!targets.any(|t| t.to_string_lossy().contains(name)), "{} has it open", process.display());
    }
}
