//! The built agent in a program that CUDA loads it into: no daemon hands it anything, and none has to be there.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
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

#[test]
fn nothing_is_missed_before_the_daemon_comes_and_the_job_goes_on_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let job = compile("job.c", &file("job"), true);
    let cuda = compile("cuda.c", &file("libcuda.so.1"), false);
    let cupti = compile("cupti.c", &file("libcupti.so.12"), false);
    std::fs::write(file("agent.so"), AGENT).expect("a file");
    let mut child = Command::new(job)
        .args([&cuda, &cupti])
        .env("CUDA_INJECTION64_PATH", file("agent.so"))
        .env("STALLSCOPE_KINDS", ActivityKind::Kernel.bit().to_string())
        .env("STALLSCOPE_WAIT_S", "2")
        .env("STALLSCOPE_CUPTI", &cupti)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the job");
    let mut input = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut job = |input: &mut std::process::ChildStdin| {
        input.write_all(b"\n").expect("the job lives");
        lines.next().expect("a line").expect("text").parse::<usize>().expect("a number")
    };
    // The first line comes by itself, when the first kernels were launched.
    let launched = job(&mut input);
    assert_eq!(launched, 100);

    let mut daemon = Daemon::map(&ring_of(child.id()), None);
    assert_eq!(daemon.header.pid.load(Relaxed), child.id());
    assert_eq!(daemon.state(), State::On);
    let kernels = daemon.read_until(Kind::Kernel, 100);
    assert_eq!(kernels[0].correlation(), 1, "the very first is there");

    // Nobody says anything for two seconds.
    daemon.wait_for(State::Dormant);
    assert_eq!(daemon.header.reason.load(Relaxed), Reason::DaemonGone.id());
    assert!(job(&mut input) >= 200, "the job goes on");
    daemon.read();
    daemon.collect(ActivityKind::Kernel.bit());
    daemon.wait_for(State::On);
    job(&mut input);
    daemon.read_until(Kind::Kernel, 100);
    daemon.say(Wish::Leave);
    daemon.wait_for(State::Gone);
    job(&mut input);
    drop(input);
    assert!(child.wait().expect("it ends").success());
}
