//! Measures what users wait for and what captures cost, each beside the floor that the machine sets.

use std::process::ExitCode;

use clap::Parser;
use stallscope_tests::bench::{self, Options};
use stallscope_tests::measure;

#[derive(Debug, Parser)]
#[command(about = "Medians and spread of import, sweep, report and size, each beside its floor")]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Smaller inputs
    #[arg(long)]
    quick: bool,
    /// Only benchmarks whose name contains one of these
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    if measure::help()? {
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse();
    let results = bench::run(&Options { quick: args.quick, only: args.only })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        println!("{}", bench::render(&results));
    }
    Ok(ExitCode::SUCCESS)
}
