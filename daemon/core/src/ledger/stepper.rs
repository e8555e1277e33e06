//! Cuts a device's time line into steps while its operations pass.

use hashbrown::HashMap;
use stallscope_schemas::units::{DeviceId, StringId, TimeNs};

use super::device::DeviceLedger;
use super::leaf::Sums;
use crate::rows::Launch;
use crate::steps::{MAX_STEPS, Mark, StepPlan};

/// The ledger of one step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The trace's name for it; the empty string where the step was found by its period.
    pub name: StringId,
    /// When it began on the device.
    pub start: TimeNs,
    /// When it ended there.
    pub end: TimeNs,
    /// Whether all of it lies in the window: the first one may have begun before.
    pub whole: bool,
    /// Its time by leaf.
    pub sums: Sums,
    /// Time that others waited for this device, as waits that ended in this step, ns.
    pub charged_ns: u64,
}

/// Where the time line is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Not before this moment of the host, or of the device.
    pub(super) earliest: TimeNs,
    /// The step that begins; none where one ends without a next.
    pub(super) begins: Option<StringId>,
}

pub(super) struct Stepper {
    pub(super) plan: StepPlan,
    window_start: TimeNs,
    /// Marks that have been entered.
    entered: usize,
    /// End of the mark that was entered last, until that cut has been made.
    ends: Option<TimeNs>,
    open: Option<(StringId, TimeNs, bool)>,
    pub(super) done: Vec<Step>,
}

impl Stepper {
    pub(super) fn new(plan: StepPlan, window_start: TimeNs) -> Self {
        Self { plan, window_start, entered: 0, ends: None, open: None, done: Vec::new() }
    }

    /// The next cut that lies before an operation of this name, start and launch. Called until there is none.
    #[inline]
    pub(super) fn cut_before(
        &mut self,
        name: StringId,
        start: TimeNs,
        launch: Option<Launch>,
    ) -> Option<Cut> {
        let clock = match &self.plan {
            StepPlan::None => return None,
            StepPlan::Anchor(anchor) => {
                // One operation, one cut: the second call for it finds the step open.
                let begins = *anchor == name && self.open.is_none_or(|(_, since, _)| since < start);
                return begins.then_some(Cut { earliest: start, begins: Some(StringId(0)) });
            }
            StepPlan::Launched(_) => launch?.start,
            StepPlan::OnDevice(_) => start,
        };
        self.mark_before(clock)
    }

    /// The next begin or end of a mark at or before a moment.
    fn mark_before(&mut self, clock: TimeNs) -> Option<Cut> {
        let (StepPlan::Launched(marks) | StepPlan::OnDevice(marks)) = &self.plan else { return None };
        let next: Option<&Mark> = marks.get(self.entered).filter(|_| self.done.len() < MAX_STEPS);
        if let Some(end) = self.ends.filter(|&end| end <= clock && next.is_none_or(|n| end < n.start)) {
            self.ends = None;
            return Some(Cut { earliest: end, begins: None });
        }
        let mark = next.filter(|m| m.start <= clock)?;
        self.entered += 1;
        self.ends = Some(mark.end);
        Some(Cut { earliest: mark.start, begins: Some(mark.name) })
    }

    /// The end of the step that is open when the operations end, if its mark ended before the window did.
    pub(super) fn cut_at_end(&mut self) -> Option<Cut> {
        self.ends.take().map(|end| Cut { earliest: end, begins: None })
    }

    /// Makes a cut at `at` with the sums since the one before.
    pub(super) fn cut(&mut self, at: TimeNs, cut: Cut, sums: Sums) {
        self.close(at, sums);
        let whole = cut.earliest > self.window_start || matches!(self.plan, StepPlan::Anchor(_));
        self.open = cut.begins.map(|name| (name, at, whole));
    }

    pub(super) fn close(&mut self, at: TimeNs, sums: Sums) {
        if let Some((name, start, whole)) = self.open.take()
            && start < at
            && self.done.len() < MAX_STEPS
        {
            self.done.push(Step { name, start, end: at, whole, sums, charged_ns: 0 });
        }
    }
}

/// When the steps of each device began and ended.
pub(super) struct StepBounds {
    by_device: HashMap<DeviceId, Vec<(TimeNs, TimeNs)>>,
}

impl StepBounds {
    pub(super) fn of(ledgers: &[DeviceLedger]) -> Self {
        let bounds = |ledger: &DeviceLedger| ledger.steps.iter().map(|s| (s.start, s.end)).collect();
        Self { by_device: ledgers.iter().map(|ledger| (ledger.device, bounds(ledger))).collect() }
    }

    /// The step that was under way at a moment, with its begin and end.
    fn at(&self, device: DeviceId, moment: TimeNs) -> Option<(usize, TimeNs, TimeNs)> {
        let steps = self.by_device.get(&device)?;
        let number = steps.partition_point(|(start, _)| *start <= moment).checked_sub(1)?;
        let &(start, end) = steps.get(number)?;
        (moment < end).then_some((number, start, end))
    }
}

/// What others waited for each device, by its steps: a wait belongs to the step in which the late one came.
#[derive(Default)]
pub(super) struct ChargedSteps {
    by_device: HashMap<DeviceId, Charged>,
}

#[derive(Default)]
struct Charged {
    total_ns: u64,
    steps: HashMap<usize, u64>,
    /// The step that was asked for last: waits come in the order of time.
    last: Option<(usize, TimeNs, TimeNs)>,
}

impl ChargedSteps {
    /// Charges a wait that ended at `at`; outside of steps it counts to the total alone.
    pub(super) fn add(&mut self, bounds: &StepBounds, device: DeviceId, at: TimeNs, ns: u64) {
        let charged = self.by_device.entry(device).or_default();
        charged.total_ns = charged.total_ns.saturating_add(ns);
        let same = charged.last.filter(|&(_, start, end)| start <= at && at < end);
        charged.last = same.or_else(|| bounds.at(device, at)).or(charged.last);
        if let Some((step, ..)) = charged.last.filter(|&(_, start, end)| start <= at && at < end) {
            let sum = charged.steps.entry(step).or_default();
            *sum = sum.saturating_add(ns);
        }
    }

    /// Adds what another has.
    pub(super) fn merge(&mut self, other: Self) {
        for (device, other) in other.by_device {
            let charged = self.by_device.entry(device).or_default();
            charged.total_ns = charged.total_ns.saturating_add(other.total_ns);
            for (step, ns) in other.steps {
                let sum = charged.steps.entry(step).or_default();
                *sum = sum.saturating_add(ns);
            }
        }
    }

    /// Hands the sums to the ledgers.
    pub(super) fn fill(mut self, ledgers: &mut [DeviceLedger]) {
        for ledger in ledgers {
            let Charged { total_ns, steps, .. } = self.by_device.remove(&ledger.device).unwrap_or_default();
            ledger.root.charged_ns = total_ns;
            for (step, ns) in steps {
                if let Some(step) = ledger.steps.get_mut(step) {
                    step.charged_ns = ns;
                }
            }
        }
    }
}
