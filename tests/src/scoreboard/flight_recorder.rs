//! Flight Recorder dumps of a real job whose faults were injected: the culprits are in the log beside them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Row;
use crate::cli;

pub(super) fn rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    cases.sort();
    cases.iter().filter(|case| case.is_dir()).map(|case| row(case)).collect()
}

/// The ranks of `Fault ranks: [9, 14]`.
fn injected(folder: &Path) -> anyhow::Result<BTreeSet<u64>> {
    let log = std::fs::read_to_string(folder.join("fault_injection.log"))?;
    let line = log.lines().find_map(|line| line.strip_prefix("Fault ranks:"));
    let line = line.context("the log names no fault ranks")?;
    let ranks = line.trim().trim_matches(['[', ']']).split(',').map(|rank| rank.trim().parse());
    Ok(ranks.collect::<Result<_, _>>()?)
}

fn row(folder: &Path) -> anyhow::Result<Row> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut dumps: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    dumps.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("_dump_")));
    dumps.sort();
    let report = cli::report(&dumps)?;
    let findings = || report["findings"].as_array().into_iter().flatten();
    let blamed: BTreeSet<u64> = findings()
        .filter_map(|finding| finding["culprit_ranks"].as_array())
        .flatten()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    let hang = findings().any(|finding| finding["category"] == "hang");
    let injected = injected(folder)?;
    let list = |ranks: &BTreeSet<u64>| {
        let ranks: Vec<String> = ranks.iter().map(u64::to_string).collect();
        format!("ranks {}", ranks.join(", "))
    };
    let expected = format!("{}, nobody else", list(&injected));
    let met = hang && blamed == injected;
    let case = format!("flight-recorder/{name}");
    Ok(Row::statement(&case, "culprits, in all findings", &expected, list(&blamed), met)
        .with_note("the ranks of fault_injection.log"))
}
