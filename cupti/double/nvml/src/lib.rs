//! Stand-in for libnvidia-ml.so.1, for tests only: it proves our plumbing, never NVIDIA's behaviour.
//!
//! Nothing is measured: every value is a setting (`nvml.GPU.KEY`, see `docs/double.md`), so a test that changes the
//! settings' file sees the change in the counters. Devices are those of the made-up machine, whatever
//! `CUDA_VISIBLE_DEVICES` says.

mod api;
mod events;
mod links;
mod values;
