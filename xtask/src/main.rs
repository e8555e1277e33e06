//! `cargo xtask`: everything that a developer or a CI machine does with this repository.
//!
//! Each task is a module. Tasks that need the program's own types (scoreboard, benchmarks, generators) live in the
//! tests crate and are only started from here, so that this executable builds in seconds on a bare machine.

mod check;
mod codegen;
mod delegate;
mod fuzz;
mod gpu;
mod old_distribution;
mod setup;
mod shell;
mod torch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of Stallscope")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the project needs on this machine: packages, Python tools, cargo tools
    Setup {
        /// Only what `cargo xtask test` needs
        #[arg(long)]
        test_only: bool,
    },
    /// Everything that CI checks: format, lints, spelling, licences, generated code, tests, goldens, scoreboard
    Test {
        /// Only the suite with PyTorch, which no other run has (needs root and apt's python3-torch)
        #[arg(long)]
        torch: bool,
    },
    /// Start a real job with a slow rank, attach, explain it (needs root)
    Demo {
        /// The trace of a GPU job in the repository instead
        #[arg(long)]
        trace: bool,
        /// A job that uses CUDA, on stand-ins for NVIDIA's libraries
        #[arg(long, conflicts_with = "trace")]
        gpu: bool,
    },
    /// Compare results with known answers of real traces (needs ../shared/ground-truth)
    Scoreboard {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Measure import, sweep, size and memory, each beside its floor
    Bench {
        /// Machine-readable
        #[arg(long)]
        json: bool,
        /// Smaller inputs: minutes instead of half an hour
        #[arg(long)]
        quick: bool,
        /// Only these benchmarks (part of a name)
        only: Vec<String>,
    },
    /// Ask a GPU what only it can answer, at most nine minutes (docs/gpu/README.md); without one only build for it
    Gpu {
        /// pack: only make the folder to carry to a machine with a GPU. Else sections of the runner; all by default
        what: Vec<String>,
        /// Where the folder is made
        #[arg(long, value_name = "FOLDER")]
        pack: Option<PathBuf>,
        /// Folder for the report
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Jobs with known faults, recorded, and how well the report tells them (needs root; about twenty minutes)
    Faults {
        /// Machine-readable
        #[arg(long)]
        json: bool,
        /// One dose a fault
        #[arg(long)]
        quick: bool,
        /// Write docs/accuracy.md
        #[arg(long)]
        report: bool,
        /// Only these faults (part of a name)
        only: Vec<String>,
    },
    /// Fuzz the readers of foreign bytes
    Fuzz {
        /// kineto, nsys or capture; all of them by default
        target: Option<String>,
        /// Time for each target, minutes
        #[arg(long, default_value_t = 1)]
        minutes: u32,
        /// Write the outcome to docs/fuzz.md
        #[arg(long)]
        report: bool,
    },
    /// Regenerate schemas/src/capture_generated.rs from capture.fbs
    Codegen {
        /// Change nothing; fail where the committed file differs
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Setup { test_only } => setup::setup(test_only),
        Task::Test { torch: true } => torch::test(),
        Task::Test { torch: false } => check::test(),
        Task::Demo { trace, gpu } => delegate::demo(trace, gpu),
        Task::Scoreboard { json } => delegate::scoreboard(json),
        Task::Bench { json, quick, only } => delegate::bench(json, quick, &only),
        Task::Gpu { what, pack, out } => gpu::gpu(what, pack, out),
        Task::Faults { json, quick, report, only } => delegate::faults(json, quick, report, &only),
        Task::Fuzz { target, minutes, report } => fuzz::fuzz(target.as_deref(), minutes, report),
        Task::Codegen { check: true } => codegen::check(),
        Task::Codegen { check: false } => codegen::write(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
