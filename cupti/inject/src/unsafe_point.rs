//! Why a thread was not borrowed.

use std::collections::BTreeMap;
use std::fmt;

/// What a thread was doing that it could not be borrowed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UnsafePoint {
    /// It runs, or waits for the disk.
    Running,
    /// It waits for a lock: a mutex, or a lock of the C library.
    Lock,
    /// It waits in a call that cannot be issued again, or that may be made with a lock held.
    OtherCall,
    /// It waits in a call that the C library did not make.
    OtherCode,
    /// It reads a file.
    File,
    /// It is in a handler of a signal, which may have interrupted an allocation.
    Handler,
    /// It has no thread control block of glibc.
    NotGlibc,
    /// It is stopped by a signal.
    Stopped,
    /// A signal came in the moment that it was looked at.
    Signal,
    /// It ended, or its call did, in the moment that it was looked at.
    Moved,
    /// It did not stop in time.
    Unresponsive,
}

impl fmt::Display for UnsafePoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Running => "running",
            Self::Lock => "waiting for a lock",
            Self::OtherCall => "in another system call",
            Self::OtherCode => "in a system call not made by the C library",
            Self::File => "reading a file",
            Self::Handler => "in a signal handler",
            Self::NotGlibc => "without a thread control block of glibc",
            Self::Stopped => "stopped",
            Self::Signal => "about to handle a signal",
            Self::Moved => "moving on",
            Self::Unresponsive => "not stopping",
        })
    }
}

/// Threads by what they were doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<UnsafePoint, u32>);

impl Tally {
    pub(crate) fn add(&mut self, point: UnsafePoint) {
        *self.0.entry(point).or_default() += 1;
    }

    /// Threads that were doing this.
    #[must_use]
    pub fn count(&self, point: UnsafePoint) -> u32 {
        self.0.get(&point).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("it had no thread that stayed");
        }
        for (index, (point, count)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(out, "{separator}{count} {point}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, UnsafePoint};

    #[test]
    fn a_tally_reads_as_a_list() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "it had no thread that stayed");
        for point in [UnsafePoint::Lock, UnsafePoint::Running, UnsafePoint::Running] {
            tally.add(point);
        }
        assert_eq!(tally.to_string(), "2 running, 1 waiting for a lock");
    }
}
