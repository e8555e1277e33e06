//! What the agent in a job and the daemon agree on: the arguments that start the agent, and the memory that both map.
//!
//! Both sides are Rust, so this crate is the one definition; it has no dependencies because the agent has none.
//!
//! What always holds:
//! - The ring has one producer (the agent's own thread) and one consumer (the daemon). It never blocks the producer.
//! - The daemon writes `tail` and the control words only, the agent everything else. Neither believes the other: every
//!   value is checked before it is used as a size or an index.
//! - A record is one slot of 64 bytes; a name is a head slot and as many slots of text as it needs.
//!
//! Memory becomes a [`Ring`] in one place; [`Writer`] is the agent's side of it and [`Reader`] the daemon's. Whoever maps
//! memory of the job must have it sealed against shrinking (F_SEAL_SHRINK), or the job can end the daemon by cutting it.
#![no_std]
#![deny(unsafe_code)]

mod header;
mod reader;
mod record;
mod ring;
mod start;
mod writer;

pub use header::{
    CUPTI_PATH_BYTES, Command, Detached, HEADER_BYTES, Header, LOST_COUNTERS, Lost, MAGIC, Reason, State,
    VERSION,
};
pub use reader::{Faults, Item, NameBuffer, Reader};
pub use record::{
    Kind, Record, SLOT_BYTES, TEXT_BYTES, api, clock, device, graph, halves, launch_flags, loss, memory,
    name, op, op_flags, overhead, range, sync,
};
pub use ring::{MAX_SLOTS, MIN_SLOTS, Ring, RingError, ring_bytes};
pub use start::{ENTRY, RING_NAME, StartArguments, start_flags};
pub use writer::Writer;
