//! How fast this machine is at the least that a task needs.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use flate2::read::GzDecoder;

/// Reading a file that is in the page cache, MB/s.
pub(super) fn read_file(path: &Path) -> anyhow::Result<f64> {
    rate(File::open(path)?)
}

/// Inflating a gzip file, MB/s of what comes out.
pub(super) fn inflate(path: &Path) -> anyhow::Result<f64> {
    rate(GzDecoder::new(File::open(path)?))
}

fn rate(mut input: impl Read) -> anyhow::Result<f64> {
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, start) = (0_usize, Instant::now());
    loop {
        let got = input.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        bytes += black_box(&buffer[..got]).len();
    }
    Ok(bytes as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Reading memory that no cache holds, GB/s on one core.
pub(super) fn memory() -> f64 {
    let words = vec![1_u64; 32 << 20];
    let start = Instant::now();
    let sum: u64 = words.iter().copied().fold(0, u64::wrapping_add);
    black_box(sum);
    size_of_val(words.as_slice()) as f64 / 1e9 / start.elapsed().as_secs_f64()
}
