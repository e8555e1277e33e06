//! Real jobs on this host, for the demonstration and the tests: a file that is slow, ranks under mpirun.

pub mod gpu;
pub mod hostile;
pub mod job;
pub mod lab;
pub mod slow_file;
pub mod torch;
