//! The runner of `cargo xtask gpu`, on the double: its own work is tested, nothing is said about a GPU. The sections that
//! attach need root; those used here need only that processes can be started.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stallscope_cupti_double::folder::{Version, make};
use stallscope_tests::cli::{root, stallscope};
use stallscope_tests::gpu::run::SECTION;

/// A folder as `cargo xtask gpu pack` makes it, and the double beside it.
struct Pack {
    folder: tempfile::TempDir,
}

impl Pack {
    /// `None`, said, where there is no C compiler.
    fn new() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let (pack, sources) = (folder.path().join("pack"), root().join("tests/jobs"));
        std::fs::create_dir_all(pack.join("jobs"))?;
        symlink(stallscope()?, pack.join("stallscope"))?;
        for entry in std::fs::read_dir(&sources)? {
            let name = entry?.file_name();
            if name.to_string_lossy().ends_with(".py") {
                symlink(sources.join(&name), pack.join("jobs").join(&name))?;
            }
        }
        let work = pack.join("jobs/gpu_work");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-pthread", "-Wall", "-Werror", "-o"])
            .arg(&work)
            .arg(sources.join("gpu_work.c"));
        let Ok(output) = compiler.arg("-ldl").output() else {
            println!("skipped: no C compiler");
            return Ok(None);
        };
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        make(&folder.path().join("lib"), Version::V12_8)?;
        Ok(Some(Self { folder }))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn runner(&self, out: &Path, double: bool) -> Command {
        let mut runner = Command::new(env!("CARGO_BIN_EXE_gpu"));
        runner.arg("--pack").arg(self.at("pack")).arg("--out").arg(out);
        runner.env_remove("LD_LIBRARY_PATH");
        if double {
            runner.env("LD_LIBRARY_PATH", self.at("lib")).env("STALLSCOPE_DOUBLE", "gpus=1");
        }
        runner
    }
}

macro_rules! pack {
    () => {
        match Pack::new()? {
            Some(pack) => pack,
            None => return Ok(()),
        }
    };
}

fn report(out: &Path) -> anyhow::Result<(String, Value)> {
    let text = std::fs::read_to_string(out.join("report.md")).context("no report")?;
    Ok((text, serde_json::from_slice(&std::fs::read(out.join("report.json"))?)?))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_section_on_the_double_is_reported_as_such_and_answers_nothing() -> anyhow::Result<()> {
    let pack = pack!();
    let out = pack.at("out");
    let output = pack.runner(&out, true).args(["attach-torch", "kernel", "--json"]).output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let (text, json) = report(&out)?;
    let first = text.lines().next().unwrap_or_default();
    assert!(first.contains("double") && first.contains("no figure here is a GPU's"), "{first}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout)?, json, "--json prints the report");
    let states: Vec<&Value> =
        json["sections"].as_array().context("sections")?.iter().map(|s| &s["state"]).collect();
    assert_eq!(states, ["skipped", "done"], "no PyTorch with CUDA, and a doctor that answers");
    assert!(text.contains("skipped: no torch with CUDA"), "{text}");
    let answered = json["questions"]
        .as_array()
        .context("questions")?
        .iter()
        .filter(|q| q["answers"] != serde_json::json!([]));
    assert_eq!(answered.count(), 0);
    Ok(())
}

#[test]
fn a_section_that_crashes_or_hangs_is_named_and_the_next_one_runs() -> anyhow::Result<()> {
    let pack = pack!();
    // The facts are asked of a work program that works; what comes after that crashes, and then hangs.
    let (work, real) = (pack.at("pack/jobs/gpu_work"), pack.at("pack/jobs/real"));
    std::fs::rename(&work, &real)?;
    let wrapper = |then: &str| {
        let script =
            format!("#!/bin/sh\ncase $1 in mode=facts) exec {} \"$@\";; esac\n{then}\n", real.display());
        std::fs::write(&work, script)?;
        std::fs::set_permissions(&work, std::fs::Permissions::from_mode(0o755))
    };
    wrapper("echo lost the device >&2; kill -SEGV $$")?;
    let out = pack.at("crash");
    let output =
        pack.runner(&out, true).args(["cycles", "kernel", "--python", "/nonexistent/python3"]).output()?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let (text, json) = report(&out)?;
    assert_eq!(
        (&json["sections"][0]["state"], &json["sections"][1]["state"]),
        (&"failed".into(), &"done".into())
    );
    assert!(text.contains("signal: 11") && text.contains("lost the device"), "{text}");

    // One second for a section, as the runner gives it to its own process; what it starts never begins to count.
    wrapper("exec sleep 1000")?;
    let notes = out.join("notes/cycles.jsonl");
    std::fs::remove_file(&notes)?;
    let mut section = Command::new(env!("CARGO_BIN_EXE_gpu"));
    section.arg(SECTION).arg("cycles").arg(pack.at("pack")).arg(&out).arg("1");
    let log = pack.at("log");
    let ended =
        stallscope_tests::gpu::limit::run(section, &log, std::time::Duration::from_secs(1), &mut || {})?;
    let state = stallscope_tests::gpu::report::State::of(ended, &stallscope_tests::gpu::notes::read(&notes));
    assert_eq!(state, stallscope_tests::gpu::report::State::OverTime);
    Ok(())
}

#[test]
fn without_a_gpu_nothing_is_claimed() -> anyhow::Result<()> {
    let pack = pack!();
    let out = pack.at("out");
    let output =
        pack.runner(&out, false).args(["cycles", "kernel", "--python", "/nonexistent/python3"]).output()?;
    let (text, json) = report(&out)?;
    if json["facts"]["driver"] != serde_json::json!({}) {
        println!("skipped: this machine has a GPU");
        return Ok(());
    }
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(text.starts_with("**No GPU: nothing here says anything about one.**"), "{text}");
    assert_eq!(json["sections"][0]["state"], "skipped");
    assert!(said(&output).contains("nothing was measured"));
    assert!(text.contains("| Python |  () |"), "no Python was found: {text}");
    Ok(())
}

#[test]
fn what_cannot_be_run_is_refused_with_a_reason() -> anyhow::Result<()> {
    let pack = pack!();
    let refused = |mut runner: Command| {
        let output = runner.output()?;
        anyhow::Ok((output.status.code(), said(&output)))
    };
    let mut unknown = pack.runner(&pack.at("out"), true);
    unknown.arg("cycle");
    let (code, why) = refused(unknown)?;
    assert!(code == Some(2) && why.contains("there is no section cycle; there are attach-driver"), "{why}");
    // A file is where the folder should be: root may write everywhere else.
    std::fs::write(pack.at("file"), "")?;
    let (code, why) = refused(pack.runner(&pack.at("file"), true))?;
    assert!(code == Some(1) && why.contains("cannot make"), "{why}");
    std::fs::remove_file(pack.at("pack/jobs/gpu_work"))?;
    let (code, why) = refused(pack.runner(&pack.at("out"), true))?;
    assert!(code == Some(1) && why.contains("cargo xtask gpu pack"), "{why}");
    Ok(())
}
