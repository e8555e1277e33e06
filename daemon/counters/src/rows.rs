//! A sample as rows of a capture.

use stallscope_core::rows::Counter;
use stallscope_schemas::units::{DeviceId, StringId, TimeNs};

use crate::names;
use crate::sample::{Of, Sample};

/// The rows of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Values, each with its device.
    pub counters: Vec<(DeviceId, Counter)>,
    /// Values, processes and errors of GPUs that the capture does not have.
    pub left_out: u64,
}

/// Turns a sample into rows.
///
/// `gpu` finds the device of a GPU or MIG instance by UUID: a host has GPUs that the job does not use. All that is not
/// about a GPU belongs to `host`, a device of kind `device_kind::HOST`; names of ports and cgroups then begin with which
/// one they are about. The memory of a process is a counter of its own, and so is an Xid error: its number, at the
/// moment of the sample. `intern` makes string ids of names.
pub fn into_rows(
    sample: &Sample,
    host: DeviceId,
    gpu: impl Fn(&str) -> Option<DeviceId>,
    mut intern: impl FnMut(&str) -> StringId,
) -> Rows {
    let mut rows = Rows::default();
    let mut add = |device: Option<DeviceId>, name: &str, value: u64, over_ns: u64| match device {
        Some(device) => {
            let start = TimeNs(sample.at.0.saturating_sub_unsigned(over_ns));
            let counter = Counter { start, duration_ns: over_ns, name: intern(name), value };
            rows.counters.push((device, counter));
        }
        None => rows.left_out += 1,
    };
    for value in &sample.values {
        let (name, of) = (&value.name, Some(host));
        let (device, name) = match &value.of {
            Of::Host => (of, name.clone()),
            Of::Gpu(uuid) => (gpu(uuid), name.clone()),
            Of::Port(port) => (of, format!("port {port} {name}").into()),
            Of::Cgroup(path) => (of, format!("cgroup {path} {name}").into()),
        };
        add(device, &name, value.value, value.over_ns);
    }
    for process in &sample.processes {
        if let Some(bytes) = process.memory_bytes {
            add(gpu(&process.gpu), &names::memory_of(process.pid), bytes, 0);
        }
    }
    for xid in &sample.events {
        add(gpu(&xid.gpu), names::XID, xid.number, 0);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{GpuProcess, Value, Xid};

    #[test]
    fn every_value_becomes_a_row_of_its_device_and_names_say_what_they_are_about() {
        let value = |of, name: &'static str, value, over_ns| Value { of, name: name.into(), value, over_ns };
        let process = |gpu: &str, memory_bytes| GpuProcess { gpu: gpu.into(), pid: 7, memory_bytes };
        let sample = Sample {
            at: TimeNs(1_000),
            values: vec![
                value(Of::Host, "cpu pressure some (us)", 5, 100),
                value(Of::Port("mlx5_0/1".into()), "state (number)", 4, 0),
                value(Of::Cgroup("/a".into()), "io pressure full (us)", 9, 200),
                value(Of::Gpu("GPU-a".into()), "sm clock (MHz)", 1980, 0),
                value(Of::Gpu("GPU-b".into()), "sm clock (MHz)", 300, 0),
            ],
            processes: vec![process("GPU-a", Some(4096)), process("GPU-a", None), process("GPU-b", Some(1))],
            events: vec![Xid { gpu: "GPU-a".into(), number: 79 }],
            absent: Vec::new(),
        };
        let mut names: Vec<String> = Vec::new();
        let rows = into_rows(
            &sample,
            DeviceId(9),
            |uuid| (uuid == "GPU-a").then_some(DeviceId(3)),
            |name| {
                names.push(name.to_owned());
                StringId(u32::try_from(names.len()).unwrap() - 1)
            },
        );
        let seen: Vec<(u32, i64, u64, &str, u64)> = rows
            .counters
            .iter()
            .map(|(device, c)| (device.0, c.start.0, c.duration_ns, names[c.name.index()].as_str(), c.value))
            .collect();
        assert_eq!(
            seen,
            [
                (9, 900, 100, "cpu pressure some (us)", 5),
                (9, 1_000, 0, "port mlx5_0/1 state (number)", 4),
                (9, 800, 200, "cgroup /a io pressure full (us)", 9),
                (3, 1_000, 0, "sm clock (MHz)", 1980),
                (3, 1_000, 0, "memory of pid 7 (bytes)", 4096),
                (3, 1_000, 0, "xid (number)", 79),
            ]
        );
        assert_eq!(rows.left_out, 2);
    }
}
