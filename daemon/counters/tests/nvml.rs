//! NVML through a stand-in whose answers each test writes: values, refusals, layouts, and functions that are missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use stallscope_counters::{Code, Name, Of, Options, Sample, Sampler, Why};
use stallscope_schemas::units::TimeNs;

const SECOND: i64 = 1_000_000_000;

/// A library of a test's own, and the file of its answers.
struct StandIn {
    folder: tempfile::TempDir,
    answers: Vec<(String, String)>,
}

impl StandIn {
    fn compiled(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in.c");
        let done = Command::new("cc")
            .args([
                "-shared",
                "-fPIC",
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unused-function",
                source,
                "-o",
            ])
            .arg(folder.path().join("libnvidia-ml.so.1"))
            .args(flags)
            .output()
            .expect("cc is there where Rust programs are linked");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut stand_in = Self { folder, answers: Vec::new() };
        stand_in.set(&[("gpus", "1")]);
        stand_in
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    /// Answers from now on; `!15` refuses with code 15.
    fn set(&mut self, answers: &[(&str, &str)]) {
        self.answers.extend(answers.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
        let mut text = String::new();
        for (key, value) in &self.answers {
            writeln!(text, "{key}={value}").unwrap();
        }
        std::fs::write(self.folder.path().join("libnvidia-ml.so.1.values"), text).unwrap();
    }

    /// Starts and stops of the library so far.
    fn log(&self) -> Vec<String> {
        let text =
            std::fs::read_to_string(self.folder.path().join("libnvidia-ml.so.1.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Looks at the library and nothing else.
    fn sampler(&self) -> Sampler {
        let nowhere = self.folder.path().join("nothing");
        Sampler::new(Options {
            sysfs: nowhere.clone(),
            procfs: nowhere,
            cgroups: Vec::new(),
            nvml: Some(self.library()),
        })
    }
}

fn gpu(uuid: &str) -> Of {
    Of::Gpu(uuid.into())
}

/// Names and values of one device.
fn values<'s>(sample: &'s Sample, uuid: &str) -> Vec<(&'s str, u64, u64)> {
    let of = gpu(uuid);
    sample.values.iter().filter(|v| v.of == of).map(|v| (&*v.name, v.value, v.over_ns)).collect()
}

fn value(sample: &Sample, uuid: &str, name: &str) -> Option<u64> {
    values(sample, uuid).iter().find(|(n, ..)| *n == name).map(|&(_, value, _)| value)
}

fn why(sample: &Sample, uuid: &str, name: &str) -> Option<Why> {
    let absent = sample.absent.iter().find(|a| a.of == gpu(uuid) && a.name == name);
    absent.map(|a| a.why)
}

#[test]
fn every_answer_becomes_a_value_and_changes_with_it() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[
        ("gpu0.utilisation_gpu", "97"),
        ("gpu0.utilisation_memory", "41"),
        ("gpu0.clock1", "1980"),
        ("gpu0.clock2", "2619"),
        ("gpu0.reasons", "68"),
        ("gpu0.power", "699500"),
        ("gpu0.temperature0", "71"),
        ("gpu0.used", "50000000000"),
        ("gpu0.ecc0", "3"),
        ("gpu0.ecc1", "1"),
        ("gpu0.replays", "4000000000"),
        ("gpu0.generation", "4"),
        ("gpu0.generation_max", "5"),
        ("gpu0.width", "8"),
        ("gpu0.width_max", "16"),
        ("gpu0.pcie_rate0", "123"),
        ("gpu0.pcie_rate1", "4100000000"),
    ]);
    let mut sampler = stand_in.sampler();
    let devices = sampler.devices();
    let device = devices.first().unwrap();
    assert_eq!((&*device.uuid, &*device.name, device.index, &device.mig), ("GPU-0", "Stand-in", 0, &None));
    assert_eq!(sampler.driver(), Some("555.42.02"));
    let sample = sampler.sample(TimeNs(0));
    assert_eq!(
        values(&sample, "GPU-0"),
        [
            ("gpu utilisation (%)", 97, 0),
            ("memory utilisation (%)", 41, 0),
            ("sm clock (MHz)", 1980, 0),
            ("memory clock (MHz)", 2619, 0),
            ("clock throttle reasons (bits)", 68, 0),
            ("power (mW)", 699_500, 0),
            ("temperature (C)", 71, 0),
            ("memory used (bytes)", 50_000_000_000, 0),
            ("ecc corrected errors (count)", 3, 0),
            ("ecc uncorrected errors (count)", 1, 0),
            ("pcie replays (count)", 4_000_000_000, 0),
            ("pcie link generation (number)", 4, 0),
            ("pcie link generation max (number)", 5, 0),
            ("pcie link width (lanes)", 8, 0),
            ("pcie link width max (lanes)", 16, 0),
            ("pcie sent (KB/s)", 123, 0),
            ("pcie received (KB/s)", 4_100_000_000, 0),
        ]
    );
    stand_in.set(&[("gpu0.clock1", "345"), ("gpu0.power", "0")]);
    let sample = sampler.sample(TimeNs(SECOND));
    assert_eq!(value(&sample, "GPU-0", "sm clock (MHz)"), Some(345));
    assert_eq!(value(&sample, "GPU-0", "power (mW)"), Some(0), "0 that is said is 0");
}

#[test]
fn what_is_refused_is_absent_with_its_code_and_comes_back() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("gpu0.power", "!15"), ("gpu0.clock1", "!4"), ("gpu0.replays", "!777")]);
    let mut sampler = stand_in.sampler();
    let sample = sampler.sample(TimeNs(0));
    assert_eq!(values(&sample, "GPU-0"), []);
    for (name, code, text) in [
        ("power (mW)", 15, "the GPU is lost"),
        ("sm clock (MHz)", 4, "no permission"),
        ("pcie replays (count)", 777, "NVML's code 777"),
        ("gpu utilisation (%)", 3, "not supported"),
        ("temperature (C)", 3, "not supported"),
        ("memory used (bytes)", 3, "not supported"),
        ("memory used and reserved (bytes)", 3, "not supported"),
        ("processes (count)", 3, "not supported"),
        ("nvlinks (count)", 3, "not supported"),
    ] {
        let why = why(&sample, "GPU-0", name).unwrap_or_else(|| panic!("{name} is neither there nor absent"));
        assert_eq!((why, why.to_string().as_str()), (Why::Code(Code(code)), text), "{name}");
    }
    stand_in.set(&[("gpu0.power", "17")]);
    assert_eq!(value(&sampler.sample(TimeNs(SECOND)), "GPU-0", "power (mW)"), Some(17));
}

#[test]
fn links_tell_their_state_and_by_how_much_their_traffic_grew() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[
        ("gpu0.field91.0.small", "3"),
        ("gpu0.link_active0", "1"),
        ("gpu0.link_active1", "0"),
        // The first counts KiB as older links do, the second bytes; the third counts nothing.
        ("gpu0.field138.0", "1000"),
        ("gpu0.field139.0", "5"),
        ("gpu0.field202.1", "70000000000"),
        ("gpu0.field138.1", "1"),
        ("gpu0.field161.1", "9"),
        ("gpu0.field163.0.small", "2"),
        ("gpu0.field162.0.negative", "2"),
        ("gpu0.field162.1.double", "2"),
    ]);
    let mut sampler = stand_in.sampler();
    let first = sampler.sample(TimeNs(0));
    assert_eq!(value(&first, "GPU-0", "nvlinks (count)"), Some(3));
    assert_eq!(value(&first, "GPU-0", "nvlink 0 sent (bytes)"), None, "nothing is known of before");
    stand_in.set(&[
        ("gpu0.field138.0", "1003"),
        ("gpu0.field202.1", "70000000500"),
        ("gpu0.field138.1", "90"),
    ]);
    let sample = sampler.sample(TimeNs(SECOND / 10));
    let seen: Vec<_> =
        values(&sample, "GPU-0").into_iter().filter(|(name, ..)| name.starts_with("nvlink ")).collect();
    assert_eq!(
        seen,
        [
            ("nvlink 0 active (0 or 1)", 1, 0),
            ("nvlink 0 sent (bytes)", 3 << 10, 100_000_000),
            ("nvlink 0 received (bytes)", 0, 100_000_000),
            ("nvlink 0 crc errors (count)", 2, 0),
            ("nvlink 1 active (0 or 1)", 0, 0),
            ("nvlink 1 sent (bytes)", 500, 100_000_000),
            ("nvlink 1 replays (count)", 9, 0),
        ]
    );
    assert_eq!(why(&sample, "GPU-0", "nvlink 0 recoveries (count)"), Some(Why::Unclear), "negative");
    assert_eq!(why(&sample, "GPU-0", "nvlink 1 recoveries (count)"), Some(Why::Unclear), "a fraction");
    assert_eq!(why(&sample, "GPU-0", "nvlink 2 sent (bytes)"), Some(Why::Code(Code::NOT_SUPPORTED)));
    // A count that fell has begun anew: what it grew by is unknown.
    stand_in.set(&[("gpu0.field202.1", "8")]);
    assert_eq!(value(&sampler.sample(TimeNs(SECOND)), "GPU-0", "nvlink 1 sent (bytes)"), None);
}

#[test]
fn a_library_that_claims_absurdly_many_links_is_not_asked_for_all() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("gpu0.field91.0", "18446744073709551615"), ("gpu0.fields", "0")]);
    let sample = stand_in.sampler().sample(TimeNs(0));
    let links: Vec<&Name> =
        sample.absent.iter().map(|a| &a.name).filter(|name| name.ends_with(" sent (bytes)")).collect();
    assert_eq!(links.len(), 36);
    stand_in.set(&[("gpu0.fields", "!999")]);
    let sample = stand_in.sampler().sample(TimeNs(0));
    assert_eq!(why(&sample, "GPU-0", "nvlinks (count)"), Some(Why::Code(Code::UNKNOWN)));
}

#[test]
fn bytes_on_pcie_count_only_where_they_cannot_wrap_between_two_looks() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[
        ("gpus", "2"),
        // The type says 64 bits for both; the value of the second shows it.
        ("gpu0.field197.0", "4000000000"),
        ("gpu0.field198.0", "4000000000"),
        ("gpu1.field197.0", "5000000000"),
        ("gpu1.field198.0", "17"),
        ("gpu0.pcie_rate0", "11"),
        ("gpu0.pcie_rate1", "12"),
        ("gpu1.pcie_rate0", "13"),
    ]);
    let mut sampler = stand_in.sampler();
    sampler.sample(TimeNs(0));
    stand_in.set(&[
        ("gpu0.field197.0", "4100000000"),
        ("gpu1.field197.0", "5000000100"),
        ("gpu1.field198.0", "20"),
    ]);
    let sample = sampler.sample(TimeNs(SECOND));
    let pcie = |uuid| -> Vec<(&str, u64, u64)> {
        let all = values(&sample, uuid);
        all.into_iter()
            .filter(|(name, ..)| name.starts_with("pcie sent") || name.starts_with("pcie rec"))
            .collect()
    };
    assert_eq!(pcie("GPU-0"), [("pcie sent (KB/s)", 11, 0), ("pcie received (KB/s)", 12, 0)]);
    assert_eq!(
        pcie("GPU-1"),
        [("pcie sent (bytes)", 100, 1_000_000_000), ("pcie received (bytes)", 3, 1_000_000_000)]
    );
}

#[test]
fn traffic_that_has_to_be_measured_is_measured_one_gpu_at_a_time() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("gpus", "3")]);
    for gpu in 0..3 {
        stand_in.set(&[(&format!("gpu{gpu}.pcie_rate0"), "5")]);
    }
    let mut sampler = stand_in.sampler();
    let mut measured = Vec::new();
    for second in 0..6 {
        let sample = sampler.sample(TimeNs(second * SECOND));
        let found: Vec<_> =
            (0..3).filter(|g| value(&sample, &format!("GPU-{g}"), "pcie sent (KB/s)").is_some()).collect();
        assert_eq!(found.len(), 1);
        measured.extend(found);
    }
    assert_eq!(measured, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn processes_are_read_in_every_layout_and_however_many() {
    for words in [2, 3, 4] {
        let mut stand_in = StandIn::compiled(&[&format!("-DPROCESS_WORDS={words}")]);
        for count in [0u32, 1, 2, 32, 33, 1000] {
            stand_in.set(&[("gpu0.processes", &count.to_string())]);
            let sample = stand_in.sampler().sample(TimeNs(0));
            let seen: Vec<_> = sample.processes.iter().map(|p| (&*p.gpu, p.pid, p.memory_bytes)).collect();
            let expected: Vec<_> =
                (0..count).map(|i| ("GPU-0", 1000 + i, (i > 0).then_some(u64::from(i) << 20))).collect();
            assert_eq!(seen, expected, "{words} words, {count} processes");
        }
        // More than any GPU has: refused, not cut.
        stand_in.set(&[("gpu0.processes", "1000000")]);
        let sample = stand_in.sampler().sample(TimeNs(0));
        assert_eq!(sample.processes, []);
        assert_eq!(why(&sample, "GPU-0", "processes (count)"), Some(Why::Code(Code::INSUFFICIENT_SIZE)));
    }
    let mut stand_in = StandIn::compiled(&["-DPROCESS_WORDS=6"]);
    stand_in.set(&[("gpu0.processes", "2")]);
    let sample = stand_in.sampler().sample(TimeNs(0));
    assert_eq!(why(&sample, "GPU-0", "processes (count)"), Some(Why::Unclear), "a layout of the future");
}

#[test]
fn instances_of_a_divided_gpu_have_memory_and_processes_of_their_own() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[
        ("gpu0.instances_max", "7"),
        ("gpu0.power", "300000"),
        ("gpu0.processes", "5"),
        ("gpu0.mig1.there", "1"),
        ("gpu0.mig1.gpu_instance", "9"),
        ("gpu0.mig1.compute_instance", "0"),
        ("gpu0.mig1.used", "4096"),
        ("gpu0.mig1.processes", "1"),
        ("gpu0.mig3.there", "1"),
        ("gpu0.mig3.used", "8192"),
    ]);
    let mut sampler = stand_in.sampler();
    let devices = sampler.devices();
    let seen: Vec<_> = devices.iter().map(|d| (&*d.uuid, &*d.name, d.index)).collect();
    let name = "Stand-in MIG 1g.10gb";
    assert_eq!(seen, [("GPU-0", "Stand-in", 0), ("MIG-0-1", name, 0), ("MIG-0-3", name, 0)]);
    let mig = devices.get(1).and_then(|d| d.mig.as_ref()).unwrap();
    assert_eq!((&*mig.parent, mig.gpu_instance, mig.compute_instance), ("GPU-0", Some(9), Some(0)));
    let sample = sampler.sample(TimeNs(0));
    assert_eq!(values(&sample, "GPU-0"), [("power (mW)", 300_000, 0)]);
    assert_eq!(values(&sample, "MIG-0-1"), [("memory used (bytes)", 4096, 0)]);
    assert_eq!(values(&sample, "MIG-0-3"), [("memory used (bytes)", 8192, 0)]);
    let processes: Vec<_> = sample.processes.iter().map(|p| (&*p.gpu, p.pid)).collect();
    assert_eq!(processes, [("MIG-0-1", 1000)]);

    // Instances go and come while we run: the list is good for ten seconds.
    stand_in.set(&[("gpu0.mig1.there", "!6"), ("gpu0.mig2.there", "1"), ("gpu0.mig2.used", "1")]);
    let sample = sampler.sample(TimeNs(9 * SECOND));
    assert_eq!(values(&sample, "MIG-0-2"), []);
    let sample = sampler.sample(TimeNs(11 * SECOND));
    assert_eq!(values(&sample, "MIG-0-2"), [("memory used (bytes)", 1, 0)]);
    assert_eq!(values(&sample, "MIG-0-1"), []);
    assert_eq!(sampler.devices().len(), 3);
}

#[test]
fn errors_are_told_once_and_blamed_on_the_instance_that_is_named() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[
        ("gpus", "2"),
        ("gpu0.event_types", "15"),
        ("gpu1.event_types", "8"),
        ("gpu1.instances_max", "2"),
        ("gpu1.mig0.there", "1"),
        ("gpu1.mig0.gpu_instance", "3"),
        ("gpu1.mig0.compute_instance", "0"),
    ]);
    let mut sampler = stand_in.sampler();
    assert_eq!(sampler.sample(TimeNs(0)).events, []);
    stand_in.set(&[
        ("event0.gpu", "0"),
        ("event0.xid", "79"),
        ("event1.gpu", "1"),
        ("event1.xid", "31"),
        ("event1.gi", "3"),
        ("event1.ci", "0"),
        ("event2.gpu", "1"),
        ("event2.xid", "94"),
        ("event2.gi", "4"),
    ]);
    let told = |sample: &Sample| -> Vec<(String, u64)> {
        sample.events.iter().map(|e| (e.gpu.to_string(), e.number)).collect()
    };
    let sample = sampler.sample(TimeNs(SECOND));
    let expected = [("GPU-0", 79), ("MIG-1-0", 31), ("GPU-1", 94)];
    assert_eq!(told(&sample), expected.map(|(gpu, number)| (gpu.to_owned(), number)));
    // Listing again asks for nothing twice: the stand-in sends nonsense to whoever does.
    assert_eq!(told(&sampler.sample(TimeNs(20 * SECOND))), []);
    stand_in.set(&[("event3.gpu", "0"), ("event3.xid", "48")]);
    assert_eq!(told(&sampler.sample(TimeNs(21 * SECOND))), [("GPU-0".to_owned(), 48)]);
}

#[test]
fn a_flood_of_errors_ends_the_sample_all_the_same_and_trouble_with_them_is_named() {
    let mut stand_in = StandIn::compiled(&[]);
    let mut events: Vec<(String, &str)> = vec![("gpu0.event_types".to_owned(), "8")];
    for k in 0..300 {
        events.push((format!("event{k}.gpu"), "0"));
        events.push((format!("event{k}.xid"), "13"));
    }
    let events: Vec<(&str, &str)> = events.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    stand_in.set(&events);
    let mut sampler = stand_in.sampler();
    assert_eq!(sampler.sample(TimeNs(0)).events.len(), 256);
    assert_eq!(sampler.sample(TimeNs(SECOND)).events.len(), 44);
    let named =
        |sampler: &Sampler| sampler.missing().iter().any(|m| m == "NVML: Xid errors: the GPU is lost");
    assert!(!named(&sampler));
    stand_in.set(&[("wait", "!15")]);
    sampler.sample(TimeNs(2 * SECOND));
    assert!(named(&sampler), "{:?}", sampler.missing());
}

#[test]
fn an_old_library_yields_what_it_can() {
    let mut stand_in = StandIn::compiled(&["-DOLD", "-DPROCESS_WORDS=2"]);
    stand_in.set(&[
        ("gpu0.reasons", "4"),
        ("gpu0.temperature0", "50"),
        ("gpu0.used_and_reserved", "777"),
        ("gpu0.processes", "2"),
    ]);
    let sample = stand_in.sampler().sample(TimeNs(0));
    assert_eq!(
        values(&sample, "GPU-0"),
        [
            ("clock throttle reasons (bits)", 4, 0),
            ("temperature (C)", 50, 0),
            ("memory used and reserved (bytes)", 777, 0),
        ]
    );
    assert_eq!(sample.processes.len(), 2);
    for name in ["memory used (bytes)", "nvlinks (count)"] {
        assert_eq!(why(&sample, "GPU-0", name), Some(Why::Code(Code::FUNCTION_NOT_FOUND)), "{name}");
    }
}

#[test]
fn a_library_without_functions_yields_gpus_and_nothing_else() {
    let stand_in = StandIn::compiled(&["-DBARE"]);
    let mut sampler = stand_in.sampler();
    assert_eq!(sampler.devices().len(), 1);
    let sample = sampler.sample(TimeNs(0));
    assert_eq!((sample.values.len(), sample.processes.len(), sample.events.len()), (0, 0, 0));
    assert!(!sample.absent.is_empty());
    for absent in &sample.absent {
        assert_eq!(absent.why, Why::Code(Code::FUNCTION_NOT_FOUND), "{}", absent.name);
    }
    let missing = sampler.missing();
    let xid = "NVML: Xid errors of GPU-0: this version of NVML lacks the function";
    assert!(missing.iter().any(|m| m == xid), "{missing:?}");
}

#[test]
fn a_library_that_cannot_be_used_is_named_with_the_reason() {
    let reason = |sampler: Sampler| sampler.missing().into_iter().find(|m| m.starts_with("NVML")).unwrap();
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("init", "!9")]);
    assert_eq!(reason(stand_in.sampler()), "NVML: it does not start: the driver is not loaded");
    let headless = StandIn::compiled(&["-DBARE", "-DNO_INIT"]);
    let named = reason(headless.sampler());
    assert!(named.ends_with("libnvidia-ml.so.1 has no nvmlInit_v2"), "{named}");
    std::fs::remove_file(headless.library()).unwrap();
    let named = reason(headless.sampler());
    assert!(named.contains("libnvidia-ml.so.1: cannot open shared object file"), "{named}");
    std::fs::write(headless.library(), "not a library").unwrap();
    let named = reason(headless.sampler());
    assert!(named.contains("libnvidia-ml.so.1"), "{named}");
}

#[test]
fn one_gpu_that_is_lost_costs_the_others_nothing() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("gpus", "3"), ("gpu1.state", "!15"), ("gpu0.power", "1"), ("gpu2.power", "3")]);
    let mut sampler = stand_in.sampler();
    let sample = sampler.sample(TimeNs(0));
    assert_eq!(value(&sample, "GPU-0", "power (mW)"), Some(1));
    assert_eq!(value(&sample, "GPU-2", "power (mW)"), Some(3));
    assert_eq!(sampler.devices().len(), 2);
    assert!(sampler.missing().iter().any(|m| m == "NVML: GPU 1: the GPU is lost"), "{:?}", sampler.missing());
}

#[test]
fn the_library_is_started_once_and_left_as_it_was() {
    let stand_in = StandIn::compiled(&[]);
    let mut sampler = stand_in.sampler();
    sampler.sample(TimeNs(0));
    sampler.sample(TimeNs(60 * SECOND));
    assert_eq!(stand_in.log(), ["init"]);
    drop(sampler);
    assert_eq!(stand_in.log(), ["init", "free", "shutdown"]);
}

#[test]
fn a_sampler_may_move_to_a_thread_of_its_own() {
    let mut stand_in = StandIn::compiled(&[]);
    stand_in.set(&[("gpu0.power", "5")]);
    let mut sampler = stand_in.sampler();
    let sample = std::thread::spawn(move || sampler.sample(TimeNs(0))).join().unwrap();
    assert_eq!(value(&sample, "GPU-0", "power (mW)"), Some(5));
}
