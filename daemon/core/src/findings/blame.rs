//! Who is to blame, where a finding says so: ranks, the chain from the loss to its cause, and how sure that is.

use serde::Serialize;

/// One link of a chain, from where time was lost to where that came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The rank, where one is known.
    pub rank: Option<u32>,
    /// The process.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// What it did, in words.
    pub what: String,
    /// For how long, ns.
    pub ns: u64,
}

/// Who is to blame. Empty where a finding blames nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Blame {
    /// Ranks that the loss comes from, in ascending order.
    pub culprit_ranks: Vec<u32>,
    /// From the loss to its root.
    pub chain: Vec<Link>,
    /// Share of `ns` for which the capture has the evidence, 0 to 1: what lies outside of the error of the clocks and of
    /// lost records, for a hang the share of the group's members that were heard, of bad links the share of what is bad that
    /// lies on those named. None where nobody is blamed.
    pub confidence: Option<f64>,
    /// Time that the job would save without this cause, ns, by simulating the job anew; of a late GPU rank whose job cannot be simulated,
    /// how long it alone was missing. None where that was not worked out.
    pub recoverable_ns: Option<u64>,
}
