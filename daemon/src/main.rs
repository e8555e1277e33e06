//! The command-line program. Arguments become one [`args::Args`]; each command is a module; errors become exit codes in
//! one place ([`failure`]).
#![forbid(unsafe_code)]

mod agent_file;
mod args;
mod commands;
mod failure;
mod files;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    match commands::run(args) {
        Ok(outcome) => outcome.into(),
        // Whoever reads our output has seen enough (`stallscope report … | head`).
        Err(Failure::Output { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.code())
        }
    }
}
