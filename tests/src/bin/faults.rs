//! Runs the fault matrix and says how well causes were told.

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
    /// Only faults whose name contains one of these
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(why) = obstacle() {
        anyhow::bail!("the fault matrix needs {why}");
    }
    let matrix = run(&Options { quick: args.quick, only: args.only }, |row| {
        let top1 = row.top1.map_or("", |named| if named { "named" } else { "MISSED" });
        eprintln!(
            "{:<20} {:>5} ms: charged {:>8.2} ms a step of {:>8.2}; {top1} {}",
            row.fault,
            row.dose_ms,
            row.charged_ms_a_step,
            row.actual_ms.unwrap_or(0.0),
            row.said
        );
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&matrix)?);
    } else {
        println!("{}", page(&matrix, args.page.as_deref().unwrap_or("today")));
    }
    Ok(ExitCode::SUCCESS)
}
