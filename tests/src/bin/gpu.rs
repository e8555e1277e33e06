//! Asks a machine with a GPU what only it can answer (docs/gpu/README.md). `cargo xtask gpu pack` makes a folder with this
//! and all it needs: no network, no Rust and no compiler where it runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use stallscope_tests::gpu::plan::{ALL_WITHIN, FACTS_WITHIN, SECTIONS, chosen};
use stallscope_tests::gpu::run::{Plan, run, section};

/// There is no GPU here: nothing was measured.
const NO_GPU: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "gpu",
    about = "Measures Stallscope on a GPU, at most nine minutes, and writes a report",
    after_help = "The exit code is 0 where every section came to its end, 1 where one failed, hung or crashed (the \
                  report says which), 3 where there is no GPU: then nothing is claimed."
)]
struct Args {
    /// Only these sections (--list shows them)
    sections: Vec<String>,
    /// Show the sections, their limits and the questions of docs/gpu/OPEN.md that each may answer
    #[arg(long)]
    list: bool,
    /// Folder for the report, the notes and small captures
    #[arg(long, value_name = "FOLDER", default_value = "gpu-report")]
    out: PathBuf,
    /// Folder of stallscope and the jobs; the one that this program lies in by default
    #[arg(long, value_name = "FOLDER")]
    pack: Option<PathBuf>,
    /// Python with PyTorch; python3 and the usual places by default
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    run_all().unwrap_or_else(|error| {
        eprintln!("gpu: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_all() -> anyhow::Result<ExitCode> {
    if section()? {
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse();
    let sections = match chosen(&args.sections) {
        Ok(sections) => sections,
        Err(why) => {
            eprintln!("gpu: {why}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.list {
        for section in SECTIONS {
            let questions: Vec<String> = section.questions.iter().map(u32::to_string).collect();
            let questions = questions.join(", ");
            println!("{:<14} {:>3} s  {}  [{questions}]", section.name, section.limit_s, section.title);
        }
        let (facts, all) = (FACTS_WITHIN.as_secs(), ALL_WITHIN.as_secs());
        println!("what is to be known of the machine: {facts} s; all together at most {all} s");
        return Ok(ExitCode::SUCCESS);
    }
    let pack = match args.pack {
        Some(pack) => pack,
        None => std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned(),
    };
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let plan = Plan {
        pack: std::path::absolute(pack)?,
        out: std::path::absolute(&args.out)?,
        python: args.python,
        sections,
    };
    let report = run(&plan, &mut |line| eprintln!("{line}"))?;
    eprintln!("the report is {}", plan.out.join("report.md").display());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(if !report.facts.has_device() {
        eprintln!(
            "there is no GPU here (libcuda.so.1 cannot be loaded or has no device): nothing was measured."
        );
        eprintln!("Carry the folder {} to a machine that has one, and run ./gpu there.", plan.pack.display());
        ExitCode::from(NO_GPU)
    } else if report.is_bad() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
