//! Reads exports with parsers that are not ours (`tests/export_parsers`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

use crate::cli;

/// Exit code of a parser whose own needs are not met.
const NOT_INSTALLED: i32 = 77;

/// Where `cargo xtask setup` puts the Python packages.
fn python() -> PathBuf {
    let venv = cli::root().join("target/tools/venv/bin/python");
    if venv.is_file() { venv } else { PathBuf::from("python3") }
}

/// Has a parser read an export and compare it with what is expected. Where what the parser needs is not installed, that is said, and
/// fails only if `STALLSCOPE_REQUIRE_PARSERS` is set.
///
/// # Errors
/// What the parser found wrong.
pub fn parse_export<A: AsRef<str>>(script: &str, export: &Path, expected: &[A]) -> anyhow::Result<()> {
    let script = cli::root().join("tests/export_parsers").join(script);
    let expected = expected.iter().map(AsRef::as_ref);
    let output = Command::new(python()).arg(&script).arg(export).args(expected).output();
    let may_skip = std::env::var_os("STALLSCOPE_REQUIRE_PARSERS").is_none();
    let is_there = output.as_ref().is_ok_and(|output| output.status.code() != Some(NOT_INSTALLED));
    if !is_there && may_skip {
        println!("skipped: {} has not what it needs", script.display());
        return Ok(());
    }
    let output = output?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: String = said.chars().take(4000).collect();
    ensure!(
        output.status.success(),
        "{} ({}; is cargo xtask setup done?): {said}",
        script.display(),
        output.status
    );
    Ok(())
}
