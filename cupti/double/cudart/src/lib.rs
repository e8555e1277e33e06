//! Stand-in for libcudart.so, for tests only: it proves our plumbing, never NVIDIA's behaviour.
//!
//! Every function tells libcuda's stand-in that a call of the runtime begins, makes calls of the driver's API, and
//! tells that it ends; so CUPTI has records of the runtime, and of the calls inside with `cudart.nested`. A thread that
//! has no context gets its device's primary one.

mod api;
mod driver;
