//! Cuts a device's time line into steps while its operations pass.

use stallscope_schemas::units::{StringId, TimeNs};

use super::leaf::Sums;
use crate::rows::Launch;
use crate::steps::{MAX_STEPS, StepPlan};

/// The ledger of one step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The trace's name for it; the empty string where the step was found by its period.
    pub name: StringId,
    /// When it began on the device.
    pub start: TimeNs,
    /// When the next one began, or the window ended.
    pub end: TimeNs,
    /// Its time by leaf.
    pub sums: Sums,
}

/// Splits the time line into steps as operations pass.
pub(super) struct Stepper {
    pub(super) plan: StepPlan,
    /// Marks of the plan that have been passed.
    passed: usize,
    open: Option<(StringId, TimeNs)>,
    pub(super) done: Vec<Step>,
}

impl Stepper {
    pub(super) fn new(plan: StepPlan) -> Self {
        Self { plan, passed: 0, open: None, done: Vec::new() }
    }

    /// Whether the operation begins a step: its name and the earliest moment that belongs to it.
    #[inline]
    pub(super) fn begins(
        &mut self,
        name: StringId,
        start: TimeNs,
        launch: Option<Launch>,
    ) -> Option<(StringId, TimeNs)> {
        if self.done.len() >= MAX_STEPS {
            return None;
        }
        let (marks, clock) = match &self.plan {
            StepPlan::None => return None,
            StepPlan::Anchor(anchor) => return (*anchor == name).then_some((StringId(0), start)),
            StepPlan::Launched(marks) => (marks, launch?.start),
            StepPlan::OnDevice(marks) => (marks, start),
        };
        let mut begun = None;
        while let Some(&(at, name)) = marks.get(self.passed).filter(|(at, _)| *at <= clock) {
            begun = Some((name, at));
            self.passed += 1;
        }
        begun
    }

    /// Ends the open step at `at` with the sums since it began, and opens the next.
    pub(super) fn turn(&mut self, at: TimeNs, name: StringId, sums: Sums) {
        self.close(at, sums);
        self.open = Some((name, at));
    }

    pub(super) fn close(&mut self, at: TimeNs, sums: Sums) {
        if let Some((name, start)) = self.open.take()
            && start < at
        {
            self.done.push(Step { name, start, end: at, sums });
        }
    }
}
