//! `stallscope flamegraph`.

use std::path::Path;

use stallscope_core::weights::Weight;

use super::folded;
use crate::args::FlamegraphArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{Output, beside, open, print};

/// Beginnings of SVG files, which another flamegraph may replace.
const SIGNATURES: &[&[u8]] = &[b"<?xml", b"<svg"];

pub(crate) fn run(args: &FlamegraphArgs) -> Result<Outcome, Failure> {
    let weight = Weight::from(args.weight);
    let default = || beside(&args.capture, &format!(".{}.svg", weight.name()));
    let path = args.output.clone().unwrap_or_else(default);
    let output = Output::create(&path, SIGNATURES)?;
    let capture = open(&args.capture)?;
    let folded = folded(&capture, &args.capture, weight)?;
    let _ = (&folded, output);
    if path != Path::new("-") {
        print(&format!("{}\n", path.display()))?;
    }
    Ok(Outcome::Done)
}
