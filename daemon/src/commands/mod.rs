//! One module a command.

mod export;
mod flamegraph;
mod import;
mod info;
mod report;

use std::path::Path;

use stallscope_core::capture::Capture;
use stallscope_core::ledger::{DeviceLedger, Options, all_ledgers};
use stallscope_core::weights::{self, Weight};
use stallscope_schemas::loss::LossCounter;

use crate::args::{Args, Command};
use crate::failure::{Failure, Outcome};
use crate::files::CaptureFile;

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Import(args) => import::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Diff(args) => report::diff(&args),
        Command::Flamegraph(args) => flamegraph::run(&args),
        Command::Export(args) => export::run(&args),
    }
}

/// The ledgers of a capture; one without any device is an error that says so.
fn ledgers(
    capture: &Capture<CaptureFile>,
    path: &Path,
    options: Options,
) -> Result<Vec<DeviceLedger>, Failure> {
    let ledgers = all_ledgers(capture, options)?;
    if ledgers.is_empty() {
        let damage = [LossCounter::CaptureTruncated, LossCounter::SegmentDamaged, LossCounter::BatchDamaged];
        if capture.losses().iter().any(|(c, _)| damage.iter().any(|d| d.id() == *c)) {
            return Err(Failure::NothingLeft(path.to_owned()));
        }
        return Err(Failure::Nothing { path: path.to_owned(), what: "GPU operations" });
    }
    Ok(ledgers)
}

/// Stacks of a capture by a weight.
fn folded(
    capture: &Capture<CaptureFile>,
    path: &Path,
    weight: Weight,
) -> Result<stallscope_core::folded::Folded, Failure> {
    Ok(match weight {
        Weight::Gpu => weights::gpu(capture, &mut ledgers(capture, path, Options { weigh_ops: true })?),
        Weight::GpuIdle => weights::gpu_idle(&ledgers(capture, path, Options::default())?, capture.tables()),
        Weight::Cpu => weights::cpu(capture),
    })
}
