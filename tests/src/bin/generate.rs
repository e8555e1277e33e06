//! Makes the files that tests and benchmarks read. Same parameters, same bytes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use stallscope_tests::job_capture::{self, JobShape};
use stallscope_tests::{big_capture, cli, demo, fuzzing, repeat};

#[derive(Debug, Parser)]
#[command(about = "Makes fixtures and large inputs from models; the same parameters give the same bytes")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The demonstration traces and their known answers (tests/fixtures/demo)
    Demo {
        /// Folder to write to; the fixture's own by default
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// The committed corpora of the fuzz targets (tests/fuzz/corpus)
    Corpus,
    /// A trace repeated, with times and ids moved on, until it has a size
    Repeat {
        /// Kineto JSON, plain or gzipped
        trace: PathBuf,
        /// Size to reach, MB (10^6 bytes)
        #[arg(long)]
        megabytes: u64,
        /// File to write; compressed where the name ends in .gz
        #[arg(short)]
        output: PathBuf,
    },
    /// A capture of a made-up job
    Capture {
        /// GPUs
        #[arg(long, default_value_t = 8)]
        gpus: u32,
        /// Operations on each GPU
        #[arg(long, default_value_t = 18_000_000)]
        ops: u64,
        /// File to write
        #[arg(short)]
        output: PathBuf,
    },
    /// A capture of a made-up job with its hosts, as a recording would leave it
    Job {
        /// Ranks, each with a GPU
        #[arg(long, default_value_t = 8)]
        ranks: u32,
        /// Operations of each rank
        #[arg(long, default_value_t = 625_000)]
        ops: u64,
        /// Of so many operations one is a collective
        #[arg(long, default_value_t = 100)]
        collective_every: u64,
        /// File to write
        #[arg(short)]
        output: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Demo { to } => demo::write_fixture(&to.unwrap_or_else(demo::folder)),
        What::Corpus => {
            for (target, name, bytes) in fuzzing::corpus()? {
                let folder = cli::root().join("tests/fuzz/corpus").join(target);
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join(name), bytes)?;
            }
            Ok(())
        }
        What::Repeat { trace, megabytes, output } => {
            let written = repeat::repeat_to_file(&trace, megabytes * 1_000_000, &output)?;
            println!("{written} bytes");
            Ok(())
        }
        What::Capture { gpus, ops, output } => {
            let bytes = big_capture::write_file(&output, gpus, ops)?;
            println!("{bytes} bytes");
            Ok(())
        }
        What::Job { ranks, ops, collective_every, output } => {
            let rows = job_capture::write_file(&output, JobShape { ranks, ops, collective_every })?;
            println!("{rows} rows");
            Ok(())
        }
    }
}
