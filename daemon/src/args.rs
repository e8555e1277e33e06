//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use stallscope_core::weights::Weight;
use stallscope_ebpf::ProbeId;
use stallscope_jobs::Target;

/// Where did every GPU-second of this job go, and who is to blame?
///
/// Stallscope gives every nanosecond of every GPU to exactly one cause: computing, communicating, copying, or idle, and
/// says what the host was doing while a GPU was idle. A rank on CPUs has such a ledger too: computing, or waiting, by what
/// it waited for and what those who ended the wait did.
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
    /// Say what of a job can be seen on this host, what is lost, and what would mend it.
    ///
    /// Looks at the kernel, privileges, namespaces and libraries, then loads and attaches the probes for a moment with no
    /// process followed. Changes nothing. The exit code is 0 where a job can be recorded and 6 where it cannot.
    Doctor(DoctorArgs),
    /// List the jobs on this host: ranks, launchers, containers, libraries, GPUs.
    ///
    /// Reads /proc once, about 0.1 ms a process, and changes nothing. Without root only your own jobs are seen.
    Ps(PsArgs),
    /// Attach to a running job, record what its threads and GPUs do and wait for, and leave.
    ///
    /// Needs root (or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH) and a kernel from 5.15 on. Follows all
    /// ranks of the job on this host and whatever they fork. Into processes that use CUDA an agent is put, which goes to rest at the end
    /// (--no-gpu leaves them alone); otherwise nothing in the job is changed. Costs well under a microsecond for each switch
    /// of a thread; `stallscope doctor` says what this host can show. With `-- COMMAND` the job is started under it.
    Record(Box<RecordArgs>),
    /// Print the ledger: where each GPU's or CPU rank's time went, then the findings.
    ///
    /// Times are wall time of the GPU or rank in ns (JSON) or in the unit shown (text). Leaves are exclusive and sum to
    /// wall.
    Report(ReportArgs),
    /// Draw a flamegraph (SVG) whose width is GPU time, lost GPU time, host time or waits.
    Flamegraph(FlamegraphArgs),
    /// Compare two captures: what takes more or less time, which findings came and went.
    Diff(DiffArgs),
    /// Write a capture in another tool's format.
    Export(ExportArgs),
    /// Turn other tools' traces into a capture (.stall).
    ///
    /// Reads Kineto (torch.profiler) and Chrome trace JSON, plain or gzipped, of NVIDIA and AMD GPUs, Nsight Systems
    /// SQLite exports (nsys export --type sqlite), and straggler traces of pipelined jobs (trace-NAME.parquet, with its
    /// sizes in meta-NAME.yaml beside it). Several files, one per rank, become one capture. Formats are told by
    /// content, not by name. Reads about 300 MB of JSON a second and holds under 1 GiB, whatever the size of the input.
    Import(ImportArgs),
    /// Show what a capture holds: records and bytes of each kind, devices, losses.
    Info(InfoArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Do not try the probes: look at what the host says about itself.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON (docs/doctor.md describes it) instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Also list processes in no job that run Python, compute on a GPU or launch others.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print JSON (docs/jobs.md describes it) instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder where the host's / is mounted, for running in a container: DIR/proc and DIR/run are read.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) host_root: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Record just the processes given with --pid and those below them, not the rest of their job.
    #[arg(long, requires = "pid")]
    pub(crate) only: bool,
    /// How long to record: 30s, 2m, 500ms [default: until the job ends or Ctrl-C].
    #[arg(short, long, value_name = "TIME", value_parser = positive_duration)]
    pub(crate) duration: Option<Duration>,
    /// Capture to write [default: the job's name with .stall, in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output even where it is not an earlier capture.
    #[arg(long)]
    pub(crate) force: bool,
    /// Label to store in the capture; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Probes to use, separated by commas; sched is always among them [default: all that run here; launches only
    /// with --launch-stacks].
    #[arg(long, value_name = "PROBES", value_delimiter = ',', value_parser = probe)]
    pub(crate) probes: Option<Vec<ProbeId>>,
    /// Take no stacks: cheaper, and causes end at the system call.
    #[arg(long)]
    pub(crate) no_stacks: bool,
    /// Take stacks of waits at least this long: shorter ones are counted without [default: 100us].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) stack_threshold: Option<Duration>,
    /// Take host stacks of launches on GPUs, at most 500 a second of each process: `flamegraph --weight gpu` then shows
    /// which line launched what. Every launch pays for it with a callback by CUPTI, and meanwhile no other profiler
    /// (torch.profiler, Nsight) can start in the job.
    #[arg(long, conflicts_with_all = ["no_gpu", "no_stacks"])]
    pub(crate) launch_stacks: bool,
    /// Leave processes that use CUDA alone: nothing is put into them, and what their GPUs do is not seen.
    #[arg(long)]
    pub(crate) no_gpu: bool,
    /// Print what was recorded as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// A command to start and record, in place of a running job. The exit code is its own.
    #[arg(last = true, value_name = "-- COMMAND", group = TARGET)]
    pub(crate) command: Vec<OsString>,
}

/// The group of [`TargetArgs`] and the command.
const TARGET: &str = "TargetArgs";

/// What to record: one of these, or a command.
#[derive(Debug, clap::Args)]
#[group(id = TARGET, required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// A process: of a job's, all its ranks on this host are taken; may be given more than once.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Vec<u32>,
    /// A job, by the id that `stallscope ps` shows.
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    /// A container, by id (or its beginning) or name.
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// A pod.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = Target::pod)]
    pub(crate) pod: Option<Target>,
    /// A Slurm job or step.
    #[arg(long, value_name = "ID", value_parser = Target::slurm)]
    pub(crate) slurm: Option<Target>,
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
    /// Captures of the same job from its other hosts: read together, collectives over all of them (docs/several-hosts.md).
    #[arg(value_name = "OTHER-HOST")]
    pub(crate) more: Vec<PathBuf>,
    /// Print JSON (docs/report-json.md describes it) instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the report as one HTML page that needs nothing else, instead of text; beside --json, both (docs/report-html.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Replace the page even where it is not an earlier output of this command.
    #[arg(long, requires = "html")]
    pub(crate) force: bool,
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
    /// Time that GPUs waited in collectives for late ranks, by what made those late.
    GpuWait,
    /// Time on a CPU, by the stacks of samples; in captures without any, time inside operators, Python functions and
    /// ranges of host threads.
    Cpu,
    /// Time off the CPU of all followed threads, by their stacks and what they waited for.
    OffCpu,
    /// Waits of the threads that drive a rank, joined with the stacks of those who ended them.
    Wait,
}

impl From<WeightArg> for Weight {
    fn from(weight: WeightArg) -> Self {
        match weight {
            WeightArg::Gpu => Self::Gpu,
            WeightArg::GpuIdle => Self::GpuIdle,
            WeightArg::GpuWait => Self::GpuWait,
            WeightArg::Cpu => Self::Cpu,
            WeightArg::OffCpu => Self::OffCpu,
            WeightArg::Wait => Self::Wait,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct FlamegraphArgs {
    /// Capture (or a trace that `import` reads).
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: PathBuf,
    /// Captures of the same job from its other hosts: read together, collectives over all of them (docs/several-hosts.md).
    #[arg(value_name = "OTHER-HOST")]
    pub(crate) more: Vec<PathBuf>,
    /// What the width of a frame means [default: gpu-idle; off-cpu where the capture has no GPU].
    #[arg(short, long, value_enum)]
    pub(crate) weight: Option<WeightArg>,
    /// Draw what the GPUs of this rank lost, and nothing else (gpu-idle and gpu-wait).
    #[arg(long, value_name = "RANK")]
    pub(crate) rank: Option<u32>,
    /// What to compare with: an earlier capture, or `median`, the rank in the middle of all (with --rank).
    ///
    /// Red is more, blue is less; frames are without the numbers of processes and threads. Each frame of the median rank has the
    /// median of the ranks; one without the frame counts as 0. A capture of the name is ./median.
    #[arg(long, value_name = "BEFORE", requires_if("median", "rank"))]
    pub(crate) against: Option<PathBuf>,
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
    /// Captures of the same job from its other hosts: read together, on one clock (docs/several-hosts.md).
    #[arg(value_name = "OTHER-HOST")]
    pub(crate) more: Vec<PathBuf>,
    /// Format to write.
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// Weight of folded stacks (pprof holds all) [default: gpu-idle; off-cpu where the capture has no GPU].
    #[arg(short, long, value_enum)]
    pub(crate) weight: Option<WeightArg>,
    /// File to write; - for standard output [default: the capture's name with the format's suffix, in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output even where it is not an earlier output of this command.
    #[arg(long)]
    pub(crate) force: bool,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("the time is zero".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error}; write it like 30s, 2m or 500ms")),
    }
}

fn probe(text: &str) -> Result<ProbeId, String> {
    let all = ProbeId::all();
    all.iter().copied().find(|p| p.name() == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|p| p.name()).collect();
        format!("probes are {}", names.join(", "))
    })
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
