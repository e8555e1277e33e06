//! NVML on the double, which is also what jobs of other tests run on. One test: its settings come from the environment,
//! which a process has once.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use stallscope_counters::{Options, Sample, Sampler};
use stallscope_schemas::units::TimeNs;

/// Where cargo has put the shared object that this test depends on.
fn library() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.parent().unwrap();
    let places = [folder.join("libdouble_nvml.so"), folder.join("../libdouble_nvml.so")];
    places.into_iter().find(|p| p.exists()).expect("cargo builds the double before what depends on it")
}

fn value(sample: &Sample, uuid: &str, name: &str) -> Option<u64> {
    let of = stallscope_counters::Of::Gpu(uuid.into());
    sample.values.iter().find(|v| v.of == of && v.name == name).map(|v| v.value)
}

#[test]
fn the_doubles_gpus_are_seen_as_its_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings");
    let gpus = "gpus=2\ngpu.1.mig=2\nnvml.0.processes=4242:512\nnvml.1.mig1.processes=77:8\n";
    // In one step, because the double may look at any moment, and with another time than before, which is what it looks
    // at: two files made in a row may have the same.
    let write = |more: &str, age: Duration| {
        let new = folder.path().join("new");
        std::fs::write(&new, format!("{gpus}{more}")).unwrap();
        let file = std::fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        std::fs::rename(&new, &settings).unwrap();
    };
    write(
        "nvml.0.clock_sm_mhz=1980\nnvml.0.nvlink3_tx_kib=1000\nnvml.0.power_mw=unsupported\n",
        Duration::from_secs(60),
    );
    // SAFETY: this is the only test of its program, and no other thread of it reads the environment meanwhile.
    unsafe { std::env::set_var("STALLSCOPE_DOUBLE_FILE", &settings) };
    let nowhere = folder.path().join("nothing");
    let mut sampler = Sampler::new(Options {
        sysfs: nowhere.clone(),
        procfs: nowhere,
        cgroups: Vec::new(),
        nvml: Some(library()),
    });
    let devices = sampler.devices();
    assert_eq!(devices.len(), 4, "{devices:?}");
    let uuids: Vec<&str> = devices.iter().map(|d| &*d.uuid).collect();
    let whole = uuids[0];
    assert!(whole.starts_with("GPU-d0b1e500-"), "{whole}");
    assert!(uuids[2].starts_with("MIG-") && uuids[3].starts_with("MIG-"), "{uuids:?}");
    let first = sampler.sample(TimeNs(0));
    assert_eq!(value(&first, whole, "sm clock (MHz)"), Some(1980));
    assert_eq!(value(&first, whole, "power (mW)"), None);
    assert_eq!(value(&first, uuids[1], "gpu utilisation (%)"), None, "a divided GPU has none");
    let processes: Vec<_> = first.processes.iter().map(|p| (&*p.gpu, p.pid, p.memory_bytes)).collect();
    assert_eq!(processes, [(whole, 4242, Some(512 << 20)), (uuids[3], 77, Some(8 << 20))]);

    write(
        "nvml.0.clock_sm_mhz=345\nnvml.0.nvlink3_tx_kib=1003\nnvml.0.xid=79\nnvml.0.power_mw=9\n",
        Duration::ZERO,
    );
    // The double looks at its settings now and then, perhaps in the middle of a sample.
    let until = Instant::now() + Duration::from_secs(30);
    let (mut at, mut grown, mut xids) = (0, 0, Vec::new());
    let mut look = |xids: &mut Vec<(String, u64)>| {
        at += 1;
        let sample = sampler.sample(TimeNs(at));
        grown += value(&sample, whole, "nvlink 3 sent (bytes)").unwrap();
        xids.extend(sample.events.iter().map(|xid| (xid.gpu.to_string(), xid.number)));
        (grown, value(&sample, whole, "power (mW)"), value(&sample, whole, "sm clock (MHz)"))
    };
    while xids.is_empty() {
        assert!(Instant::now() < until, "the double's settings never changed");
        look(&mut xids);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(look(&mut xids), (3 << 10, Some(9), Some(345)));
    assert_eq!(xids, [(whole.to_owned(), 79)], "told once");
}
