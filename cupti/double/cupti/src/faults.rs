//! What tests ask the stand-in to do wrong. Each fault that happens is a line of the truth log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stallscope_double_shared::link::Op;
use stallscope_double_shared::truth::{self, Line};
use stallscope_double_shared::{settings, sys};

/// Say that a fault was injected.
fn note(key: &str, dose: u64, correlation: u32) {
    let (pid, at_ns) = (sys::process_id(), sys::monotonic_ns());
    truth::write(&[Line::Fault(truth::Fault { pid, at_ns, key: key.to_owned(), dose, correlation })]);
}

/// What a fault on the way in does with a function: nothing, or it returns this code at once. Delays happen here.
pub(crate) fn on_entry(function: &str) -> Option<u32> {
    let settings = settings::now();
    let delay_key = format!("fault.delay_ms.{function}");
    let delay_ms: u64 = settings.number(&delay_key, 0);
    if delay_ms > 0 {
        note(&delay_key, delay_ms * 1_000_000, 0);
        // A hang is a delay that outlives the test: it must be seen in the log before it ends.
        truth::flush();
        std::thread::sleep(Duration::from_millis(delay_ms));
    }
    let code_key = format!("fault.code.{function}");
    let code: u32 = settings.get(&code_key)?.parse().ok()?;
    note(&code_key, code.into(), 0);
    Some(code)
}

/// What becomes of a device's record.
pub(crate) enum Fate {
    /// It is delivered as it is, or spoilt.
    Deliver,
    /// It is dropped and counted.
    Drop,
    /// It is dropped, and nobody is told.
    Lose,
}

/// Spoil a record, or decide that it is dropped.
pub(crate) fn on_record(op: &mut Op, now_ns: u64) -> Fate {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let number = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
    settings::keep_fresh(now_ns);
    if !settings::has_faults() {
        return Fate::Deliver;
    }
    let settings = settings::current(now_ns);
    let is_due = |key: &str| {
        let every: u64 = settings.number(key, 0);
        let due = every > 0 && number.is_multiple_of(every);
        if due {
            note(key, 1, op.correlation);
        }
        due
    };
    if is_due("fault.drop") {
        return Fate::Drop;
    }
    if is_due("fault.drop_uncounted") {
        return Fate::Lose;
    }
    if is_due("fault.end_zero") {
        op.end_ns = 0;
    }
    if is_due("fault.end_before_start") {
        op.end_ns = op.start_ns.saturating_sub(1_000);
    }
    Fate::Deliver
}
