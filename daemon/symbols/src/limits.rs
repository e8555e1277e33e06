//! How much the symboliser may hold.

use std::time::Duration;

/// Bounds on what a [`Symbolizer`](crate::Symbolizer) holds and reads. The default keeps four ranks of PyTorch far below
/// the recorder's 150 MiB.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Mapped files that are held open, over all processes. PyTorch maps about 200 different ones.
    pub open_files: usize,
    /// Symbol tables and debug information in private copies, over all files, counted as if all of them were touched;
    /// the least recently used go first, the last one stays.
    pub image_bytes: u64,
    /// Symbol table and names of one file; a larger file has no names. Debian's libtorch_cpu 1.13 has 4 MB, libLLVM 22 has 24.
    pub symbol_bytes: u64,
    /// Debug information of one file after decompression; a larger file has names, but no lines and no inlined frames.
    pub debug_bytes: u64,
    /// Length of a perf map that is read.
    pub perf_map_bytes: u64,
    /// Executable mappings remembered for one process.
    pub mappings: usize,
    /// Addresses whose frames are remembered, over all files.
    pub cached_addresses: usize,
    /// Processes that are gone and still have stacks to be resolved; the oldest are forgotten first.
    pub gone_processes: usize,
    /// Least time between two readings of a process's mappings or perf map because an address was not in them.
    pub reread_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_files: 1024,
            image_bytes: 80 << 20,
            symbol_bytes: 80 << 20,
            debug_bytes: 32 << 20,
            perf_map_bytes: 32 << 20,
            mappings: 16_384,
            cached_addresses: 50_000,
            gone_processes: 64,
            reread_pause: Duration::from_millis(500),
        }
    }
}
