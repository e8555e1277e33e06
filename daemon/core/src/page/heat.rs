//! Rank by step: what each step of each rank lost, and how long it took.
//!
//! Steps stand in columns: by their names where all ranks have such and none has one twice, else by time: a step belongs to the
//! column of the rank with the most steps in which its middle lies. Columns are put together until a row has [`MOST_COLUMNS`] at
//! most and all tables [`MOST_CELLS`]; then a cell shows the worst of its steps.

use std::collections::BTreeMap;

use super::html::{Html, put};
use super::parts::value;
use super::{Labels, MOST_DEVICES, plural};
use crate::ledger::{IdleLeaf, Leaf};
use crate::report::text::{duration, short_name};
use crate::report::{DeviceReport, Report, StepReport, StepsReport};
use crate::steps::percentile;

const MOST_COLUMNS: usize = 200;
/// About 65 bytes a cell.
const MOST_CELLS: usize = 16_000;
/// Shades.
const LEVELS: u64 = 8;
/// Labels above the columns.
const TICKS: usize = 10;

/// What is shown of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Charged,
    Waited,
    Idle,
    IdleHost,
    Length,
}

impl Metric {
    const ALL: [Self; 5] = [Self::Charged, Self::Waited, Self::Idle, Self::IdleHost, Self::Length];

    fn of(self, step: &StepReport) -> u64 {
        match self {
            Self::Charged => step.charged_ns,
            Self::Waited => step.wait_ns,
            Self::Idle => value(&step.direct, Leaf::Idle.key()),
            Self::IdleHost => value(&step.idle, IdleLeaf::Host.key()),
            Self::Length => step.wall_ns,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Charged => "others waited for it",
            Self::Waited => "it waited",
            Self::Idle => "idle",
            Self::IdleHost => "idle: host",
            Self::Length => "length",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Charged => {
                "GPU time that all others together lost because this rank was the root of their wait, in waits that ended in the step"
            }
            Self::Waited => "time in which this rank's GPU waited in collectives for a late rank",
            Self::Idle => "time in which this rank's GPU had nothing to do",
            Self::IdleHost => "of the idle time, what the GPU waited for the thread that launches on it",
            Self::Length => {
                "how long the step took; the shade says by how much it is longer than the shortest"
            }
        }
    }
}

struct Row<'a> {
    label: String,
    steps: &'a StepsReport,
    /// Column of each step.
    columns: Vec<usize>,
}

pub(super) fn section(html: &mut Html, report: &Report, labels: &Labels) {
    put!(html; "<section id=\"steps\"><h2>Rank by step</h2>\n");
    let mut devices: Vec<(&DeviceReport, &StepsReport)> =
        report.devices.iter().filter_map(|d| Some((d, d.gpu.as_ref()?.steps.as_ref()?))).collect();
    if devices.is_empty() {
        put!(html; "<p class=\"none\">" (if report.devices.iter().any(|d| d.gpu.is_some()) {
            "No steps could be told: the capture has no marks of steps, and no operation that returns in a regular rhythm."
        } else {
            "Ranks on CPUs are not divided into steps."
        }) "</p></section>\n");
        return;
    }
    let all = devices.len();
    if all > MOST_DEVICES {
        let lost = |(_, steps): &(&DeviceReport, &StepsReport)| {
            let of =
                |s: &StepReport| s.charged_ns.saturating_add(s.wait_ns).saturating_add(Metric::Idle.of(s));
            std::cmp::Reverse(steps.each.iter().map(of).fold(0u64, u64::saturating_add))
        };
        devices.sort_by_key(lost);
        devices.truncate(MOST_DEVICES);
        devices.sort_by_key(|(d, _)| (d.rank.unwrap_or(u32::MAX), d.ordinal));
    }
    let (names, columns) = columns(&devices);
    let rows: Vec<Row<'_>> = devices
        .iter()
        .zip(columns)
        .map(|((device, steps), columns)| Row { label: labels.get(&device.id), steps, columns })
        .collect();
    let used = |metric: Metric| rows.iter().any(|row| row.steps.each.iter().any(|s| metric.of(s) > 0));
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(|&metric| used(metric)).collect();
    let most = (MOST_CELLS / (rows.len() * metrics.len()).max(1)).clamp(1, MOST_COLUMNS);
    let width = names.len().div_ceil(most).max(1);
    put!(html; "<p class=\"how\">A row is a rank, a column " (if width == 1 { "a step".to_owned() } else { plural(width, "step") })
        "; a stronger shade is more. Steps are from " (rows.first().map_or("", |row| row.steps.source)) ", " (plural(names.len(), "column"))
        " in all.");
    if width > 1 {
        put!(html; " <b>Each cell is the worst of up to " (width) " steps</b>, so that " (names.len()) " of them fit.");
    }
    if all > rows.len() {
        put!(html; " <b>The " (rows.len()) " ranks that lost most, of " (all) ".</b>");
    }
    put!(html; "</p>\n<div class=\"tabs\">");
    for (at, metric) in metrics.iter().enumerate() {
        put!(html; "<input type=\"radio\" name=\"heat\" id=\"heat-" (at) "\"" );
        if at == 0 {
            put!(html; " checked");
        }
        put!(html; "><label for=\"heat-" (at) "\">" (metric.name()) "</label>");
    }
    put!(html; "\n");
    for &metric in &metrics {
        table(html, metric, &rows, &names, width);
    }
    put!(html; "</div></section>\n");
}

/// Names of the columns, and the column of each step of each rank.
fn columns(devices: &[(&DeviceReport, &StepsReport)]) -> (Vec<String>, Vec<Vec<usize>>) {
    by_name(devices).unwrap_or_else(|| by_time(devices))
}

fn by_name(devices: &[(&DeviceReport, &StepsReport)]) -> Option<(Vec<String>, Vec<Vec<usize>>)> {
    // By name, when the first rank with it began it: clocks of one host agree, those of several nearly do.
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, steps) in devices {
        let mut own: BTreeMap<&str, i64> = BTreeMap::new();
        for step in &steps.each {
            if own.insert(step.name.as_deref()?, step.start_ns).is_some() {
                return None;
            }
        }
        for (name, at) in own {
            let first = first.entry(name).or_insert(at);
            *first = at.min(*first);
        }
    }
    let mut order: Vec<(i64, &str)> = first.into_iter().map(|(name, at)| (at, name)).collect();
    order.sort_unstable();
    let numbers: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(at, (_, name))| (*name, at)).collect();
    let column =
        |step: &StepReport| step.name.as_deref().and_then(|name| numbers.get(name)).copied().unwrap_or(0);
    let columns = devices.iter().map(|(_, steps)| steps.each.iter().map(column).collect()).collect();
    Some((order.iter().map(|(_, name)| (*name).to_owned()).collect(), columns))
}

fn by_time(devices: &[(&DeviceReport, &StepsReport)]) -> (Vec<String>, Vec<Vec<usize>>) {
    let Some(longest) = devices.iter().map(|(_, steps)| &steps.each).max_by_key(|each| each.len()) else {
        return (Vec::new(), Vec::new());
    };
    let column = |step: &StepReport| {
        let middle = step.start_ns.saturating_add_unsigned(step.wall_ns / 2);
        longest.partition_point(|s| s.start_ns <= middle).saturating_sub(1)
    };
    let columns = devices.iter().map(|(_, steps)| steps.each.iter().map(column).collect()).collect();
    let name = |(at, step): (usize, &StepReport)| step.name.clone().unwrap_or_else(|| (at + 1).to_string());
    (longest.iter().enumerate().map(name).collect(), columns)
}

/// What a cell shows: of the steps in it the worst, their sum and number.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    most: u64,
    sum: u64,
    steps: u64,
}

fn cells(row: &Row<'_>, metric: Metric, columns: usize, width: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::default(); columns.div_ceil(width)];
    for (step, column) in row.steps.each.iter().zip(&row.columns) {
        if let Some(cell) = cells.get_mut(column / width) {
            let ns = metric.of(step);
            *cell = Cell { most: cell.most.max(ns), sum: cell.sum.saturating_add(ns), steps: cell.steps + 1 };
        }
    }
    cells
}

/// From which value on a shade begins, and the shade of a value. Shades follow the square root: what is an eighth of the worst can
/// still be told from nothing.
struct Scale {
    from: u64,
    range: u64,
}

impl Scale {
    fn of(metric: Metric, rows: &[Row<'_>]) -> Self {
        let all = || rows.iter().flat_map(|row| row.steps.each.iter());
        let most = all().map(|s| metric.of(s)).max().unwrap_or(0);
        let least = all().filter(|s| s.whole).map(|s| metric.of(s)).min().unwrap_or(0);
        let from = if metric == Metric::Length { least.min(most) } else { 0 };
        // Jitter of a very regular loop is not painted as if it were a loss.
        let walls: Vec<u64> = rows.iter().map(|row| row.steps.median_ns).collect();
        let step = percentile(&walls, 50).unwrap_or(0);
        Self { from, range: (most - from).max(step / 20).max(1) }
    }

    fn level(&self, ns: u64) -> u64 {
        let over = ns.saturating_sub(self.from) as f64 / self.range as f64;
        let reached = (1..=LEVELS)
            .take_while(|&level| over * (LEVELS * LEVELS) as f64 >= ((level - 1) * (level - 1)) as f64);
        if over > 0.0 { reached.count() as u64 } else { 0 }
    }

    /// The least value of a shade.
    fn begin(&self, level: u64) -> u64 {
        let part =
            u128::from(self.range) * u128::from((level - 1) * (level - 1)) / u128::from(LEVELS * LEVELS);
        self.from.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

fn table(html: &mut Html, metric: Metric, rows: &[Row<'_>], names: &[String], width: usize) {
    let scale = Scale::of(metric, rows);
    let columns = names.len().div_ceil(width);
    put!(html; "<div class=\"panel\"><p class=\"how\">" (metric.meaning()) ".</p><div class=\"wide\" tabindex=\"0\"><table class=\"heat\
        " (if columns > 80 { " dense" } else { "" }) (if rows.len() <= 16 { " tall" } else { "" })
        "\"><thead><tr><td>");
    let every = columns.div_ceil(TICKS).max(1);
    for from in (0..columns).step_by(every) {
        put!(html; "<th scope=\"colgroup\" colspan=\"" (every.min(columns - from)) "\">" (tick(names, from * width)));
    }
    put!(html; "<th scope=\"col\" class=\"sum\">" (if metric == Metric::Length { "median" } else { "sum" }) "</thead><tbody>\n");
    for row in rows {
        put!(html; "<tr><th scope=\"row\" title=\"" (row.label) "\">" (short_name(&row.label, 16)));
        for (at, cell) in cells(row, metric, names.len(), width).into_iter().enumerate() {
            if cell.steps == 0 {
                put!(html; "<td class=\"gone\">");
                continue;
            }
            let level = scale.level(cell.most);
            if level == 0 {
                put!(html; "<td>");
                continue;
            }
            put!(html; "<td class=\"h" (level) "\" title=\"");
            if cell.steps == 1 {
                put!(html; (tick(names, at * width)) ": " (duration(cell.most)) "\">");
            } else {
                put!(html; "from " (tick(names, at * width)) ": most " (duration(cell.most))
                    ", mean " (duration(cell.sum / cell.steps)) "\">");
            }
        }
        let sum = row.steps.each.iter().map(|s| metric.of(s)).fold(0u64, u64::saturating_add);
        put!(html; "<td class=\"sum\">" (duration(if metric == Metric::Length { row.steps.median_ns } else { sum })) "\n");
    }
    put!(html; "</tbody></table></div><p class=\"scale\">");
    if metric != Metric::Length {
        put!(html; "<span><i></i> 0</span>");
    }
    for level in 1..=LEVELS {
        put!(html; "<span><i class=\"h" (level) "\"></i> " (if level == 1 { "above ".to_owned() + &duration(scale.from) } else { "from ".to_owned() + &duration(scale.begin(level)) }) "</span>");
    }
    put!(html; "<span><i class=\"gone\"></i> no such step</span></p></div>\n");
}

/// A column's name, short: `ProfilerStep#12` → `#12`. One of other than plain characters, which could be long when escaped, has its
/// number.
fn tick(names: &[String], column: usize) -> String {
    let name = names.get(column).map_or("", String::as_str);
    let is_number =
        |text: &&str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b" #_-.:/".contains(&b));
    match name.rsplit_once('#').map(|(_, number)| number).filter(is_number) {
        Some(number) => format!("#{number}"),
        None if name.is_empty() || !is_plain(name) => format!("{}.", column + 1),
        None => short_name(name, 12),
    }
}
