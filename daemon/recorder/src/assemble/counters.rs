//! What the host and its GPUs say of themselves.

use std::io::Write;

use stallscope_core::capture::{Device, WriteError};
use stallscope_counters::{Sample, into_rows};
use stallscope_schemas::record::device_kind;

use super::{Assembler, Naming};

impl<W: Write, N: Naming> Assembler<W, N> {
    /// A look at the host's counters.
    pub(crate) fn counters(&mut self, sample: &Sample) -> Result<(), WriteError> {
        let tasks = &self.tasks;
        let writer = self.ingest.writer();
        let host = *self.host.get_or_insert_with(|| {
            writer.add_device(Device {
                source: tasks.source(),
                kind: device_kind::HOST,
                id: tasks.host().to_owned(),
                ..Device::default()
            })
        });
        let rows = into_rows(sample, host, |uuid| self.gpus.by_uuid(uuid), |name| writer.intern(name));
        rows.counters.into_iter().try_for_each(|(device, row)| writer.push_counter(device, row))
    }
}
