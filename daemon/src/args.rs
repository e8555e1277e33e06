//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use stallscope_core::weights::Weight;

/// Where did every GPU-second of this job go, and who is to blame?
///
/// Stallscope gives every nanosecond of every GPU to exactly one cause: computing, communicating, copying, or idle, and
/// says what the host was doing while a GPU was idle.
#[derive(Debug, Parser)]
#[command(
    name = "stallscope",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn other tools' traces into a capture (.stall).
    ///
    /// Reads Kineto (torch.profiler) and Chrome trace JSON, plain or gzipped, of NVIDIA and AMD GPUs, and Nsight Systems
    /// SQLite exports (nsys export --type sqlite). Several files, one per rank, become one capture. Formats are told by
    /// content, not by name. Reads about 300 MB of JSON a second and holds under 1 GiB, whatever the size of the input.
    Import(ImportArgs),
    /// Show what a capture holds: records and bytes of each kind, devices, losses.
    Info(InfoArgs),
    /// Print the ledger: where each GPU's time went, then the findings, worst first.
    ///
    /// Times are wall time of the device in ns (JSON) or in the unit shown (text). Leaves are exclusive and sum to wall.
    Report(ReportArgs),
    /// Compare two captures: what takes more or less GPU time, which findings came and went.
    Diff(DiffArgs),
    /// Draw a flamegraph (SVG) whose width is GPU time, lost GPU time or host time.
    Flamegraph(FlamegraphArgs),
    /// Write a capture in another tool's format.
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Traces to read.
    #[arg(required = true, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Capture to write; - for standard output [default: the first trace's name with .stall, in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output even where it is not an earlier output of this command.
    #[arg(long)]
    pub(crate) force: bool,
    /// Label to store in the capture; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Print what was imported as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// Capture (or a trace that `import` reads).
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Capture (or a trace that `import` reads).
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: PathBuf,
    /// Print JSON (docs/report-json.md describes it) instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Capture (or trace) before the change.
    pub(crate) before: PathBuf,
    /// Capture (or trace) after the change.
    pub(crate) after: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightArg {
    /// Time on the GPU, by the host stack that launched it.
    Gpu,
    /// Idle time of the GPU, by cause and by the host stack that ran meanwhile.
    GpuIdle,
    /// Time inside operators, Python functions and ranges of host threads.
    Cpu,
}

impl From<WeightArg> for Weight {
    fn from(weight: WeightArg) -> Self {
        match weight {
            WeightArg::Gpu => Self::Gpu,
            WeightArg::GpuIdle => Self::GpuIdle,
            WeightArg::Cpu => Self::Cpu,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct FlamegraphArgs {
    /// Capture (or a trace that `import` reads).
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: PathBuf,
    /// What the width of a frame means.
    #[arg(short, long, value_enum, default_value_t = WeightArg::GpuIdle)]
    pub(crate) weight: WeightArg,
    /// SVG to write; - for standard output [default: the capture's name with the weight and .svg, in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output even where it is not an earlier output of this command.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Perfetto trace (open in ui.perfetto.dev): every operation, call and range on its own track.
    Perfetto,
    /// pprof profile (go tool pprof, Pyroscope, Parca): GPU time, idle GPU time and host time by stack.
    Pprof,
    /// Folded stacks, one a line with its weight in ns.
    Folded,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Capture (or a trace that `import` reads).
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: PathBuf,
    /// Format to write.
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// Weight of folded stacks (pprof holds all three).
    #[arg(short, long, value_enum, default_value_t = WeightArg::GpuIdle)]
    pub(crate) weight: WeightArg,
    /// File to write; - for standard output [default: the capture's name with the format's suffix, in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output even where it is not an earlier output of this command.
    #[arg(long)]
    pub(crate) force: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
