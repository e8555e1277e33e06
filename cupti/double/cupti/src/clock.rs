//! CUPTI's clock: CLOCK_REALTIME, unless a client or a test chose another.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError};

use stallscope_double_shared::settings::{self, Settings};
use stallscope_double_shared::sys;

/// A client's clock, as the address of its function; 0 if there is none.
static CALLBACK: AtomicUsize = AtomicUsize::new(0);

/// A clock of a client.
pub(crate) type Callback = extern "C" fn() -> u64;

pub(crate) fn set_callback(callback: Option<Callback>) {
    CALLBACK.store(callback.map_or(0, |c| c as usize), Ordering::Release);
}

/// From CLOCK_MONOTONIC to CUPTI's clock at this moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offset {
    ns: i128,
    skew_ns: i64,
}

impl Offset {
    /// A moment of the host.
    pub(crate) fn host(self, monotonic_ns: u64) -> u64 {
        u64::try_from(i128::from(monotonic_ns) + self.ns).unwrap_or(0)
    }

    /// A moment of a device. 0 stays 0: it is no time.
    pub(crate) fn device(self, monotonic_ns: u64) -> u64 {
        if monotonic_ns == 0 { 0 } else { self.host(monotonic_ns.saturating_add_signed(self.skew_ns)) }
    }
}

/// An offset is good for so long.
const GOOD_FOR_NS: u64 = 2_000_000;

/// A measured offset and what it holds for.
struct Measured {
    at_ns: u64,
    generation: u64,
    callback: usize,
    jumpy: bool,
    offset: Offset,
}

/// The offset at `now_ns`.
pub(crate) fn offset(now_ns: u64) -> Offset {
    static KNOWN: Mutex<Option<Measured>> = Mutex::new(None);
    settings::keep_fresh(now_ns);
    let (generation, callback) = (settings::generation(), CALLBACK.load(Ordering::Acquire));
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*known
        && now_ns.saturating_sub(known.at_ns) < GOOD_FOR_NS
        && (known.generation, known.callback, known.jumpy) == (generation, callback, false)
    {
        return known.offset;
    }
    let settings = settings::current(now_ns);
    let offset = measure(&settings, callback);
    let jumpy = settings.get("cupti.clock") == Some("jumpy");
    *known = Some(Measured { at_ns: now_ns, generation, callback, jumpy, offset });
    offset
}

fn measure(settings: &Settings, callback: usize) -> Offset {
    let skew_ns = settings.number("cupti.device_skew_ns", 0) + drift_ns(settings);
    if callback != 0 {
        // SAFETY: only `set_callback` stores it, from a function of this type.
        let callback = unsafe { std::mem::transmute::<usize, Callback>(callback) };
        let (before_ns, time, after_ns) = (sys::monotonic_ns(), callback(), sys::monotonic_ns());
        return Offset { ns: i128::from(time) - i128::from(before_ns.midpoint(after_ns)), skew_ns };
    }
    let real_ns = i128::from(sys::realtime_minus_monotonic_ns());
    let ns = match settings.get("cupti.clock") {
        Some("monotonic") => 0,
        Some("fast") => real_ns + i128::from(sys::monotonic_ns() / 10_000),
        Some("jumpy") => real_ns + i128::from(jump_ns()),
        _ => real_ns,
    };
    Offset { ns, skew_ns }
}

/// What device times have gained since they were first asked for.
fn drift_ns(settings: &Settings) -> i64 {
    static SINCE_NS: OnceLock<u64> = OnceLock::new();
    let now_ns = sys::monotonic_ns();
    let passed_us = now_ns.saturating_sub(*SINCE_NS.get_or_init(|| now_ns)) / 1_000;
    let gained_ns = i128::from(passed_us) * settings.number::<i128>("cupti.device_drift_ppm", 0) / 1_000;
    i64::try_from(gained_ns).unwrap_or(0)
}

/// Between -1 and 1 ms, the same sequence in every run.
fn jump_ns() -> i64 {
    static STATE: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);
    let mut x = STATE.load(Ordering::Relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.store(x, Ordering::Relaxed);
    i64::try_from(x % 2_000_001).unwrap_or(0) - 1_000_000
}

/// What cuptiGetTimestamp says.
pub(crate) fn now() -> u64 {
    let now_ns = sys::monotonic_ns();
    offset(now_ns).host(now_ns)
}
