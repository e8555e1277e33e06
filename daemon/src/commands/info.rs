//! `stallscope info`.

use std::fmt::Write;

use serde_json::json;
use stallscope_core::capture::{Capture, Device, FORMAT_MAJOR, FORMAT_MINOR, Tables};
use stallscope_core::report::text::{duration, printable};
use stallscope_core::report::{NOTE, loss_report, notes};
use stallscope_schemas::record::{RecordKind, device_kind};
use stallscope_schemas::units::{ThreadId, TimeNs};

use crate::args::InfoArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{CaptureFile, open, print};

pub(crate) fn run(args: &InfoArgs) -> Result<Outcome, Failure> {
    let capture = open(&args.capture)?;
    let text = if args.json { json_text(&capture) } else { plain_text(&capture) };
    print(&text)?;
    Ok(Outcome::Done)
}

fn kind_name(id: u16) -> String {
    RecordKind::from_id(id.into())
        .map_or_else(|| format!("kind {id} (of a newer version)"), |k| k.name().to_owned())
}

fn per_row(bytes: u64, rows: u64) -> f64 {
    if rows == 0 { 0.0 } else { bytes as f64 / rows as f64 }
}

fn pids(tables: &Tables, device: &Device) -> Vec<i64> {
    device.processes.iter().filter_map(|&p| tables.process(p)).map(|p| p.pid).collect()
}

/// From the first to the last moment in which a thread of a rank was followed, and how many threads were.
fn followed(capture: &Capture<CaptureFile>, device: &Device) -> Option<(TimeNs, TimeNs, usize)> {
    let of_device = |&key: &u32| {
        let thread = capture.tables().thread(ThreadId(key));
        thread.is_some_and(|t| device.processes.contains(&t.process))
    };
    let keys: Vec<u32> = capture.keys(RecordKind::ThreadSpan).into_iter().filter(of_device).collect();
    let extents = keys.iter().filter_map(|&key| capture.extent(RecordKind::ThreadSpan, key));
    let (from, to) = extents.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    Some((from, to, keys.len()))
}

fn json_text(capture: &Capture<CaptureFile>) -> String {
    let tables = capture.tables();
    let kinds: Vec<_> = capture
        .sizes()
        .into_iter()
        .map(|(kind, rows, bytes)| {
            json!({"kind": kind_name(kind), "id": kind, "rows": rows, "bytes": bytes, "bytes_per_row": per_row(bytes, rows)})
        })
        .collect();
    let sources: Vec<_> =
        tables.sources().iter().map(|s| json!({"path": s.path, "format": s.format})).collect();
    let devices: Vec<_> = tables
        .devices()
        .iter()
        .map(|d| {
            json!({
                "id": d.id,
                "kind": device_kind::name(d.kind),
                "ordinal": d.ordinal,
                "model": d.model,
                "pids": pids(tables, d),
            })
        })
        .collect();
    let losses: Vec<_> = capture.losses().into_iter().map(|(c, n)| json!(loss_report(c, n))).collect();
    let info = json!({
        "schema_version": 1,
        "format_version": format!("{FORMAT_MAJOR}.{FORMAT_MINOR}"),
        "writer": capture.writer(),
        "host": capture.host(),
        "boot_id": capture.boot_id(),
        "file_bytes": capture.file_len(),
        "segments": capture.segments(),
        "table_bytes": capture.header_bytes(),
        "damaged_stretches": capture.holes().len(),
        "kinds": kinds,
        "strings": tables.string_count(),
        "stack_frames": tables.stack_count(),
        "processes": tables.processes().len(),
        "threads": tables.threads().len(),
        "devices": devices,
        "sources": sources,
        "labels": tables
            .labels()
            .iter()
            .filter(|(key, _)| key != NOTE)
            .cloned()
            .collect::<std::collections::BTreeMap<_, _>>(),
        "notes": notes(tables).collect::<Vec<_>>(),
        "losses": losses,
    });
    format!("{info:#}\n")
}

/// Processes of a rank that are named in text; the JSON form has all.
const SHOWN_PIDS: usize = 6;

fn plain_text(capture: &Capture<CaptureFile>) -> String {
    let tables = capture.tables();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_plain(capture, &mut out);
    for source in tables.sources() {
        let _ = writeln!(out, "from {} ({})", printable(&source.path), printable(&source.format));
    }
    for note in notes(tables) {
        let _ = writeln!(out, "note {}", printable(note));
    }
    for (key, value) in tables.labels().iter().filter(|(key, _)| key != NOTE) {
        let _ = writeln!(out, "label {}={}", printable(key), printable(value));
    }
    for (counter, count) in capture.losses() {
        let loss = loss_report(counter, count);
        let word = if loss.lost { "lost" } else { "doubtful" };
        let _ = writeln!(out, "{word}: {count} × {}: {}", loss.counter, loss.meaning);
    }
    out
}

fn write_plain(capture: &Capture<CaptureFile>, out: &mut String) -> std::fmt::Result {
    let tables = capture.tables();
    writeln!(
        out,
        "capture format {FORMAT_MAJOR}.{FORMAT_MINOR}, {} bytes in {} segments, written by {}",
        capture.file_len(),
        capture.segments(),
        if capture.writer().is_empty() { "an unknown program".into() } else { printable(capture.writer()) }
    )?;
    if !capture.host().is_empty() {
        writeln!(out, "host {} {}", printable(capture.host()), printable(capture.boot_id()))?;
    }
    writeln!(out, "\n{:<26}{:>14}{:>16}{:>14}", "records", "rows", "bytes", "bytes a row")?;
    for (kind, rows, bytes) in capture.sizes() {
        writeln!(out, "{:<26}{rows:>14}{bytes:>16}{:>14.2}", kind_name(kind), per_row(bytes, rows))?;
    }
    writeln!(
        out,
        "{:<26}{:>14}{:>16}",
        "tables",
        tables.string_count() + tables.stack_count(),
        capture.header_bytes()
    )?;
    writeln!(
        out,
        "\n{} processes, {} threads, {} devices",
        tables.processes().len(),
        tables.threads().len(),
        tables.devices().len()
    )?;
    for key in capture.keys(RecordKind::GpuOp) {
        let device = tables.devices().get(key as usize);
        let name = device.map_or_else(|| format!("device {key}"), |d| printable(&d.id).into_owned());
        let model = device.filter(|d| !d.model.is_empty()).map(|d| format!(" ({})", printable(&d.model)));
        let model = model.unwrap_or_default();
        if let Some((from, to)) = capture.extent(RecordKind::GpuOp, key) {
            writeln!(out, "  {name}{model}: {} from {}", duration(to.since(from)), from)?;
        }
    }
    for device in tables.devices().iter().filter(|d| d.kind == device_kind::CPU) {
        let all = pids(tables, device);
        let mut shown: Vec<String> = all.iter().take(SHOWN_PIDS).map(ToString::to_string).collect();
        if all.len() > SHOWN_PIDS {
            shown.push(format!("and {} more", all.len() - SHOWN_PIDS));
        }
        write!(out, "  {} on CPUs (pid {})", printable(&device.id), shown.join(", "))?;
        match followed(capture, device) {
            Some((from, to, 1)) => writeln!(out, ": 1 thread, {} from {from}", duration(to.since(from)))?,
            Some((from, to, n)) => writeln!(out, ": {n} threads, {} from {from}", duration(to.since(from)))?,
            None => writeln!(out, ": no thread was followed")?,
        }
    }
    Ok(())
}
