//! Runs the fault matrix and says how well causes were told.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use stallscope_tests::faults::{Options, page, run};
use stallscope_tests::live::lab::obstacle;

#[derive(Debug, Parser)]
#[command(about = "Jobs with known faults, recorded, and what the report says held against what was done")]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// One dose a fault
    #[arg(long)]
    quick: bool,
    /// The date to write above the table, where that is wanted as a page
    #[arg(long, value_name = "DATE")]
    page: Option<String>,
    /// Write the JSON into this file as well
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Keep captures and truth logs in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Only this dose, as the table has it; may be given again
    #[arg(long)]
    dose: Vec<f64>,
    /// Only faults whose name contains one of these
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(why) = obstacle() {
        anyhow::bail!("the fault matrix needs {why}");
    }
    let options = Options { quick: args.quick, only: args.only, doses: args.dose, keep: args.keep };
    let matrix = run(&options, |row| {
        let top1 = row.top1.map_or("", |named| if named { "named" } else { "MISSED" });
        eprintln!(
            "{:<24} {:>6}: charged {:>7.2} ms of {:>7.2}, {:.1} doses, {} steps; {} of {} ms waited, truly {}; split p99 {:?} us, \
             {}/{} good, {} covered, {}/{} partial, {} mistaken; growth {:.4}, unknown {:.4}; {:.2?}; {top1} {}{}",
            row.fault,
            row.dose,
            row.charged_ms,
            row.actual_ms.unwrap_or(0.0),
            row.doses,
            row.steps,
            row.charged_ns / 1_000_000,
            row.waited_ns / 1_000_000,
            row.true_waited_ns / 1_000_000,
            row.split_error_p99_us,
            row.good_splits,
            row.splits,
            row.covered_splits,
            row.right_partial_splits,
            row.partial_splits,
            row.mistaken_operations,
            row.leaf_growth_share,
            row.unknown_share,
            row.host_excess_ms,
            row.said,
            row.skipped.as_deref().unwrap_or_default()
        );
    })?;
    if let Some(file) = &args.save {
        std::fs::write(file, serde_json::to_string_pretty(&matrix)?)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&matrix)?);
    } else {
        println!("{}", page(&matrix, args.page.as_deref().unwrap_or("today")));
    }
    Ok(ExitCode::SUCCESS)
}
