//! Large inputs, made once and kept.

use std::path::PathBuf;

use anyhow::Context;

use crate::job_capture::{self, JobShape};
use crate::{big_capture, cli, demo, repeat};

/// Where inputs are kept.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = cli::target_dir().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// The trace that is repeated: a real one where there is one, else the shipped one.
fn seed() -> (PathBuf, &'static str) {
    let real = crate::scoreboard::ground_truth().map(|g| g.join("kineto/resnet50_num_workers_0.json.gz"));
    match real.filter(|path| path.is_file()) {
        Some(path) => (path, "real"),
        None => (demo::trace_path(0), "demo"),
    }
}

/// A trace of so many MB.
pub(super) fn trace(megabytes: u64, extension: &str) -> anyhow::Result<PathBuf> {
    let (seed, kind) = seed();
    kept(&format!("{kind}-{megabytes}mb.{extension}"), |path| {
        repeat::repeat_to_file(&seed, megabytes * 1_000_000, path).map(|_| ())
    })
}

/// A capture of so many GPUs with so many operations each.
pub(super) fn capture(gpus: u32, ops: u64) -> anyhow::Result<PathBuf> {
    kept(&format!("{gpus}x{ops}.stall"), |path| big_capture::write_file(path, gpus, ops).map(|_| ()))
}

/// A capture of a job with its hosts.
pub(super) fn job(shape: JobShape) -> anyhow::Result<PathBuf> {
    let JobShape { ranks, ops, collective_every } = shape;
    let name = format!("job-{ranks}x{ops}-{collective_every}.stall");
    kept(&name, |path| job_capture::write_file(path, shape).map(|_| ()))
}

/// A file that is made under another name first, so that half a file is never taken for a whole one.
fn kept(name: &str, make: impl FnOnce(&std::path::Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let path = folder()?.join(name);
    if !path.is_file() {
        eprintln!("bench: making {}", path.display());
        // The extension stays last: it says whether the file is compressed.
        let partial = path.with_file_name(format!("partial-{name}"));
        make(&partial)?;
        std::fs::rename(&partial, &path)?;
    }
    Ok(path)
}
