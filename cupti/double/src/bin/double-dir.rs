//! `double-dir OUT [VERSION]`: make a folder of stand-ins; VERSION is CUPTI's: 11.8, 12.4, 12.8 (default), 13.0, 13.3.

use std::path::PathBuf;
use std::process::ExitCode;

use stallscope_cupti_double::folder::{self, Version};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let out = arguments.next().map(PathBuf::from);
    let version = arguments.next().map_or(Some(Version::V12_8), |v| Version::named(&v.to_string_lossy()));
    let (Some(out), Some(version)) = (out, version) else {
        eprintln!("usage: double-dir OUT [11.8|12.4|12.8|13.0|13.3]");
        return ExitCode::from(2);
    };
    match folder::make(&out, version) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("double-dir: {}: {error}", out.display());
            ExitCode::FAILURE
        }
    }
}
