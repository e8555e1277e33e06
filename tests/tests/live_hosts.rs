//! One job recorded in two captures, as by two hosts: what is said of both together does not depend on their clocks. On the
//! double of CUDA; without root each test says so and passes.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_core::capture::Capture;
use stallscope_cupti_double::folder::Version;
use stallscope_schemas::units::SourceId;
use stallscope_tests::export_parsers::parse_export;
use stallscope_tests::live::gpu::{GpuJob, double};
use stallscope_tests::live::lab::{Running, json, leaves, obstacle, run, start};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn number(bytes: &[u8], at: usize, len: usize) -> anyhow::Result<usize> {
    let field = bytes.get(at..at + len).context("a field")?;
    Ok(field.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
}

/// The capture of another host: another boot, and a calendar that is off by so much.
fn elsewhere(from: &Path, to: &Path, off_by_ns: i64) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(from)?;
    let capture = Capture::open(bytes.clone())?;
    let boot = capture.boot_id().to_owned();
    let clock = capture.tables().clock(SourceId(0)).context("a clock")?.offset_ns;
    let mut at = 16;
    let (mut boots, mut clocks) = (0, 0);
    while at < bytes.len() {
        let (header, body) = (number(&bytes, at + 4, 4)?, number(&bytes, at + 8, 8)?);
        let place = at + 24..at + 24 + header;
        let mut text = bytes.get(place.clone()).context("a header")?.to_vec();
        let mut replace = |old: &[u8], new: &[u8]| {
            let mut count = 0;
            while let Some(found) = text.windows(old.len()).position(|window| window == old) {
                text[found..found + new.len()].copy_from_slice(new);
                count += 1;
            }
            count
        };
        boots += replace(boot.as_bytes(), "ffffffff".as_bytes());
        clocks += replace(&clock.to_le_bytes(), &(clock + off_by_ns).to_le_bytes());
        bytes[place].copy_from_slice(&text);
        let sum = crc32c::crc32c(&text).to_le_bytes();
        bytes[at + 16..at + 20].copy_from_slice(&sum);
        let sum = crc32c::crc32c(&bytes[at..at + 20]).to_le_bytes();
        bytes[at + 20..at + 24].copy_from_slice(&sum);
        at += 24 + header + body;
    }
    ensure!(boots > 0 && clocks > 0, "{boots} boots and {clocks} clocks were replaced");
    Ok(std::fs::write(to, bytes)?)
}

fn done(mut recorder: Running) -> anyhow::Result<()> {
    let status = recorder.0.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// What each rank waited, what it may have waited, and what of it is charged to rank 2, ms.
fn waits(report: &Value) -> anyhow::Result<Vec<(f64, f64, f64)>> {
    let mut all = Vec::new();
    for device in report["devices"].as_array().context("devices")? {
        leaves(device, "direct")?;
        leaves(device, "root")?;
        let ms = |value: &Value| value.as_f64().unwrap_or(0.0) / 1e6;
        let waits = device["waits"].as_array().context("waits")?;
        let of = waits
            .iter()
            .filter(|wait| wait["via_ranks"].as_array().is_some_and(|via| via.last() == Some(&2.into())));
        let (wait, uncertain) = (ms(&device["comm"]["wait_ns"]), ms(&device["comm"]["uncertain_ns"]));
        all.push((wait, uncertain, of.map(|wait| ms(&wait["ns"])).sum()));
    }
    Ok(all)
}

#[test]
fn what_two_captures_say_together_does_not_depend_on_the_clocks_of_their_hosts() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), Version::V12_8)?;
    let job = GpuJob::start(
        folder.path(),
        &libraries,
        4,
        &["--fault", "late@2", "--dose-ms", "25", "--every", "3"],
    )?;
    let at = |name: &str| folder.path().join(name);
    let record = |ranks: &[u32], to: &Path| {
        let pids: Vec<String> = ranks.iter().map(u32::to_string).collect();
        let mut arguments = vec!["record", "--only", "-d", "8s", "-o", text(to), "--json"];
        pids.iter().for_each(|pid| arguments.extend(["--pid", pid]));
        start(&arguments)
    };
    let (a, b) = (at("a.stall"), at("b.stall"));
    let (first, second) = (record(&job.ranks[..2], &a)?, record(&job.ranks[2..], &b)?);
    done(first)?;
    done(second)?;
    job.goes_on()?;

    let report = json(&["report", text(&a), text(&b), "--json"])?;
    ensure!(
        report["capture"]["notes"].to_string().contains("they have one clock"),
        "{:#}",
        report["capture"]
    );
    ensure!(report["jobs"][0]["ranks"] == serde_json::json!([0, 1, 2, 3]), "{:#}", report["jobs"]);
    let truth = waits(&report)?;
    println!("one clock: {truth:.0?}");
    for (rank, (_, _, charged)) in truth.iter().enumerate().filter(|(rank, _)| *rank != 2) {
        ensure!(*charged > 300.0, "rank {rank} waited {charged} ms for rank 2");
    }
    for off_by_ns in [7_000_000, -450_000_000] {
        let other = at("elsewhere.stall");
        elsewhere(&b, &other, off_by_ns)?;
        let report = json(&["report", text(&a), text(&other), "--json"])?;
        let found = waits(&report)?;
        println!("{off_by_ns}: {found:.0?}\n{}", report["capture"]["notes"]);
        ensure!(report["capture"]["notes"].to_string().contains("the common one"), "{:#}", report["capture"]);
        for (rank, (then, now)) in truth.iter().zip(&found).enumerate() {
            ensure!(now.0 <= then.0 + then.1 + 5.0, "rank {rank}: {now:?} ms, not {then:?}");
            ensure!(now.0 + now.1 >= then.0 - 5.0, "rank {rank}: {now:?} ms, not {then:?}");
            ensure!(rank == 2 || now.2 >= 0.8 * then.2, "rank {rank}: {now:?} ms, not {then:?}");
        }
        // On one clock, with arrows from host to host.
        let trace = at("both.pftrace");
        let exported = run(&["export", text(&a), text(&other), "--to", "perfetto", "-o", text(&trace)])?;
        ensure!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        parse_export("check_perfetto.py", &trace, &["--meet", "4"])?;
    }
    // By itself the first capture knows that somebody is missing.
    let alone = json(&["report", text(&a), "--json"])?;
    ensure!(alone["jobs"][0]["ranks_missing"] == serde_json::json!([2, 3]), "{:#}", alone["jobs"]);
    // One file is not two hosts.
    let twice = run(&["report", text(&a), text(&a)])?;
    let error = String::from_utf8_lossy(&twice.stderr);
    ensure!(twice.status.code() == Some(3) && error.contains("is given twice"), "{}: {error}", twice.status);
    std::fs::copy(&a, at("copy.stall"))?;
    let copy = run(&["report", text(&a), text(&at("copy.stall"))])?;
    let error = String::from_utf8_lossy(&copy.stderr);
    ensure!(copy.status.code() == Some(3) && error.contains("both hold rank 0"), "{}: {error}", copy.status);
    Ok(())
}
