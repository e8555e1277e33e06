//! Devices of one clock whose collectives say that it is not one: what their times are off by against the others.
//!
//! A device whose clock is wrong by more than its error cannot be matched. What its collectives allow its clock to be off by, against
//! those of a device that was matched, is worked out as for sources with clocks of their own (`clocks`).

use std::collections::BTreeMap;

use stallscope_schemas::units::DeviceId;

use super::clock_error_ns;
use super::clocks::between;
use super::lanes::{self, Lane};
use crate::capture::{Capture, ReadAt};

/// Kernels of a device that are looked at, the first ones of its communicators: a tenth of a second of work.
const MAX_MARKS: usize = 1 << 14;

/// What a device's clock is off by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Off {
    /// The device, and the one that it is held against.
    pub(crate) device: DeviceId,
    pub(crate) against: DeviceId,
    /// What its times are ahead of the other's by, at least and at most, over the recording, ns.
    pub(crate) ahead_ns: (i64, i64),
    /// How often it was set.
    pub(crate) steps: u32,
    /// What its clock is said to be wrong by at most, ns.
    pub(crate) claimed_ns: u64,
}

/// Of these devices those whose clock is off against that of `reference`, by more than both are said to be wrong by.
pub(crate) fn off<S: ReadAt>(capture: &Capture<S>, reference: DeviceId, devices: &[DeviceId]) -> Vec<Off> {
    let mut asked = vec![reference];
    asked.extend(devices);
    let mut lanes = lanes::of(capture, &asked, false);
    let mut left: BTreeMap<DeviceId, usize> = asked.iter().map(|&device| (device, MAX_MARKS)).collect();
    for lane in &mut lanes {
        let left = left.entry(lane.device).or_default();
        lane.marks.truncate(*left);
        *left = left.saturating_sub(lane.marks.len());
    }
    let mut by_device: BTreeMap<DeviceId, Vec<&Lane>> = BTreeMap::new();
    for lane in lanes.iter().filter(|lane| !lane.marks.is_empty()) {
        by_device.entry(lane.device).or_default().push(lane);
    }
    let claimed_ns = clock_error_ns(capture);
    let Some(known) = by_device.get(&reference) else { return Vec::new() };
    let one = |&device: &DeviceId| {
        let (moments, wild) = between(known, by_device.get(&device)?)?;
        if wild {
            return None;
        }
        let low = moments.iter().map(|m| m.shift_ns.saturating_sub_unsigned(m.less_ns));
        let high = moments.iter().map(|m| m.shift_ns.saturating_add_unsigned(m.more_ns));
        // At some moment no shift within the error is allowed.
        let error = i64::try_from(claimed_ns.saturating_mul(2)).unwrap_or(i64::MAX);
        let is_off = low.clone().zip(high.clone()).any(|(low, high)| low > error || high < -error);
        let shifts = || moments.iter().map(|moment| moment.shift_ns.saturating_neg());
        let ahead_ns = (shifts().min()?, shifts().max()?);
        let steps = moments.last().map_or(0, |moment| moment.stretch);
        is_off.then_some(Off { device, against: reference, ahead_ns, steps, claimed_ns })
    };
    devices.iter().filter_map(one).collect()
}
