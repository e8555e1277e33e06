//! One module a command.

mod doctor;
mod export;
mod flamegraph;
mod import;
mod info;
mod launch;
mod ps;
mod record;
mod report;

use std::path::Path;

use stallscope_core::capture::Capture;
use stallscope_core::folded::Folded;
use stallscope_core::ledger::{DeviceLedger, Ledgers, Options, all_ledgers, cpu_ledgers};
use stallscope_core::weights::{self, Weight, has_followed_threads};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{RecordKind, device_kind};

use crate::args::{Args, Command};
use crate::failure::{Failure, Outcome};
use crate::files::CaptureFile;

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Record(args) => record::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Diff(args) => report::diff(&args),
        Command::Flamegraph(args) => flamegraph::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Ps(args) => ps::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// The ledgers of a capture; one without any device is an error that says so.
fn ledgers(capture: &Capture<CaptureFile>, path: &Path, options: Options) -> Result<Ledgers, Failure> {
    let ledgers = Ledgers::of(capture, options)?;
    if ledgers.is_empty() {
        return Err(nothing(capture, path));
    }
    Ok(ledgers)
}

/// The ledgers of a capture that is asked about its GPUs.
fn gpu_ledgers(
    capture: &Capture<CaptureFile>,
    path: &Path,
    options: Options,
) -> Result<Vec<DeviceLedger>, Failure> {
    let ledgers = all_ledgers(capture, options)?;
    if ledgers.is_empty() && has_followed_threads(capture) {
        let what = "GPU operations; of threads there are the weights cpu, off-cpu and wait";
        return Err(Failure::Nothing { path: path.to_owned(), what });
    }
    if ledgers.is_empty() { Err(nothing(capture, path)) } else { Ok(ledgers) }
}

fn nothing(capture: &Capture<CaptureFile>, path: &Path) -> Failure {
    if damaged(capture) {
        return Failure::NothingLeft(path.to_owned());
    }
    let ranks = capture.tables().devices().iter().any(|d| d.kind == device_kind::CPU);
    let what = if ranks { "GPU operations and no records of threads" } else { "GPU operations" };
    Failure::Nothing { path: path.to_owned(), what }
}

/// Whether some of it could not be read.
fn damaged(capture: &Capture<CaptureFile>) -> bool {
    let damage = [LossCounter::CaptureTruncated, LossCounter::SegmentDamaged, LossCounter::BatchDamaged];
    capture.losses().iter().any(|(c, _)| damage.iter().any(|d| d.id() == *c))
}

/// Waits are asked for: an error where no thread was followed.
fn followed(capture: &Capture<CaptureFile>, path: &Path) -> Result<(), Failure> {
    if has_followed_threads(capture) {
        return Ok(());
    }
    // Of a capture with GPUs that are left it is not known whether it had threads.
    if damaged(capture) && capture.keys(RecordKind::GpuOp).is_empty() {
        return Err(Failure::NothingLeft(path.to_owned()));
    }
    Err(Failure::Nothing { path: path.to_owned(), what: "waits of threads" })
}

/// The weight that shows what was lost: idle GPUs where there are any, else threads that wait.
fn natural_weight(capture: &Capture<CaptureFile>) -> Weight {
    let has_gpus = !capture.keys(RecordKind::GpuOp).is_empty();
    if !has_gpus && has_followed_threads(capture) { Weight::OffCpu } else { Weight::GpuIdle }
}

/// Stacks of a capture by a weight.
fn folded(capture: &Capture<CaptureFile>, path: &Path, weight: Weight) -> Result<Folded, Failure> {
    Ok(match weight {
        Weight::Gpu => {
            let options = Options { weigh_ops: true, ..Options::default() };
            weights::gpu(capture, &mut gpu_ledgers(capture, path, options)?)
        }
        Weight::GpuIdle => {
            weights::gpu_idle(&gpu_ledgers(capture, path, Options::default())?, capture.tables())
        }
        Weight::GpuWait => {
            weights::gpu_wait(&gpu_ledgers(capture, path, Options::default())?, capture.tables())
        }
        Weight::Cpu => weights::cpu(capture),
        Weight::OffCpu => {
            followed(capture, path)?;
            weights::off_cpu(capture)
        }
        Weight::Wait => {
            followed(capture, path)?;
            let options = Options { waker_stacks: true, ..Options::default() };
            weights::wait(&cpu_ledgers(capture, options)?, capture.tables())
        }
    })
}
