//! The built agent in a program that CUDA loads it into: no daemon hands it anything, and none has to be there.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use common::{Daemon, compile};
use stallscope_cupti_abi::ActivityKind;
use stallscope_cupti_image::AGENT;
use stallscope_cupti_wire::{Command as Wish, Kind, Reason, State};

/// The ring of a process, found as the daemon finds it.
fn ring_of(pid: u32) -> File {
    let mut descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let ring = descriptors.find_map(|entry| {
        let path = entry.expect("an entry").path();
        let target = std::fs::read_link(&path).ok()?;
        target.to_str()?.starts_with("/memfd:stallscope-ring").then_some(path)
    });
    let ring = ring.expect("a descriptor of the ring");
    File::options().read(true).write(true).open(ring).expect("the ring")
}

/// A job under the agent.
struct Job {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Job {
    fn start(kinds: u64, wait_s: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        let job = compile("job.c", &file("job"), true);
        let cuda = compile("cuda.c", &file("libcuda.so.1"), false);
        let cupti = compile("cupti.c", &file("libcupti.so.12"), false);
        std::fs::write(file("agent.so"), AGENT).expect("a file");
        let mut child = Command::new(job)
            .args([&cuda, &cupti])
            .env("CUDA_INJECTION64_PATH", file("agent.so"))
            .env("STALLSCOPE_KINDS", kinds.to_string())
            .env("STALLSCOPE_WAIT_S", wait_s.to_string())
            .env("STALLSCOPE_CUPTI", &cupti)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the job");
        let input = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, input, lines, _folder: folder }
    }

    /// How many kernels it has launched: 100 more with each line.
    fn launched(&mut self) -> usize {
        self.lines.next().expect("a line").expect("text").parse().expect("a number")
    }

    fn tell(&mut self, what: u8) {
        self.input.write_all(&[what]).expect("the job lives");
    }
}

#[test]
fn nothing_is_missed_before_the_daemon_comes_and_the_job_goes_on_without_it() {
    let mut job = Job::start(ActivityKind::Kernel.bit(), 3);
    assert_eq!(job.launched(), 100);
    let mut daemon = Daemon::map(&ring_of(job.child.id()), None);
    assert_eq!(daemon.header.pid.load(Relaxed), job.child.id());
    assert_eq!(daemon.state(), State::On);
    let kernels = daemon.read_until(Kind::Kernel, 100);
    assert_eq!(kernels[0].correlation(), 1, "the very first is there");

    // Nobody says anything for three seconds.
    daemon.wait_for(State::Dormant);
    assert_eq!(daemon.header.reason.load(Relaxed), Reason::DaemonGone.id());
    job.tell(b'\n');
    assert_eq!(job.launched(), 200, "the job goes on");
    daemon.read();
    daemon.collect(ActivityKind::Kernel.bit());
    daemon.wait_for(State::On);
    job.tell(b'\n');
    job.launched();
    daemon.read_until(Kind::Kernel, 100);
    daemon.say(Wish::Leave);
    daemon.wait_for(State::Gone);
    job.tell(b'\n');
    job.launched();
    job.tell(b'.');
    assert!(job.child.wait().expect("it ends").success());
}

#[test]
fn the_last_records_come_though_the_job_ends_and_its_children_end_undisturbed() {
    let mut job = Job::start(ActivityKind::Kernel.bit(), 60);
    assert_eq!(job.launched(), 100);
    let mut daemon = Daemon::map(&ring_of(job.child.id()), None);
    daemon.header.flush_interval_ns.store(1_000_000_000, Relaxed);
    job.tell(b'f');
    assert_eq!(job.launched(), 200, "what a child launches is its own");
    job.tell(b'.');
    assert!(job.child.wait().expect("it ends").success());
    assert_eq!(daemon.state(), State::Gone);
    let kernels = daemon.read_until(Kind::Kernel, 300);
    let correlations: Vec<_> = kernels.iter().map(stallscope_cupti_wire::Record::correlation).collect();
    assert_eq!(correlations, (1..=300).collect::<Vec<_>>());
}
