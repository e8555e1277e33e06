//! Newtypes for values that look alike and must not be mixed up.

use std::fmt;

/// A point in time in nanoseconds.
///
/// Where it counts from depends on where it is: in a column of a capture it is the clock of the row's source; after the
/// reader has applied the source's [`Clock`](crate::capture::Clock) it is the time line of the capture, which is Unix
/// time wherever the source says how its clock relates to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeNs(pub i64);

impl TimeNs {
    /// Nanoseconds from `earlier` to `self`; 0 when `self` is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// `self + ns`, saturating at the end of the representable range (the year 2262).
    #[must_use]
    pub fn plus(self, ns: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ns))
    }

    /// `self - ns`, saturating at the begin of the representable range (the year 1677).
    #[must_use]
    pub fn minus(self, ns: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ns))
    }
}

impl fmt::Display for TimeNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0)
    }
}

macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index_type!(
    /// A row of the string table. Row 0 is the empty string.
    StringId
);
index_type!(
    /// A row of the stack table, which is a tree of frames with the callee as the child. Row 0 is the empty stack.
    StackId
);
index_type!(
    /// A file, process ring or other origin with a clock of its own.
    SourceId
);
index_type!(
    /// A row of the process table (not a pid: pids are reused).
    ProcessId
);
index_type!(
    /// A row of the thread table (not a tid: tids are reused).
    ThreadId
);
index_type!(
    /// A row of the device table (not an ordinal: every process numbers its devices from 0).
    DeviceId
);

/// CUPTI's or roctracer's number that ties a GPU operation to the host call that asked for it. Unique in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrelationId(pub u64);
