//! Ports and pressure from a tree that a test makes up: counters that wrap, vanish, and hold nonsense.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stallscope_counters::{Of, Options, Sample, Sampler};
use stallscope_schemas::units::TimeNs;

const SECOND: i64 = 1_000_000_000;
const PORT: &str = "sys/class/infiniband/mlx5_0/ports/1";

struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }

    fn sampler(&self, cgroups: &[&str]) -> Sampler {
        Sampler::new(Options {
            sysfs: self.path("sys"),
            procfs: self.path("proc"),
            cgroups: cgroups.iter().map(|&c| c.to_owned()).collect(),
            nvml: None,
        })
    }
}

fn values<'s>(sample: &'s Sample, of: &Of) -> Vec<(&'s str, u64, u64)> {
    sample.values.iter().filter(|v| v.of == *of).map(|v| (&*v.name, v.value, v.over_ns)).collect()
}

fn port() -> Of {
    Of::Port("mlx5_0/1".into())
}

#[test]
fn a_port_tells_state_and_rate_at_once_and_growth_from_then_on() {
    let tree = Tree::new();
    tree.write(&format!("{PORT}/state"), "4: ACTIVE\n");
    tree.write(&format!("{PORT}/rate"), "100 Gb/sec (4X EDR)\n");
    tree.write(&format!("{PORT}/counters/port_xmit_data"), "1000\n");
    tree.write(&format!("{PORT}/counters/port_xmit_wait"), "5\n");
    tree.write(&format!("{PORT}/counters/symbol_error"), "7\n");
    tree.write(&format!("{PORT}/hw_counters/out_of_sequence"), "4294967290\n");
    tree.write(&format!("{PORT}/hw_counters/rx_bytes"), "0\n");
    tree.write(&format!("{PORT}/hw_counters/lifespan"), "10\n");
    let mut sampler = tree.sampler(&[]);
    let sample = sampler.sample(TimeNs(0));
    assert_eq!(values(&sample, &port()), [("state (number)", 4, 0), ("rate (Mb/s)", 100_000, 0)]);

    tree.write(&format!("{PORT}/state"), "1: DOWN\n");
    tree.write(&format!("{PORT}/counters/port_xmit_data"), "1250\n");
    tree.write(&format!("{PORT}/hw_counters/out_of_sequence"), "4\n");
    tree.write(&format!("{PORT}/hw_counters/rx_bytes"), "123\n");
    let sample = sampler.sample(TimeNs(SECOND / 10));
    let ns = 100_000_000;
    assert_eq!(
        values(&sample, &port()),
        [
            ("state (number)", 1, 0),
            ("rate (Mb/s)", 100_000, 0),
            ("port_xmit_data (bytes)", 1000, ns),
            ("port_xmit_wait (ticks)", 0, ns),
            ("symbol_error (count)", 0, ns),
            ("hw out_of_sequence (count)", 10, ns),
            ("hw rx_bytes (bytes)", 123, ns),
        ]
    );
}

#[test]
fn what_vanishes_is_absent_and_begins_anew_when_it_comes_back() {
    let tree = Tree::new();
    let counter = format!("{PORT}/counters/port_rcv_packets");
    let beside = format!("{PORT}/counters/symbol_error");
    tree.write(&counter, "100");
    tree.write(&beside, "0");
    let mut sampler = tree.sampler(&[]);
    sampler.sample(TimeNs(0));
    tree.remove(&counter);
    let sample = sampler.sample(TimeNs(SECOND));
    assert_eq!(values(&sample, &port()), [("symbol_error (count)", 0, 1_000_000_000)]);
    tree.write(&counter, "900");
    assert_eq!(values(&sampler.sample(TimeNs(2 * SECOND)), &port()).len(), 1);
    tree.write(&counter, "950");
    let sample = sampler.sample(TimeNs(3 * SECOND));
    assert!(values(&sample, &port()).contains(&("port_rcv_packets (count)", 50, 1_000_000_000)));
    // A reset: by how much it grew meanwhile cannot be known.
    tree.write(&counter, "3");
    assert_eq!(values(&sampler.sample(TimeNs(4 * SECOND)), &port()).len(), 1);
    tree.remove("sys/class/infiniband/mlx5_0");
    assert_eq!(sampler.sample(TimeNs(5 * SECOND)).values, []);
    tree.remove("sys/class/infiniband");
    sampler.sample(TimeNs(6 * SECOND));
    assert!(sampler.missing().iter().any(|m| m.starts_with("InfiniBand: ")), "{:?}", sampler.missing());
}

#[test]
fn nonsense_costs_its_own_values_only() {
    let tree = Tree::new();
    let counters = format!("{PORT}/counters");
    let good = format!("{counters}/good");
    for (name, content) in [
        ("empty", &b""[..]),
        ("text", b"N/A\n"),
        ("negative", b"-5\n"),
        ("huge", b"99999999999999999999999\n"),
        ("float", b"1.5\n"),
        ("binary", b"\xff\xfe\0\n"),
        ("two", b"1 2\n"),
        ("long", &[b'1'; 1 << 20]),
        ("padded", format!("1{}", " ".repeat(5000)).as_bytes()),
        ("good", b"1\n"),
    ] {
        tree.write(&format!("{counters}/{name}"), content);
    }
    tree.write(&format!("{counters}/na\nme"), "1");
    tree.write(&format!("{counters}/.hidden"), "1");
    tree.write(&format!("{counters}/{}", "n".repeat(65)), "1");
    tree.write(&format!("{counters}/folder/inside"), "1");
    tree.write(&format!("{PORT}/state"), "ACTIVE");
    tree.write(&format!("{PORT}/rate"), "fast");
    tree.write("sys/class/infiniband/file", "");
    tree.write("sys/class/infiniband/empty/ports", "");
    // A pipe that nobody writes to would hold a careless reader for ever.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path(&format!("{counters}/pipe")),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", tree.path(&format!("{counters}/endless"))).unwrap();
    std::os::unix::fs::symlink("round", tree.path(&format!("{counters}/round"))).unwrap();
    let mut sampler = tree.sampler(&[]);
    assert_eq!(sampler.sample(TimeNs(0)).values, []);
    tree.write(&good, "3");
    let sample = sampler.sample(TimeNs(SECOND));
    assert_eq!(values(&sample, &port()), [("good (count)", 2, 1_000_000_000)]);
    assert_eq!(sample.values.len(), 1);
}

#[test]
fn a_folder_without_end_is_read_up_to_a_bound() {
    let tree = Tree::new();
    for k in 0..1000 {
        tree.write(&format!("{PORT}/counters/c{k}"), "1");
    }
    let mut sampler = tree.sampler(&[]);
    sampler.sample(TimeNs(0));
    assert_eq!(sampler.sample(TimeNs(SECOND)).values.len(), 256);
}

const IDLE: &str =
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

fn pressure(some: u64, full: u64) -> String {
    format!(
        "some avg10=9.99 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
    )
}

fn write_pressure(tree: &Tree, folder: &str, suffix: &str, cpu: &str) {
    tree.write(&format!("{folder}/cpu{suffix}"), cpu);
    tree.write(&format!("{folder}/memory{suffix}"), IDLE);
    tree.write(&format!("{folder}/io{suffix}"), IDLE);
}

#[test]
fn pressure_is_told_of_the_host_and_of_cgroups() {
    let tree = Tree::new();
    let (host, group) = ("proc/pressure", "sys/fs/cgroup/job.slice/a");
    write_pressure(&tree, host, "", &pressure(5_000_000_000, 10));
    write_pressure(&tree, group, ".pressure", &pressure(7, 0));
    let mut sampler = tree.sampler(&["/job.slice/a", "/gone", "/../secret", "/job.slice/a"]);
    assert_eq!(sampler.sample(TimeNs(0)).values, []);
    assert_eq!(sampler.missing().len(), 1, "InfiniBand alone: {:?}", sampler.missing());
    write_pressure(&tree, host, "", &pressure(5_000_400_000, 10));
    write_pressure(&tree, group, ".pressure", &pressure(17, 9));
    let sample = sampler.sample(TimeNs(SECOND));
    let ns = 1_000_000_000;
    let all = |some, full| {
        [
            ("cpu pressure some (us)", some, ns),
            ("cpu pressure full (us)", full, ns),
            ("memory pressure some (us)", 0, ns),
            ("memory pressure full (us)", 0, ns),
            ("io pressure some (us)", 0, ns),
            ("io pressure full (us)", 0, ns),
        ]
    };
    assert_eq!(values(&sample, &Of::Host), all(400_000, 0));
    assert_eq!(values(&sample, &Of::Cgroup("/job.slice/a".into())), all(10, 9));
    assert_eq!(sample.values.len(), 12, "one cgroup, once");

    // On hosts with both versions of cgroups the second is beside the first.
    tree.write("sys/fs/cgroup/unified/b/cpu.pressure", pressure(1, 1));
    sampler.set_cgroups(["/b".to_owned()]);
    sampler.sample(TimeNs(2 * SECOND));
    let sample = sampler.sample(TimeNs(3 * SECOND));
    assert_eq!(values(&sample, &Of::Cgroup("/b".into())).len(), 2);
}

#[test]
fn pressure_that_is_switched_off_or_makes_no_sense_is_named_or_absent() {
    let tree = Tree::new();
    let mut sampler = tree.sampler(&[]);
    sampler.sample(TimeNs(0));
    assert!(sampler.missing().iter().any(|m| m.starts_with("pressure: ")), "{:?}", sampler.missing());
    tree.write(
        "proc/pressure/cpu",
        "some total=5 total=9\nfull\nsome\nwhole total=7\nfull avg10=1 total=-3\n",
    );
    tree.write("proc/pressure/memory", [0xff; 100]);
    let mut sampler = tree.sampler(&[]);
    sampler.sample(TimeNs(0));
    let sample = sampler.sample(TimeNs(SECOND));
    assert_eq!(values(&sample, &Of::Host), [("cpu pressure some (us)", 0, 1_000_000_000)]);
}

#[test]
fn this_machines_own_tree_is_read() {
    if !Path::new("/proc/pressure/cpu").exists() {
        eprintln!("skipped: this kernel has no pressure stall information");
        return;
    }
    let begin = Instant::now();
    let now = || TimeNs(i64::try_from(begin.elapsed().as_nanos()).unwrap());
    let mut sampler = Sampler::new(Options { nvml: None, ..Options::default() });
    sampler.sample(now());
    std::thread::sleep(Duration::from_millis(50));
    let sample = sampler.sample(now());
    let most_us = u64::try_from(begin.elapsed().as_micros()).unwrap();
    let pressure = values(&sample, &Of::Host);
    let some = pressure.iter().find(|(name, ..)| *name == "cpu pressure some (us)");
    let &(_, us, over_ns) = some.expect("the kernel has it");
    assert!(over_ns >= 50_000_000, "{over_ns}");
    // The kernel's clock is another, and may run a little faster.
    assert!(us <= most_us + most_us / 100 + 1_000, "more than all the time: {us} of {most_us} us");
}
