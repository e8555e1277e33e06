//! What recording GPUs needs: the driver, a CUPTI for the agent in each process that uses CUDA (docs/agent.md). NCCL is
//! looked for as well: its calls are recorded without anything of this host.
//!
//! Jobs may bring a CUPTI of their own, and mostly do: one of the host's is for those that do not.

use std::fs;
use std::path::{Path, PathBuf};

use stallscope_ebpf::Standing;
use stallscope_jobs::{Collective, Host};

use super::{Check, Group, Seen, degraded, missing};

/// Entries of a folder that are looked at, and files that are kept of each library.
const ENTRIES: usize = 4096;
const KEPT: usize = 16;
/// The loader's cache has about 100 bytes a library.
const CACHE_BYTES: u64 = 16 << 20;

/// Where libraries are that the loader does not know of. A `*` stands for any part of one name.
const PLACES: &[&str] = &[
    "usr/local/cuda*/extras/CUPTI/lib64",
    "usr/local/cuda*/targets/*/lib",
    "usr/local/cuda*/lib64",
    "opt/cuda/extras/CUPTI/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib/python3*/*-packages/nvidia/*/lib",
    "usr/local/lib/python3*/*-packages/nvidia/*/lib",
    "opt/*/lib/python3*/site-packages/nvidia/*/lib",
    "root/*/lib/python3*/site-packages/nvidia/*/lib",
    "home/*/*/lib/python3*/site-packages/nvidia/*/lib",
];

/// Files of the libraries that are looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Libraries {
    cupti: Vec<PathBuf>,
    nccl: Vec<PathBuf>,
}

impl Libraries {
    pub(super) fn find(root: &Path) -> Self {
        let mut places: Vec<PathBuf> = PLACES.iter().flat_map(|place| matching(root, place)).collect();
        places.extend(cached(root));
        let find = |name: &str| {
            let mut files: Vec<PathBuf> = Vec::new();
            for place in &places {
                // A symbolic link and what it leads to are one library.
                files.extend(matching(place, name).iter().filter_map(|file| fs::canonicalize(file).ok()));
            }
            files.sort();
            files.dedup();
            files.truncate(KEPT);
            let shown = |file: PathBuf| match file.strip_prefix(root) {
                Ok(inside) => Path::new("/").join(inside),
                Err(_) => file,
            };
            files.into_iter().map(shown).collect()
        };
        Self { cupti: find("libcupti.so*"), nccl: find("libnccl.so*") }
    }
}

/// What is at a path below the root, in which names may have one `*`.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        let Some((before, after)) = part.split_once('*') else {
            found = found.into_iter().map(|path| path.join(part)).filter(|path| path.exists()).collect();
            continue;
        };
        let fits = |name: &str| {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        };
        let entries = |path: &PathBuf| fs::read_dir(path).into_iter().flatten().take(ENTRIES);
        let names = found.iter().flat_map(entries).filter_map(Result::ok);
        found = names
            .filter(|entry| entry.file_name().to_str().is_some_and(fits))
            .take(ENTRIES)
            .map(|entry| entry.path())
            .collect();
    }
    found
}

/// Folders in which the loader's cache has one of the libraries.
fn cached(root: &Path) -> Vec<PathBuf> {
    let cache = super::facts::bytes(root, "etc/ld.so.cache", CACHE_BYTES);
    let is_ours = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        path.starts_with('/') && (name.starts_with("libcupti.so") || name.starts_with("libnccl.so"))
    };
    let paths =
        cache.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).filter(is_ours);
    let folders = paths.filter_map(|path| Some(root.join(Path::new(path).parent()?.strip_prefix("/").ok()?)));
    folders.take(KEPT).collect()
}

pub(super) fn checks(seen: &Seen) -> Vec<Check> {
    vec![driver(seen), cupti(seen), nccl(seen)]
}

fn driver(seen: &Seen) -> Check {
    let facts = &seen.facts;
    let (finding, standing) = match &facts.nvidia_driver {
        Some(line) => {
            let version = driver_version(line).unwrap_or("of unknown version");
            let devices = facts.nvidia_devices;
            let found = format!("driver {version}, device files: {devices}");
            let standing = if devices > 0 && facts.nvidia_uvm {
                Standing::Works
            } else {
                missing(
                    "the driver is loaded, and its device files are not all here",
                    "on the host: sudo nvidia-modprobe -c0 -u; in a container: docker run --gpus all …",
                )
            };
            (found, standing)
        }
        None => (
            "none".to_owned(),
            missing(
                "no /proc/driver/nvidia/version",
                "none needed without NVIDIA GPUs; else install the driver until nvidia-smi lists them",
            ),
        ),
    };
    Check::new("gpu.nvidia_driver", Group::Gpu, "NVIDIA driver", finding, standing)
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  …`: the first word of digits and dots.
fn driver_version(line: &str) -> Option<&str> {
    line.split_ascii_whitespace()
        .find(|word| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn cupti(seen: &Seen) -> Check {
    let (finding, standing) = match named(&seen.libraries.cupti) {
        Some(files) => {
            (format!("{files}; the agent takes the job's own first, of 11.8 to 13.x"), Standing::Works)
        }
        None if seen.facts.nvidia_driver.is_some() => (
            "libcupti.so is in no usual place of this host".to_owned(),
            degraded(
                "GPU work of jobs that bring no CUPTI of their own (PyTorch brings one)",
                "install the CUPTI of the job's CUDA: with the toolkit, or pip install nvidia-cuda-cupti-cu12",
            ),
        ),
        None => (
            "not found".to_owned(),
            missing(
                "libcupti.so is in no usual place of this host",
                "none needed without NVIDIA GPUs; else it comes with CUDA, or: pip install nvidia-cuda-cupti-cu12",
            ),
        ),
    };
    Check::new("gpu.cupti", Group::Gpu, "CUPTI", finding, standing)
}

fn nccl(seen: &Seen) -> Check {
    let ranks = seen.processes.iter().flat_map(Host::jobs).flat_map(|job| &job.ranks);
    let users = ranks.filter(|rank| rank.collectives.iter().any(|c| c.kind == Collective::Nccl)).count();
    let used = format!("ranks that have it mapped: {users}");
    let (finding, standing) = match named(&seen.libraries.nccl) {
        Some(files) => (format!("{files}; {used}"), Standing::Works),
        None if users > 0 => (used, Standing::Works),
        None => (
            format!("not found; {used}"),
            missing(
                "libnccl.so is in no usual place of this host, and no rank has it mapped",
                "none needed: a job brings its own, and its calls are recorded wherever it is mapped from",
            ),
        ),
    };
    Check::new("gpu.nccl", Group::Gpu, "NCCL", finding, standing)
}

/// `/usr/lib/libx.so.1 and 2 more`
fn named(files: &[PathBuf]) -> Option<String> {
    let first = files.first()?.display();
    Some(match files.len() {
        1 => first.to_string(),
        n => format!("{first} and {} more", n - 1),
    })
}
