//! Names for addresses: turns the stacks that the kernel half took (addresses of a process, or of the kernel) into frames
//! that a person can read, while the process lives and after it died.
//!
//! ```text
//! process_seen ─▶ process: what is mapped where, a handle on every mapped file
//! user ─▶ object: one per file, shared by all processes ─▶ elf ─▶ image ─▶ blazesym ─▶ demangle ─▶ frames
//!      └▶ perf_map: code that a JIT compiler wrote
//! kernel ─▶ kallsyms                          frames + Python frames ─▶ merge ─▶ text, outermost first
//! ```
//!
//! What always holds here: the files of a target are hostile and may change while they are read. So blazesym never sees
//! them: it gets an image, a private copy of the symbol tables and of the debug information alone, with every length
//! checked. A target that truncates its library cannot kill the recorder with a bus error, a debug link cannot make it
//! open a file of the target's choice, a compressed section cannot make it allocate without bound. Files are reached by
//! handle (`/proc/PID/map_files`), or beneath the target's root and then only if device and inode are those that are
//! mapped. What has no name says why ([`Missing`]).
//!
//! Reading a target's file takes as long as its file system wants; give the [`Symbolizer`] a thread of its own.
#![forbid(unsafe_code)]

mod debug_file;
mod demangle;
mod elf;
mod frame;
mod image;
mod kallsyms;
mod limits;
mod maps;
mod merge;
mod object;
mod open;
mod perf_map;
mod process;
mod symbolizer;
mod unwind_index;
mod vdso;

pub use demangle::readable;
pub use frame::{Missing, NativeFrame, PythonFrame};
pub use limits::Limits;
pub use merge::{looks_cut, merge};
pub use process::ProcessError;
pub use symbolizer::{Footprint, Symbolizer};
