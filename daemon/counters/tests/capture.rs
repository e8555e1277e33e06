//! From files of a made-up host to a capture and to a Perfetto trace.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use stallscope_core::capture::{Capture, CaptureWriter, Device, WriterOptions};
use stallscope_core::export::perfetto::write_perfetto;
use stallscope_core::rows::Counter;
use stallscope_counters::{Options, Sampler, into_rows};
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::TimeNs;

#[test]
fn samples_end_up_in_the_capture_and_as_tracks_of_the_host() {
    let tree = tempfile::tempdir().unwrap();
    let port = tree.path().join("sys/class/infiniband/mlx5_0/ports/1");
    let pressure = tree.path().join("proc/pressure");
    std::fs::create_dir_all(port.join("counters")).unwrap();
    std::fs::create_dir_all(&pressure).unwrap();
    let mut sampler = Sampler::new(Options {
        sysfs: tree.path().join("sys"),
        procfs: tree.path().join("proc"),
        cgroups: Vec::new(),
        nvml: None,
    });
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let host =
        writer.add_device(Device { kind: device_kind::HOST, id: "node7".to_owned(), ..Device::default() });
    let begin = 1_700_000_000_000_000_000;
    for second in 0..4 {
        std::fs::write(port.join("state"), "4: ACTIVE").unwrap();
        std::fs::write(port.join("counters/port_rcv_data"), format!("{}", 1000 * second)).unwrap();
        std::fs::write(pressure.join("io"), format!("some avg10=0.00 total={}\n", 7 * second)).unwrap();
        let sample = sampler.sample(TimeNs(begin + second * 1_000_000_000));
        let rows = into_rows(&sample, host, |_| None, |name| writer.intern(name));
        assert_eq!(rows.left_out, 0);
        for (device, counter) in rows.counters {
            writer.push_counter(device, counter).unwrap();
        }
    }
    let (bytes, _) = writer.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    let rows: Vec<Counter> = capture.rows(host.0).collect();
    let of = |name: &str| -> Vec<(i64, u64, u64)> {
        let named = rows.iter().filter(|row| capture.tables().string(row.name) == name);
        named.map(|row| (row.start.0 - begin, row.duration_ns, row.value)).collect()
    };
    let s = 1_000_000_000;
    let state = [(0, 0, 4), (s, 0, 4), (2 * s, 0, 4), (3 * s, 0, 4)];
    assert_eq!(of("port mlx5_0/1 state (number)"), state);
    let grown = |value| [(0, 1_000_000_000, value), (s, 1_000_000_000, value), (2 * s, 1_000_000_000, value)];
    assert_eq!(of("port mlx5_0/1 port_rcv_data (bytes)"), grown(4000));
    assert_eq!(of("io pressure some (us)"), grown(7));
    let mut trace = Vec::new();
    let summary = write_perfetto(&capture, &mut trace).unwrap();
    assert_eq!((summary.values, summary.slices, summary.left_out), (10, 0, 0));
}
