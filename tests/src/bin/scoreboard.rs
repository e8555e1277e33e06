//! Prints what the program says of real traces beside what is known of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use stallscope_tests::scoreboard::{Verdict, ground_truth, render, rows};

#[derive(Debug, Parser)]
#[command(about = "Compares the program's answers with known ones of real traces")]
struct Args {
    /// Folder of the traces, by source: tracelens, kineto, nsys, stragglers, flight-recorder [default: ../shared/ground-truth]
    folder: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// End with an error where a row is not met
    #[arg(long)]
    require: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let Some(folder) = args.folder.or_else(ground_truth) else {
        println!(
            "{}",
            if args.json {
                "{\"skipped\": \"no ground truth\"}"
            } else {
                "scoreboard: skipped: ../shared/ground-truth is not there"
            }
        );
        return Ok(ExitCode::SUCCESS);
    };
    let rows = rows(&folder);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?);
    } else {
        println!("{}", render(&rows));
    }
    let failed = args.require && rows.iter().any(|r| r.verdict == Verdict::NotMet);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
