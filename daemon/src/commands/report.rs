//! `stallscope report` and `stallscope diff`.

use std::path::Path;

use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::{Diff, Report, render, render_diff};
use stallscope_schemas::record::RecordKind;

use super::ledgers;
use crate::args::{DiffArgs, ReportArgs};
use crate::failure::{Failure, Outcome};
use crate::files::{open, print};

fn report_of(path: &Path) -> Result<Report, Failure> {
    let capture = open(path)?;
    let ledgers = ledgers(&capture, path, Options::default())?;
    Ok(Report::build(&capture, &ledgers))
}

/// A report on a capture that may hold calls without time: those have no ledger and are told all the same.
fn report_on(path: &Path) -> Result<Report, Failure> {
    let capture = open(path)?;
    if capture.keys(RecordKind::GroupState).is_empty() {
        let ledgers = ledgers(&capture, path, Options::default())?;
        return Ok(Report::build(&capture, &ledgers));
    }
    Ok(Report::build(&capture, &Ledgers::of(&capture, Options::default())?))
}

fn json_line(json: Result<String, serde_json::Error>) -> String {
    // Every key is a string and every value a number, text or list: serialising cannot fail.
    json.map_or_else(|e| format!("{{\"error\":\"{e}\"}}\n"), |text| text + "\n")
}

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let report = report_on(&args.capture)?;
    let mut text = String::new();
    if args.json {
        text = json_line(report.to_json());
    } else {
        // Writing to a string cannot fail.
        let _ = render(&report, &mut text);
    }
    print(&text)?;
    Ok(Outcome::Done)
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
