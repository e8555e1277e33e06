//! Stand-in for libnccl.so.2, for tests only: it proves our plumbing and our attribution, never NVIDIA's behaviour.
//!
//! A collective is a kernel of libcuda's stand-in that starts when its stream reaches it. Ranks tell each other when theirs
//! starts, which is known as soon as it is decided and may lie in the future; it ends for all of them at
//!
//! ```text
//! end = latest start over the ranks + transfer time
//! ```
//!
//! so waiting and transfer are known exactly, whatever the network and the scheduler did to the messages. [`root`] is
//! where ranks find each other, [`comm`] a communicator, [`board`] what ranks of one machine write for each other to read,
//! [`meeting`] who has arrived where, [`launch`] the kernels, `api` the functions.

mod api;
mod board;
mod comm;
mod cost;
mod launch;
mod meeting;
mod message;
mod root;
