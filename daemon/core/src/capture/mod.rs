//! The capture format (`.stall`): append-only segments of encoded columns.
//!
//! A file is a 16-byte head followed by segments. A segment is a 24-byte prefix, a FlatBuffers header and a body; the
//! prefix and the header carry one checksum each, every batch of the body another, so that opening a capture touches
//! headers only and a flipped bit costs one batch. See `docs/capture-format.md`.
//!
//! Invariants:
//! - a file cut at any byte opens up to its last whole segment;
//! - what a damaged part held is counted, and its time becomes a loss window;
//! - memory is bounded by the file's own size, never by what a header claims.

mod batch;
pub mod columns;
mod frame;
mod ids;
mod join;
mod merge;
mod read_at;
mod reader;
mod relation;
mod segment;
mod tables;
mod writer;

pub use batch::{BatchColumns, ColumnSet};
pub use merge::{DamageNotes, Merged, MergedRows, Run};
pub use read_at::ReadAt;
pub use reader::{BatchInfo, Capture, CaptureError, Hole};
pub(crate) use relation::drift_ns;
pub use relation::{Moment, Relation, Shift};
pub use tables::{Clock, Device, Frame, Process, Source, Tables, Thread};
pub use writer::{CaptureWriter, WriteError, WriterOptions};

/// Version of the format: a reader refuses a higher major number and ignores what it does not know of a higher minor one.
pub const FORMAT_MAJOR: u16 = 1;
/// See [`FORMAT_MAJOR`].
pub const FORMAT_MINOR: u16 = 0;
