//! Level 0 of observation: what a host says of itself without anything in the job.
//!
//! | Source | Values |
//! |---|---|
//! | NVML (libnvidia-ml.so.1, opened when asked for) | clocks, utilisation, power, memory, errors, links, processes of each GPU and MIG instance |
//! | /sys/class/infiniband | counters of each port |
//! | /proc/pressure and `*.pressure` of cgroups | how long tasks waited for CPU, memory, I/O |
//!
//! What always holds: a value that a source does not give is absent, never 0. Reads are bounded, and files that come,
//! go or hold nonsense cost their own values only. Nothing here is needed by anything else: where a source is missing,
//! [`Sampler::missing`] says so by name.
//!
//! Calls of NVML take what the driver takes, and a GPU that has fallen off its bus can hold one for seconds. So a
//! sampler belongs on a thread of its own.

mod files;
mod infiniband;
mod names;
mod nvml;
mod pressure;
mod rows;
mod sample;
mod sampler;
mod totals;

pub use nvml::{Code, NvmlError};
pub use rows::{Rows, into_rows};
pub use sample::{Absent, GpuIdentity, GpuProcess, Mig, Name, Of, Sample, Value, Why, Xid};
pub use sampler::{Options, Sampler};
