//! Runs the sections, one after the other, each as a process of its own: this executable, started again.
//!
//! What always holds: whatever a section does, its time ends, the report says how it ended, and the next one runs. The
//! report is written anew whenever something was found out, so that a run that is killed leaves all it had.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Signal, getppid, kill_current_process_group};

use super::context::{Context, notes_path};
use super::facts::Facts;
use super::limit::{self, Ended};
use super::notes::{self, Note};
use super::plan::{ALL_WITHIN, SECTIONS, Section};
use super::questions;
use super::report::{Part, Report, State, tail};

/// First argument that makes the executable a section's process.
pub const SECTION: &str = "--in-section";

/// There is no use in beginning a section with less.
const LEAST: Duration = Duration::from_secs(8);
/// How often a section looks whether the runner is still there.
const LOOK: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Folder of the programs.
    pub pack: PathBuf,
    /// Folder for the report.
    pub out: PathBuf,
    /// Python to use; else one is looked for.
    pub python: Option<String>,
    /// Sections.
    pub sections: Vec<&'static Section>,
}

/// Runs it; `show` is told how it goes.
///
/// # Errors
/// Where the programs are missing or the report cannot be written. What goes wrong in a section is in the report.
pub fn run(plan: &Plan, show: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let begun = Instant::now();
    for program in ["stallscope", "jobs/gpu_work", "jobs/gpu_facts.py"] {
        let path = plan.pack.join(program);
        ensure!(
            path.is_file(),
            "{} is not there: `cargo xtask gpu pack` makes a folder that has it",
            path.display()
        );
    }
    let here = |what: &str| format!("{what} in {}", plan.out.display());
    for folder in ["notes", "work", "captures"] {
        std::fs::create_dir_all(plan.out.join(folder)).with_context(|| here("cannot make folders"))?;
    }
    show("looking at the machine");
    let facts = Facts::gather(&plan.pack, &plan.out.join("work"), plan.python.as_deref());
    std::fs::write(plan.out.join("facts.json"), serde_json::to_vec_pretty(&facts)?)
        .with_context(|| here("cannot write"))?;
    let mut parts: Vec<Part> = plan.sections.iter().map(|section| Part::of(section)).collect();
    let report =
        |parts: &[Part]| Report::new(facts.clone(), parts.to_vec(), questions::parse(questions::PAGE));
    report(&parts).write(&plan.out).with_context(|| here("cannot write the report"))?;
    show(&report(&parts).standing);
    for (at, section) in plan.sections.iter().enumerate() {
        if section.on_gpu && !facts.has_device() {
            parts[at].state = State::Skipped;
            parts[at].notes = vec![Note::Skipped { what: String::new(), why: "there is no GPU".into() }];
            continue;
        }
        let limit = section.limit().min(ALL_WITHIN.saturating_sub(begun.elapsed()));
        if limit < LEAST {
            parts[at].notes = vec![Note::Skipped { what: String::new(), why: "no time was left".into() }];
            continue;
        }
        show(&format!("{}: {} (at most {} s)", section.name, section.title, limit.as_secs()));
        parts[at].state = State::Running;
        report(&parts).write(&plan.out).with_context(|| here("cannot write the report"))?;
        let part = one(plan, section, limit, &mut |notes, took| {
            parts[at].notes = notes;
            parts[at].took_s = took.as_secs_f64();
            // The disk may be full for a moment; the last write below says so.
            let _ = report(&parts).write(&plan.out);
        });
        parts[at] = part.with_context(|| here("cannot write"))?;
        show(&format!("{}: {}, {:.1} s", section.name, parts[at].state.name(), parts[at].took_s));
        report(&parts).write(&plan.out).with_context(|| here("cannot write the report"))?;
    }
    let report = report(&parts);
    report.write(&plan.out).with_context(|| here("cannot write the report"))?;
    Ok(report)
}

/// Runs one section in a process of its own.
fn one(
    plan: &Plan,
    section: &Section,
    limit: Duration,
    found: &mut dyn FnMut(Vec<Note>, Duration),
) -> anyhow::Result<Part> {
    let begun = Instant::now();
    let notes_at = notes_path(&plan.out, section.name);
    // Of an earlier run into the same folder.
    let _ = std::fs::remove_file(&notes_at);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SECTION).arg(section.name).arg(&plan.pack).arg(&plan.out).arg(limit.as_secs().to_string());
    let output = plan.out.join("work").join(format!("{}.log", section.name));
    let mut known = 0;
    let ended = limit::run(command, &output, limit, &mut || {
        let notes = notes::read(&notes_at);
        if notes.len() > known {
            known = notes.len();
            found(notes, begun.elapsed());
        }
    })?;
    let mut part = Part::of(section);
    part.notes = notes::read(&notes_at);
    part.took_s = begun.elapsed().as_secs_f64();
    part.state = State::of(ended, &part.notes);
    if part.state.is_bad() {
        part.said = tail(&output);
    }
    if ended == (Ended::OverTime { gone: false }) {
        part.notes.push(Note::Failed { what: "its process cannot be ended: it hangs in the kernel".into() });
    }
    // Large, and of no use once the section is over.
    let _ = std::fs::remove_file(plan.out.join("work").join(section.name).join("visit.stall"));
    Ok(part)
}

/// Ends this section with all it has started when the runner is gone, or did not end it in time: a runner that is killed,
/// or interrupted at a terminal, leaves nothing running.
fn end_with_the_runner(limit: Duration) -> anyhow::Result<()> {
    let (runner, begun) = (getppid(), Instant::now());
    let watch = move || {
        while getppid() == runner && begun.elapsed() < limit + LEAST {
            std::thread::sleep(LOOK);
        }
        // This process is in the group, and goes with it.
        let _ = kill_current_process_group(Signal::KILL);
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
    Ok(())
}

/// The section's own side of [`one`]: to be called first in `main`. Returns whether it was a section's turn.
///
/// # Errors
/// Where the section is not known, or cannot even note what went wrong.
pub fn section() -> anyhow::Result<bool> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [first, name, pack, out, limit] = arguments.as_slice() else { return Ok(false) };
    if first != SECTION {
        return Ok(false);
    }
    let section = SECTIONS.iter().find(|s| OsStr::new(s.name) == name).context("no such section")?;
    let (pack, out) = (Path::new(pack), Path::new(out));
    let limit =
        limit.to_str().and_then(|text| text.parse().ok()).map_or(section.limit(), Duration::from_secs);
    end_with_the_runner(limit)?;
    let facts = serde_json::from_slice(&std::fs::read(out.join("facts.json"))?)?;
    let mut context = Context::new(section.name, pack, out, facts, limit)?;
    if let Err(error) = (section.run)(&mut context) {
        eprintln!("{error:?}");
        context.fail(&format!("{error:#}"))?;
    }
    Ok(true)
}
