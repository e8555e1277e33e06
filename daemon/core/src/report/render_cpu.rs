//! The text of ranks on CPUs: where their time went, and a table of the ranks.

use std::fmt::{self, Write};

use super::odd::{self, Odd, odd};
use super::render::{line, paragraph, value};
use super::text::{duration, percent, short_name};
use super::{CpuReport, DeviceReport, Report, saturating_sum};
use crate::ledger::CpuLeaf;

/// Shows the ranks of a report, if it has any.
pub(super) fn ranks(report: &Report, out: &mut impl Write) -> fmt::Result {
    let cpus: Vec<(&DeviceReport, &CpuReport)> =
        report.devices.iter().filter_map(|d| Some((d, d.cpu.as_ref()?))).collect();
    if cpus.is_empty() {
        return Ok(());
    }
    let total = saturating_sum(cpus.iter().map(|(d, _)| d.wall_ns));
    let charged = cpus.iter().any(|(d, cpu)| d.direct != cpu.root);
    let how = if charged { ", each wait charged to what the thread that ended it did" } else { "" };
    writeln!(out, "\nwhere {} of rank time went{how}", duration(total))?;
    for &leaf in CpuLeaf::ALL {
        let root = saturating_sum(cpus.iter().map(|(_, cpu)| value(&cpu.root, leaf.key())));
        let direct = saturating_sum(cpus.iter().map(|(d, _)| value(&d.direct, leaf.key())));
        if root == 0 && direct == 0 && leaf != CpuLeaf::Compute {
            continue;
        }
        let note = if root == direct { String::new() } else { format!("uncharged {}", duration(direct)) };
        line(out, "  ", leaf.text(), root, total, &note)?;
    }
    if cpus.len() > 1 { table(&cpus, out) } else { Ok(()) }
}

/// Width of a cell of the table.
const CELL: usize = 9;

fn table(cpus: &[(&DeviceReport, &CpuReport)], out: &mut impl Write) -> fmt::Result {
    let columns =
        ["wall", "compute", "coll.cpu", "coll.blk", "run.que", "blk.I/O", "locks", "other", "unknown"];
    write!(out, "\n{:<15}{:>8}", "rank", "pid")?;
    for column in columns {
        write!(out, "{column:>CELL$}")?;
    }
    writeln!(out)?;
    let cells = |(device, cpu): &(&DeviceReport, &CpuReport)| {
        let of = |leaf: CpuLeaf| value(&cpu.root, leaf.key());
        let shown = [
            of(CpuLeaf::Compute),
            of(CpuLeaf::CommOnCpu),
            of(CpuLeaf::CommBlocked),
            of(CpuLeaf::RunQueue).saturating_add(of(CpuLeaf::Throttled)),
            of(CpuLeaf::BlockIo),
            of(CpuLeaf::Lock),
        ];
        let unknown = of(CpuLeaf::Unknown);
        let named = saturating_sum(shown.into_iter()).saturating_add(unknown);
        shown.into_iter().chain([device.wall_ns.saturating_sub(named), unknown]).collect::<Vec<u64>>()
    };
    let shares = |rank: &(&DeviceReport, &CpuReport)| {
        let share = |ns: u64| ns as f64 / rank.0.wall_ns.max(1) as f64;
        cells(rank).into_iter().map(share).collect::<Vec<f64>>()
    };
    let Odd { shown, rest } = odd(&cpus.iter().map(shares).collect::<Vec<_>>());
    for rank in shown.into_iter().filter_map(|at| cpus.get(at)) {
        let device = rank.0;
        let pid = device.pids.first().map_or_else(|| "-".to_owned(), ToString::to_string);
        write!(out, "{:<15}{pid:>8}{:>CELL$}", short_name(&device.id, 14), duration(device.wall_ns))?;
        for ns in cells(rank) {
            write!(out, "{:>CELL$}", percent(ns, device.wall_ns))?;
        }
        writeln!(out)?;
    }
    if let Some((medians, said)) = rest {
        write!(out, "{:<32}", format!("median of {}", cpus.len()))?;
        medians.into_iter().try_for_each(|median| write!(out, "{:>CELL$}", odd::share(median)))?;
        writeln!(out)?;
        paragraph(out, "", &said)?;
    }
    Ok(())
}
