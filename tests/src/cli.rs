//! Builds and runs the program from outside, and reads its JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The root of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The executable: the one that STALLSCOPE names, else one built here, once, in the profile of the caller.
///
/// It is built into a folder of its own: cargo would otherwise replace, under tests that run beside this one, the
/// executable that they were given.
///
/// # Errors
/// When it does not build.
pub fn stallscope() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("STALLSCOPE") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|e| format!("{e:#}")),
    });
    built.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

/// Where build products of this workspace go.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "--quiet", "--package", "stallscope", "--message-format=json"]);
    cargo.arg("--target-dir").arg(target_dir().join("cli-under-test"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the program does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let artifacts = String::from_utf8_lossy(&output.stdout);
    let messages = artifacts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from));
    executables
        .find(|e| e.file_stem().is_some_and(|s| s == "stallscope"))
        .context("cargo names no executable")
}

/// Runs the program.
///
/// # Errors
/// When it cannot be built or started.
pub fn run<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> anyhow::Result<Output> {
    Ok(Command::new(stallscope()?).args(args).output()?)
}

/// Runs the program and returns what it prints, as JSON.
///
/// # Errors
/// When it fails or prints something else.
pub fn run_json<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> anyhow::Result<Value> {
    let output = run(args)?;
    if !output.status.success() {
        bail!("stallscope ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("stallscope printed something that is not JSON")
}

/// Imports traces into a capture.
///
/// # Errors
/// When the program refuses.
pub fn import(traces: &[PathBuf], capture: &Path) -> anyhow::Result<()> {
    let mut args = vec![Path::new("import")];
    args.extend(traces.iter().map(PathBuf::as_path));
    args.extend([Path::new("-o"), capture]);
    let output = run(args)?;
    ensure!(output.status.success(), "import failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Imports traces and returns the report's JSON.
///
/// # Errors
/// When the program refuses.
pub fn report(traces: &[PathBuf]) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("run.stall");
    import(traces, &capture)?;
    run_json([Path::new("report"), &capture, Path::new("--json")])
}
