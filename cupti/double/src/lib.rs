//! Stand-ins for libcuda, libcudart, libcupti, libnccl and NVML, for tests only.
//!
//! They prove our plumbing and our attribution, never NVIDIA's behaviour; nothing but tests and demos loads them, and
//! the product does not depend on this crate. [`folder`] makes a folder of shared objects with the names that programs
//! expect, [`truth`] is what those write down, [`settings`] what they can be told. `docs/double.md` is the manual.

pub mod folder;

pub use stallscope_double_shared::{settings, truth};
