//! `stallscope report` and `stallscope diff`.

use std::io::Write;
use std::path::{Path, PathBuf};

use stallscope_core::capture::Capture;
use stallscope_core::folded::Folded;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::page::{Stacks, page};
use stallscope_core::report::{Diff, Report, render, render_diff};
use stallscope_core::weights::{gpu_idle, gpu_wait, has_followed_threads, off_cpu};
use stallscope_schemas::record::RecordKind;

use super::ledgers;
use crate::args::{DiffArgs, ReportArgs};
use crate::failure::{Failure, Outcome};
use crate::files::{CaptureFile, Output, Replace, open, open_together, output_failure, print, writer_name};

fn report_of(path: &Path) -> Result<Report, Failure> {
    let capture = open(path)?;
    let ledgers = ledgers(&capture, path, Options::default())?;
    Ok(Report::build(&capture, &ledgers))
}

/// The ledgers of a capture that may hold calls without time: those have none and are told all the same.
fn ledgers_or_calls(capture: &Capture<CaptureFile>, path: &Path) -> Result<Ledgers, Failure> {
    if capture.keys(RecordKind::GroupState).is_empty() {
        return ledgers(capture, path, Options::default());
    }
    Ok(Ledgers::of(capture, Options::default())?)
}

fn json_line(json: Result<String, serde_json::Error>) -> String {
    // Every key is a string and every value a number, text or list: serialising cannot fail.
    json.map_or_else(|e| format!("{{\"error\":\"{e}\"}}\n"), |text| text + "\n")
}

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let inputs: Vec<&Path> = std::iter::once(&args.capture).chain(&args.more).map(PathBuf::as_path).collect();
    let replace = Replace { suffixes: &[".html"], inputs: &inputs, force: args.force };
    let to_stdout = args.html.as_deref() == Some(Path::new("-"));
    if to_stdout && args.json {
        let what = "--html - and --json both write to standard output";
        return Err(Failure::Options { what, advice: "name a file with --html" });
    }
    // A name that is refused is refused before a large trace is read.
    let html = args.html.as_ref().map(|path| Output::create(path, &replace)).transpose()?;
    let capture = open_together(&args.capture, &args.more)?;
    let ledgers = ledgers_or_calls(&capture, &args.capture)?;
    let report = Report::build(&capture, &ledgers);
    let mut text = String::new();
    if let Some(mut output) = html {
        let page = html_page(&capture, &ledgers, &report, &args.capture);
        let path = args.html.as_deref().unwrap_or(Path::new("-"));
        output.write_all(page.as_bytes()).map_err(|e| output_failure(path, e))?;
        output.commit()?;
        if !to_stdout && !args.json {
            let devices = report.devices.len();
            text = format!("{}: {devices} devices, {} findings\n", path.display(), report.findings.len());
        }
    } else if !args.json {
        // Writing to a string cannot fail.
        let _ = render(&report, &mut text);
    }
    if args.json {
        text = json_line(report.to_json());
    }
    if !text.is_empty() {
        print(&text)?;
    }
    Ok(Outcome::Done)
}

/// The page, with the stacks of what the capture is about: lost GPU time where it has GPUs, else time off the CPU.
fn html_page(capture: &Capture<CaptureFile>, ledgers: &Ledgers, report: &Report, path: &Path) -> String {
    let tables = capture.tables();
    let (idle, waits) = (gpu_idle(&ledgers.gpus, tables), gpu_wait(&ledgers.gpus, tables));
    let mut stacks = Vec::new();
    if !ledgers.gpus.is_empty() {
        stacks.push(Stacks {
            what: "idle GPU time",
            how: "Width is idle time of all GPUs: the GPU, why it was idle, and what its host did meanwhile.",
            waits: false,
            folded: &idle,
        });
        stacks.push(Stacks {
            what: "GPU time lost to late ranks",
            how: "Width is time that GPUs waited for a late rank: which one, what made it late, and who waited.",
            waits: true,
            folded: &waits,
        });
    }
    let off: Folded;
    if ledgers.gpus.is_empty() && has_followed_threads(capture) {
        off = off_cpu(capture);
        stacks.push(Stacks {
            what: "time off the CPU",
            how: "Width is time of all followed threads off the CPU: process, thread, stack, and what it waited for.",
            waits: true,
            folded: &off,
        });
    }
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    page(report, &stacks, &name, &writer_name())
}

pub(crate) fn diff(args: &DiffArgs) -> Result<Outcome, Failure> {
    let diff = Diff::of(&report_of(&args.before)?, &report_of(&args.after)?);
    let mut text = String::new();
    if args.json {
        text = json_line(diff.to_json());
    } else {
        let _ = render_diff(&diff, &mut text);
    }
    print(&text)?;
    Ok(Outcome::Done)
}
