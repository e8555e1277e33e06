//! What a device's own counters say of why it is slow: its clocks and what holds them down, errors of its memory, its link, held against
//! those of the devices that wait for it. NVML is asked once a second, so this is about all of a recording and not about one kernel.

use std::collections::BTreeMap;

use stallscope_schemas::units::{DeviceId, TimeNs};

use crate::capture::{Capture, ReadAt};
use crate::ledger::DeviceLedger;
use crate::rows::Counter;

const SM_CLOCK: &str = "sm clock (MHz)";
const MEMORY_CLOCK: &str = "memory clock (MHz)";
const TEMPERATURE: &str = "temperature (C)";
const REASONS: &str = "clock throttle reasons (bits)";
const WIDTH: &str = "pcie link width (lanes)";
const GENERATION: &str = "pcie link generation (number)";
const ECC: [(&str, &str); 2] =
    [("ecc corrected errors (count)", "corrected"), ("ecc uncorrected errors (count)", "uncorrected")];

/// Why clocks are not higher, by bit; being idle and a sync boost are no reasons of the device's.
const WHY: [(u64, &str); 7] = [
    (2, "application clocks"),
    (4, "the power cap"),
    (8, "a hardware slowdown"),
    (32, "heat (software)"),
    (64, "heat (hardware)"),
    (128, "the power brake"),
    (256, "display clocks"),
];

/// A clock that is lower by this share is a reason to be slow, in percent.
const LOWER_PERCENT: f64 = 2.0;

/// What held a clock down is a reason if it did so in this share of the samples more than with the others.
const MORE_OFTEN: f64 = 0.05;

/// Samples of a counter.
#[derive(Default)]
struct Samples {
    first: u64,
    last: u64,
    sum: u128,
    count: u64,
    /// How often each of [`WHY`] was set.
    bits: [u64; WHY.len()],
}

impl Samples {
    fn add(&mut self, value: u64) {
        if self.count == 0 {
            self.first = value;
        }
        self.last = value;
        self.sum += u128::from(value);
        self.count += 1;
        for (count, (bit, _)) in self.bits.iter_mut().zip(WHY) {
            *count += u64::from(value & bit != 0);
        }
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }
}

type ByName = BTreeMap<&'static str, Samples>;

fn samples<S: ReadAt>(capture: &Capture<S>, device: DeviceId, (from, to): (TimeNs, TimeNs)) -> ByName {
    let mut all = ByName::new();
    let wanted = [SM_CLOCK, MEMORY_CLOCK, TEMPERATURE, REASONS, WIDTH, GENERATION];
    for row in capture.rows::<Counter>(device.0).filter(|row| from <= row.start && row.start <= to) {
        let name = capture.tables().string(row.name);
        let known = wanted.into_iter().chain(ECC.map(|(name, _)| name)).find(|wanted| *wanted == name);
        if let Some(name) = known.filter(|_| row.duration_ns == 0) {
            all.entry(name).or_default().add(row.value);
        }
    }
    all
}

/// What the counters of a device say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clocks {
    /// How many times as high the SM clocks of the others are, where they were sampled and are higher.
    pub(super) others_are: Option<f64>,
    /// One sentence each.
    pub(super) said: Vec<String>,
}

/// Holds the counters of a device against those of others.
pub(super) fn clocks<S: ReadAt>(
    capture: &Capture<S>,
    late: &DeviceLedger,
    others: &[&DeviceLedger],
) -> Clocks {
    let of = |ledger: &DeviceLedger| samples(capture, ledger.device, (ledger.start, ledger.end));
    let own = of(late);
    let theirs: Vec<ByName> = others.iter().map(|ledger| of(ledger)).collect();
    let mut out = Clocks::default();
    // The median of the others: one of them may be slow as well.
    let usual = |name: &str| {
        let mut means: Vec<f64> = theirs.iter().filter_map(|all| Some(all.get(name)?.mean())).collect();
        means.sort_by(f64::total_cmp);
        means.get(means.len() / 2).copied()
    };
    for (name, what) in [(SM_CLOCK, "SM clock"), (MEMORY_CLOCK, "memory clock")] {
        let (Some(own), Some(usual)) = (own.get(name).map(Samples::mean), usual(name)) else { continue };
        let lower = own * (1.0 + LOWER_PERCENT / 100.0) < usual;
        if lower {
            out.said
                .push(format!("its {what} was {own:.0} MHz on average, that of the others {usual:.0} MHz"));
        } else if name == SM_CLOCK {
            out.said.push(format!("its {what} ({own:.0} MHz) is no lower than that of the others"));
        }
        if lower && name == SM_CLOCK {
            out.others_are = Some(usual / own.max(1.0));
        }
    }
    if let Some(reasons) = own.get(REASONS) {
        let theirs_have = |at: usize| {
            let all = theirs.iter().filter_map(|all| all.get(REASONS));
            let (set, of) =
                all.fold((0, 0), |sum, s| (sum.0 + s.bits.get(at).unwrap_or(&0), sum.1 + s.count));
            set as f64 / f64::max(of as f64, 1.0)
        };
        for (at, (set, (_, what))) in reasons.bits.iter().zip(WHY).enumerate() {
            let share = *set as f64 / reasons.count.max(1) as f64;
            if share > theirs_have(at) + MORE_OFTEN {
                out.said.push(format!("{what} held its clocks down in {set} of {} samples", reasons.count));
            }
        }
    }
    if let (Some(own), Some(usual)) = (own.get(TEMPERATURE).map(Samples::mean), usual(TEMPERATURE))
        && own >= usual + 5.0
    {
        out.said.push(format!("it had {own:.0} °C, the others {usual:.0} °C"));
    }
    for (name, what) in ECC {
        if let Some(errors) = own.get(name).filter(|errors| errors.last > errors.first) {
            out.said.push(format!("{} {what} errors of its memory", errors.last - errors.first));
        }
    }
    for (name, what) in [(WIDTH, "lanes"), (GENERATION, "generation")] {
        if let (Some(own), Some(usual)) = (own.get(name).map(Samples::mean), usual(name))
            && own.round() < usual.round()
        {
            out.said.push(format!("its PCIe link has {what} {own:.0}, those of the others {usual:.0}"));
        }
    }
    if out.said.is_empty() {
        let why = if own.is_empty() {
            "no counters of it were recorded"
        } else {
            "its counters show nothing unusual"
        };
        out.said.push(why.to_owned());
    }
    out
}
