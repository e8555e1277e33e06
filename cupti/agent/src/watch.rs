//! What the daemon wants, and whether it is still there.

use core::sync::atomic::Ordering;

use stallscope_cupti_wire::{Command, Header, Reason};

/// What is to be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bits of activity kinds.
    pub(crate) kinds: u64,
    /// Launches a second that may fire the USDT site; 0 none.
    pub(crate) launch_sample: u64,
    /// How often CUPTI is asked for what is complete.
    pub(crate) flush_interval_ns: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing; with the reason where it was not the daemon who said so.
    Rest(Reason),
    Collect(Plan),
    Leave,
}

/// Where the daemon announced nothing.
const DEFAULT_TIMEOUT_NS: u64 = 10_000_000_000;
const DEFAULT_FLUSH_NS: u64 = 50_000_000;

/// More often costs more than it brings; less often and the buffers of a busy job run out.
const FLUSH_NS: core::ops::RangeInclusive<u64> = 5_000_000..=1_000_000_000;

/// The daemon as the agent sees it. Moments of the daemon's clock are not compared with ours, which may be another's in a
/// namespace of time: what counts is when they changed.
#[derive(Debug)]
pub(crate) struct Watch {
    heartbeat: u64,
    control: u32,
    heard_ns: u64,
}

impl Watch {
    pub(crate) fn new(header: &Header, now_ns: u64) -> Self {
        Self {
            heartbeat: header.heartbeat.load(Ordering::Relaxed),
            control: header.control.load(Ordering::Acquire),
            heard_ns: now_ns,
        }
    }

    /// What is to be done now, and the value of `control` that says so.
    pub(crate) fn wish(&mut self, header: &Header, now_ns: u64) -> (Wish, u32) {
        // Before the words that it announces.
        let control = header.control.load(Ordering::Acquire);
        let heartbeat = header.heartbeat.load(Ordering::Relaxed);
        if heartbeat != self.heartbeat || control != self.control {
            self.heartbeat = heartbeat;
            self.control = control;
            self.heard_ns = now_ns;
        }
        let wish = match Command::from_id(header.command.load(Ordering::Relaxed)) {
            Some(Command::Leave) => Wish::Leave,
            Some(Command::Collect) => {
                let timeout_ns = match header.heartbeat_timeout_ns.load(Ordering::Relaxed) {
                    0 => DEFAULT_TIMEOUT_NS,
                    ns => ns,
                };
                if now_ns.saturating_sub(self.heard_ns) > timeout_ns {
                    Wish::Rest(Reason::DaemonGone)
                } else {
                    Wish::Collect(Plan {
                        kinds: header.kinds.load(Ordering::Relaxed),
                        launch_sample: header.launch_sample.load(Ordering::Relaxed),
                        flush_interval_ns: match header.flush_interval_ns.load(Ordering::Relaxed) {
                            0 => DEFAULT_FLUSH_NS,
                            ns => ns.clamp(*FLUSH_NS.start(), *FLUSH_NS.end()),
                        },
                    })
                }
            }
            Some(Command::Rest) | None => Wish::Rest(Reason::None),
        };
        (wish, control)
    }
}
