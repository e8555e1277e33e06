//! Steps of a training or inference loop: found in the trace's own marks, else in the rhythm of its kernels.
//!
//! On a device a step begins when its first operation begins, or, if the device was idle then, when the host began the
//! step: the idle time that a step's own data loading causes belongs to that step.

use hashbrown::HashMap;
use stallscope_schemas::record::{RecordKind, SpanKind, gpu_op, host_span, op_flags};
use stallscope_schemas::units::{DeviceId, ProcessId, StringId, ThreadId, TimeNs};

use crate::capture::{Capture, ColumnSet, ReadAt, Run};
use crate::other_jobs::OtherJobs;
use crate::rows::{DeviceSpan, GpuOp, HostSpan};

/// Steps that are kept apart; a capture with more keeps the first ones and merges the rest into the last.
pub const MAX_STEPS: usize = 100_000;

/// Where the steps of a device come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSource {
    /// Ranges on the host that mark steps (ProfilerStep, NVTX).
    HostRanges,
    /// Ranges that the profiler drew on the device's own time line.
    DeviceRanges,
    /// The regular return of one operation.
    Period,
}

impl StepSource {
    /// Name in JSON and text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HostRanges => "host ranges",
            Self::DeviceRanges => "device ranges",
            Self::Period => "period of an operation",
        }
    }
}

/// A range that marks a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When it began.
    pub start: TimeNs,
    /// When it ended.
    pub end: TimeNs,
    /// Its name.
    pub name: StringId,
}

/// How to tell a device's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepPlan {
    /// Steps on the host, in order: an operation belongs to the one in which it was launched.
    Launched(Vec<Mark>),
    /// Steps on the device's own time line, in order.
    OnDevice(Vec<Mark>),
    /// Every operation of this name begins a step.
    Anchor(StringId),
    /// No steps can be told.
    None,
}

impl StepPlan {
    /// Where the steps come from.
    #[must_use]
    pub fn source(&self) -> Option<StepSource> {
        match self {
            Self::Launched(_) => Some(StepSource::HostRanges),
            Self::OnDevice(_) => Some(StepSource::DeviceRanges),
            Self::Anchor(_) => Some(StepSource::Period),
            Self::None => None,
        }
    }
}

/// Decides how to tell the steps of a device.
pub fn plan<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> StepPlan {
    let host = host_marks(capture, device);
    if !host.is_empty() {
        return StepPlan::Launched(host);
    }
    let on_device = sorted_marks(
        capture
            .rows::<DeviceSpan>(device.0)
            .filter(|s| s.kind == SpanKind::Step)
            .map(|s| Mark { start: s.start, end: s.start.plus(s.duration_ns), name: s.name })
            .take(MAX_STEPS)
            .collect(),
    );
    if !on_device.is_empty() {
        return StepPlan::OnDevice(on_device);
    }
    anchor(capture, device).map_or(StepPlan::None, StepPlan::Anchor)
}

/// Marks in order; of marks that lie within another the outer one counts, and an overlap ends with the next begin.
fn sorted_marks(mut marks: Vec<Mark>) -> Vec<Mark> {
    marks.sort_unstable_by_key(|m| (m.start, std::cmp::Reverse(m.end), m.name));
    let mut until = TimeNs(i64::MIN);
    marks.retain(|m| {
        let outer = m.end > until;
        until = until.max(m.end);
        outer
    });
    for i in 1..marks.len() {
        let next = marks.get(i).map(|m| m.start);
        if let (Some(mark), Some(next)) = (marks.get_mut(i - 1), next) {
            mark.end = mark.end.min(next);
        }
    }
    marks
}

/// Step ranges on the threads of the processes that used the device.
fn host_marks<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> Vec<Mark> {
    let tables = capture.tables();
    let Some(row) = tables.device(device) else { return Vec::new() };
    let others = OtherJobs::on(device, tables);
    let is_of_job = |process: ProcessId| row.processes.contains(&process) && !others.has(process);
    let mut best: Vec<Mark> = Vec::new();
    for key in capture.keys(RecordKind::HostSpan) {
        if tables.thread(ThreadId(key)).is_none_or(|t| !is_of_job(t.process)) {
            continue;
        }
        let marks = sorted_marks(thread_marks(capture, key));
        // Several threads may mark the same steps; the one that marks most is the loop.
        if marks.len() > best.len() {
            best = marks;
        }
    }
    best
}

fn thread_marks<S: ReadAt>(capture: &Capture<S>, thread: u32) -> Vec<Mark> {
    let set = ColumnSet::of(&[host_span::KIND, host_span::NAME]);
    let mut merged = capture.merged::<HostSpan>(thread, set);
    let mut marks = Vec::new();
    let step = u64::from(SpanKind::Step.id());
    while let Some(run) = merged.next_run() {
        let Run::Rows(columns, range) = run else { continue };
        let kinds = columns.column(host_span::KIND).get(range.clone()).unwrap_or_default();
        for at in range.clone().zip(kinds).filter(|(_, k)| **k == step).map(|(at, _)| at) {
            let of = |c: u16| columns.column(c).get(at).copied().unwrap_or(0);
            let name = StringId(u32::try_from(of(host_span::NAME)).unwrap_or(0));
            let start = TimeNs(of(host_span::START).cast_signed());
            marks.push(Mark { start, end: start.plus(of(host_span::DURATION)), name });
            if marks.len() >= MAX_STEPS {
                return marks;
            }
        }
    }
    marks
}

/// Operations that are looked at to find a period: seconds of a busy device.
const PERIOD_SAMPLE: usize = 1 << 18;

/// Fewest returns of an operation that make a period: two intervals can agree by chance, three rarely.
const LEAST_RETURNS: usize = 4;

/// Most that the middle half of the intervals may differ from their median, as a share of it.
const MOST_JITTER: f64 = 0.2;

/// The same for the number of operations between two returns, which is the same in each step however long steps take.
const MOST_COUNT_JITTER: f64 = 0.05;

/// Most operations between two returns on the whole, as a multiple of the usual number. What returns in bursts has few
/// between most of its returns and very many between two bursts: a part of a step, whose rhythm is not the loop's.
const MOST_BURST: i64 = 2;

/// When an operation of a name began, and how many operations of the device had begun before.
#[derive(Debug, Default)]
struct Returns {
    starts: Vec<i64>,
    counts: Vec<i64>,
}

impl Returns {
    /// Mean time between two, where they come regularly: after as much time, or after as many other operations.
    fn period(&self) -> Option<i64> {
        regular_period(&self.starts, MOST_JITTER)
            .or_else(|| regular_period(&self.counts, MOST_COUNT_JITTER))?;
        if self.is_in_bursts()? {
            return None;
        }
        let span = self.starts.last()?.checked_sub(*self.starts.first()?)?;
        span.checked_div(i64::try_from(self.starts.len()).ok()?.checked_sub(1)?)
    }

    /// Whether most of all operations lie between few of the returns.
    fn is_in_bursts(&self) -> Option<bool> {
        let between = intervals(&self.counts);
        let usual = between.get(between.len() / 2)?;
        let all = self.counts.last()?.checked_sub(*self.counts.first()?)?;
        Some(all > MOST_BURST.saturating_mul(*usual).saturating_mul(i64::try_from(between.len()).ok()?))
    }
}

/// The operation whose regular return marks a step: among names that come back regularly over most of the sample, the
/// one with the longest period, because the loop that users think of is the outermost.
fn anchor<S: ReadAt>(capture: &Capture<S>, device: DeviceId) -> Option<StringId> {
    let mut starts: HashMap<u32, Returns> = HashMap::new();
    let (mut seen, mut count) = (0usize, 0i64);
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let others = OtherJobs::on(device, capture.tables());
    let launches = [gpu_op::FLAGS, gpu_op::LAUNCH_THREAD];
    let columns = [gpu_op::NAME].into_iter().chain(launches.into_iter().filter(|_| others.any()));
    let mut merged = capture.merged::<GpuOp>(device.0, ColumnSet::of(&columns.collect::<Vec<_>>()));
    while let Some(run) = merged.next_run() {
        let Run::Rows(columns, range) = run else { continue };
        let of = |column: u16| columns.column(column).get(range.clone()).unwrap_or_default();
        let (names, begins, [flags, threads]) = (of(gpu_op::NAME), of(gpu_op::START), launches.map(of));
        for (at, (&name, &start)) in names.iter().zip(begins).enumerate() {
            let launched = flags.get(at).zip(threads.get(at)).filter(|(f, _)| *f & op_flags::HAS_LAUNCH != 0);
            let thread = launched.and_then(|(_, &thread)| u32::try_from(thread).ok()).map(ThreadId);
            if others.any() && others.launched(thread, capture.tables()).is_some() {
                continue;
            }
            let start = start.cast_signed();
            (first, last) = (first.min(start), last.max(start));
            let list = starts.entry(u32::try_from(name).unwrap_or(0)).or_default();
            // A name that returns this often is not a step but its inside.
            if list.starts.len() <= 4096 {
                list.starts.push(start);
                list.counts.push(count);
            }
            count += 1;
        }
        seen += names.len();
        if seen >= PERIOD_SAMPLE {
            break;
        }
    }
    let span = last.checked_sub(first).filter(|&s| s > 0)?;
    let tables = capture.tables();
    let mut regular: Vec<(i64, i64, &str, u32)> = starts
        .into_iter()
        .filter(|(_, list)| (LEAST_RETURNS..=4096).contains(&list.starts.len()))
        .filter_map(|(name, list)| {
            let (&from, &to) = (list.starts.first()?, list.starts.last()?);
            let period = list.period().filter(|_| to - from >= span / 2)?;
            Some((period, from, tables.string(StringId(name)), name))
        })
        .collect();
    // All operations of a step return with nearly the step's period: the first one of the step begins it. Names, not
    // their numbers, break ties, so that a trace gives the same steps however it was stored.
    let longest = regular.iter().map(|r| r.0).max()?;
    regular.retain(|r| r.0 >= longest - longest / 50);
    regular.iter().min_by_key(|r| (r.1, r.2)).map(|r| StringId(r.3))
}

/// Differences of neighbours, the smallest first.
fn intervals(values: &[i64]) -> Vec<i64> {
    let mut all: Vec<i64> = values.windows(2).filter_map(|w| w.get(1)?.checked_sub(*w.first()?)).collect();
    all.sort_unstable();
    all
}

/// The median interval, when the middle half of all intervals differs from each other by at most so much of it.
fn regular_period(starts: &[i64], most_jitter: f64) -> Option<i64> {
    let intervals = intervals(starts);
    let at = |share: usize| intervals.get(intervals.len() * share / 4).copied();
    let (low, median, high) = (at(1)?, at(2)?, at(3)?);
    let jitter = (high - low) as f64 / median.max(1) as f64;
    (median > 0 && jitter <= most_jitter).then_some(median)
}

/// A step that took notably longer than the others.
///
/// Slow is longer than the median by more than three scaled median absolute deviations (the usual robust 3σ) and by more
/// than a tenth: in a very regular loop the first alone would flag noise.
#[must_use]
pub fn slow_steps(walls_ns: &[u64]) -> Vec<usize> {
    let Some((median, mad)) = median_and_mad(walls_ns) else { return Vec::new() };
    let limit = (median as f64 + 3.0 * 1.4826 * mad as f64).max(median as f64 * 1.1);
    walls_ns.iter().enumerate().filter(|(_, w)| **w as f64 > limit).map(|(i, _)| i).collect()
}

/// Median and median absolute deviation; `None` for fewer than four values.
#[must_use]
pub fn median_and_mad(values: &[u64]) -> Option<(u64, u64)> {
    if values.len() < 4 {
        return None;
    }
    let median = percentile(values, 50)?;
    let deviations: Vec<u64> = values.iter().map(|v| v.abs_diff(median)).collect();
    Some((median, percentile(&deviations, 50)?))
}

/// The nearest-rank percentile of unsorted values.
#[must_use]
pub fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::{MOST_JITTER, Returns, percentile, regular_period, slow_steps};

    #[test]
    fn a_step_three_times_as_long_is_slow_and_noise_is_not() {
        let walls = [100, 101, 99, 100, 102, 300, 98, 100];
        assert_eq!(slow_steps(&walls), [5]);
        assert!(slow_steps(&[100, 104, 96, 100, 103, 97]).is_empty());
        assert!(slow_steps(&[100, 900, 100]).is_empty(), "three steps are too few to call one slow");
    }

    #[test]
    fn regular_returns_have_a_period_and_bursts_do_not() {
        let in_time = |starts: &[i64]| regular_period(starts, MOST_JITTER);
        assert_eq!(in_time(&[0, 100, 200, 299, 400]), Some(100));
        assert_eq!(in_time(&[0, 1, 2, 500, 501, 502, 1000]), None);
    }

    #[test]
    fn steps_of_any_length_have_the_same_operations() {
        // One at the begin of each step, in which there are eight.
        let begins = Returns { starts: vec![0, 100, 350, 400, 900, 960], counts: vec![0, 8, 16, 24, 32, 40] };
        assert_eq!(begins.period(), Some(192));
        let neither =
            Returns { starts: vec![0, 100, 350, 400, 900, 960], counts: vec![0, 8, 11, 24, 26, 60] };
        assert_eq!(neither.period(), None);
    }

    #[test]
    fn what_returns_in_bursts_is_no_step() {
        // Eight times in a row in each of three steps of 200 operations.
        let in_bursts = |step: i64| (0..8).map(move |k| (step * 1_000 + k, step * 200 + k));
        let (starts, counts): (Vec<i64>, Vec<i64>) = (0..3).flat_map(in_bursts).unzip();
        assert_eq!(regular_period(&starts, MOST_JITTER), Some(1));
        assert_eq!(Returns { starts, counts }.period(), None);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        assert_eq!(percentile(&[5, 1, 4, 2, 3], 50), Some(3));
        assert_eq!(percentile(&[1, 2], 95), Some(2));
        assert_eq!(percentile(&[], 50), None);
    }
}
