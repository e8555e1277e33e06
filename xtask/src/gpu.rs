//! `cargo xtask gpu`: a small folder with all that a machine with a GPU needs, and a run where there is one.
//!
//! What always holds: the folder needs no network, no Rust and no compiler where it is carried to; nothing is claimed
//! where there is no GPU (the runner, tests/src/gpu, ends with 3 then).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::shell::{cargo, command, find, root, run, target_dir};

/// What the runner ends with where there is no GPU.
const NO_GPU: i32 = 3;
/// The folder travels, perhaps over a slow line: what grows past this is looked at.
const SMALL_BYTES: u64 = 64 << 20;

/// `cargo xtask gpu`: makes the folder and, unless `pack` is asked for, runs these sections here.
pub(crate) fn gpu(what: Vec<String>, pack: Option<PathBuf>, out: Option<PathBuf>) -> anyhow::Result<()> {
    // Programs are run in the root of the workspace, which is not where a relative path was given.
    let folder = std::path::absolute(pack.unwrap_or_else(|| target_dir().join("gpu-pack")))?;
    make(&folder)?;
    if what == ["pack"] {
        return Ok(());
    }
    let mut runner = Command::new(folder.join("gpu"));
    runner.arg("--out").arg(out.unwrap_or_else(|| target_dir().join("gpu-report"))).args(what);
    let status = runner.status().context("cannot start the runner")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(NO_GPU) => bail!(
            "no GPU here, and nothing is claimed. Carry {} to a machine that has one (root, no network needed) and run \
             ./gpu --out FOLDER there; docs/gpu/README.md says the rest",
            folder.display()
        ),
        _ => bail!("the runner ended with {status}: the report says which section went wrong"),
    }
}

/// Builds the folder anew.
fn make(folder: &Path) -> anyhow::Result<()> {
    let built = target_dir().join("release");
    run(cargo().args(["build", "--quiet", "--release", "--package", "stallscope"]))?;
    run(cargo().args(["build", "--quiet", "--release", "--package", "stallscope-tests", "--bin", "gpu"]))?;
    let jobs = folder.join("jobs");
    fs::create_dir_all(&jobs).with_context(|| format!("cannot make {}", jobs.display()))?;
    for program in ["stallscope", "gpu"] {
        copy(&built.join(program), &folder.join(program))?;
        if find("strip").is_some() {
            run(command("strip").arg(folder.join(program)))?;
        }
    }
    let sources = root().join("tests/jobs");
    for entry in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("gpu_") {
            copy(&sources.join(&name), &jobs.join(&name))?;
        }
    }
    // It loads libcuda.so.1 itself: nothing of CUDA is needed to build it, and a static executable could not.
    let mut compiler = command("cc");
    compiler.args(["-O2", "-pthread", "-o"]).arg(jobs.join("gpu_work")).arg(sources.join("gpu_work.c"));
    run(compiler.arg("-ldl"))?;
    copy(&root().join("docs/gpu/README.md"), &folder.join("README.md"))?;
    let programs = [folder.join("stallscope"), folder.join("gpu"), jobs.join("gpu_work")];
    let glibc = programs.iter().filter_map(|program| needed_glibc(&fs::read(program).ok()?)).max();
    let bytes = size(folder)?;
    println!("{}: {:.1} MB", folder.display(), bytes as f64 / 1e6);
    if let Some((major, minor)) = glibc {
        println!("it runs where glibc is {major}.{minor} or newer (ldd --version says which)");
    }
    if bytes > SMALL_BYTES {
        println!("that is more than the {} MiB that it should have at most", SMALL_BYTES >> 20);
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    // An executable that runs cannot be written to, but replaced.
    if to.exists() {
        fs::remove_file(to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

/// The newest version of glibc whose symbols an executable names.
fn needed_glibc(executable: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let version = |at: usize| {
        let rest = &executable[at + MARK.len()..];
        let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
        let text = std::str::from_utf8(&rest[..end]).ok()?;
        let mut numbers = text.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let marks = executable.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    marks.filter_map(|(at, _)| version(at)).max()
}

#[cfg(test)]
mod tests {
    use super::needed_glibc;

    #[test]
    fn the_newest_version_that_is_named_is_needed() {
        let bytes = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
        assert_eq!(needed_glibc(bytes), Some((2, 34)));
        assert_eq!(needed_glibc(b"static"), None);
    }
}
