//! Which launches fire the USDT site: a sample by kernel and by place, within a budget of stacks a second.
//!
//! - A *place* is a thread with the depth of its stack at the call. Which line called cannot be had on the launch path:
//!   NVIDIA's libraries lie between, and nothing says that their frames can be walked. What calls from elsewhere mostly
//!   calls from another depth.
//! - Each kernel at each place has its first launches sampled. After that kernels share the budget: those that launch
//!   seldom have all of theirs sampled, the others equally many each. The launches of one kernel are sampled at one rate
//!   whatever their place, so that how often each place comes up says how often it launches.
//!
//! Memory is fixed. A launch is a look-up of four neighbouring words, one addition and a few comparisons: no lock, no
//! allocation, no system call. What does not fit the tables counts as one kernel at one place. Rates are made on the
//! agent's thread.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Launches of a kernel at a place that are sampled whatever the rate is.
const FIRST: u64 = 2;

/// Pairs of kernel and place, and kernels, that are told apart: training jobs launch some hundred kernels.
const PAIRS: usize = 1024;
const KERNELS: usize = 512;

/// A key is looked for in one row of so many places.
const WAYS: usize = 4;

/// One in so many, of a kernel of which nothing is known yet.
const BEGIN_EVERY: u64 = 64;

/// How often rates are made anew.
const LOOK_NS: u64 = 200_000_000;

/// What is kept for the first launches of pairs that come up: one part in so many of the budget.
const RESERVE: u64 = 8;

/// A kernel that launches less often than before is believed by so much at a look: half of it in a second.
const DECAY: (u64, u64) = (7, 8);

/// A kernel at a place; key 0 is nobody's.
#[derive(Debug)]
struct Pair {
    key: AtomicU64,
    launches: AtomicU64,
    /// Its kernel's place in the table, 0 where it has none.
    kernel: AtomicUsize,
}

#[derive(Debug)]
struct Kernel {
    key: AtomicU64,
    /// One launch in so many; 0 while nothing is known.
    every: AtomicU64,
    /// Launches at the last look, and a second as far as is known; the agent's thread only.
    seen: AtomicU64,
    rate: AtomicU64,
}

impl Pair {
    const fn new() -> Self {
        Self { key: AtomicU64::new(0), launches: AtomicU64::new(0), kernel: AtomicUsize::new(0) }
    }
}

impl Kernel {
    const fn new() -> Self {
        Self {
            key: AtomicU64::new(0),
            every: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        }
    }
}

/// The tables. The last pair and the first kernel stand for all that did not fit. All zero at first: no bytes of the file.
#[derive(Debug)]
pub(crate) struct Sample {
    pairs: [Pair; PAIRS + 1],
    kernels: [Kernel; KERNELS + 1],
    /// Samples that may be taken before the next look.
    credit: AtomicU64,
    sampled: AtomicU64,
    /// Launches counted before the tables were last emptied.
    before: AtomicU64,
    /// When credit was last given, and rates were last made; the agent's thread only.
    credited_ns: AtomicU64,
    looked_ns: AtomicU64,
}

/// The finishing steps of splitmix64.
const fn mix(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Whether this launch is the one of its stretch of `every` that is sampled. Which one that is changes from stretch to
/// stretch as if by chance: in a loop of so many launches it would else be the same one each time.
pub(crate) const fn is_sampled(launch: u64, every: u64) -> bool {
    let (Some(stretch), Some(place)) = (launch.checked_div(every), launch.checked_rem(every)) else {
        return false;
    };
    match mix(stretch).checked_rem(every) {
        Some(chosen) => chosen == place,
        None => false,
    }
}

/// The row of a key, by its first place.
fn row(key: u64, places: usize) -> usize {
    let rows = places / WAYS;
    // Below the number of rows, which is a word's worth.
    usize::try_from((key >> 1).checked_rem(rows as u64).unwrap_or(0)).unwrap_or(0) * WAYS
}

impl Sample {
    pub(crate) const fn new() -> Self {
        Self {
            pairs: [const { Pair::new() }; PAIRS + 1],
            kernels: [const { Kernel::new() }; KERNELS + 1],
            credit: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            before: AtomicU64::new(0),
            credited_ns: AtomicU64::new(0),
            looked_ns: AtomicU64::new(0),
        }
    }

    // On any thread of the job.

    /// A launch of this kernel from this place: whether it is one of the sample.
    pub(crate) fn launch(&self, kernel: u64, place: u64) -> bool {
        let kernel = mix(kernel) | 1;
        let pair = self.pair(kernel, mix(kernel ^ place) | 1);
        let Some(pair) = self.pairs.get(pair) else { return false };
        let launches = pair.launches.fetch_add(1, Ordering::Relaxed);
        let every = || {
            let kernel = pair.kernel.load(Ordering::Relaxed);
            match self.kernels.get(kernel).map_or(0, |kernel| kernel.every.load(Ordering::Relaxed)) {
                0 => BEGIN_EVERY,
                every => every,
            }
        };
        let is_wanted = launches < FIRST || is_sampled(launches, every());
        is_wanted && self.pay()
    }

    fn pair(&self, kernel: u64, key: u64) -> usize {
        let first = row(key, PAIRS);
        for (at, pair) in self.pairs.iter().enumerate().skip(first).take(WAYS) {
            let found = pair.key.load(Ordering::Relaxed);
            if found == key {
                return at;
            }
            if found == 0 {
                match pair.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        // Until then it counts as one of those that did not fit.
                        pair.kernel.store(self.kernel(kernel), Ordering::Relaxed);
                        return at;
                    }
                    Err(other) if other == key => return at,
                    Err(_) => {}
                }
            }
        }
        PAIRS
    }

    fn kernel(&self, key: u64) -> usize {
        let first = 1 + row(key, KERNELS);
        for (at, kernel) in self.kernels.iter().enumerate().skip(first).take(WAYS) {
            let found = kernel.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            if found.is_ok() || found == Err(key) {
                return at;
            }
        }
        0
    }

    /// Takes one sample's worth of the budget, if there is any.
    fn pay(&self) -> bool {
        let paid = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if paid.is_ok() {
            self.sampled.fetch_add(1, Ordering::Relaxed);
        }
        paid.is_ok()
    }

    // On the agent's thread.

    /// Forgets all kernels: what is sampled next is another recording's.
    pub(crate) fn begin(&self, budget: u64, now_ns: u64) {
        self.before.store(self.launches(), Ordering::Relaxed);
        for pair in &self.pairs {
            pair.key.store(0, Ordering::Relaxed);
            pair.launches.store(0, Ordering::Relaxed);
            pair.kernel.store(0, Ordering::Relaxed);
        }
        for kernel in &self.kernels {
            kernel.key.store(0, Ordering::Relaxed);
            kernel.every.store(0, Ordering::Relaxed);
            kernel.seen.store(0, Ordering::Relaxed);
            kernel.rate.store(0, Ordering::Relaxed);
        }
        self.credit.store(budget, Ordering::Relaxed);
        self.credited_ns.store(now_ns, Ordering::Relaxed);
        self.looked_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Gives out what may be sampled until the next time, and makes the rates anew when it is time.
    pub(crate) fn look(&self, budget: u64, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.credited_ns.load(Ordering::Relaxed));
        let earned = budget.saturating_mul(elapsed_ns) / 1_000_000_000;
        if earned > 0 {
            self.credited_ns.store(now_ns, Ordering::Relaxed);
            let fill = |left: u64| Some(left.saturating_add(earned).min(budget));
            let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
        }
        let since_ns = now_ns.saturating_sub(self.looked_ns.load(Ordering::Relaxed));
        if since_ns >= LOOK_NS {
            self.looked_ns.store(now_ns, Ordering::Relaxed);
            self.make_rates(budget - budget / RESERVE, since_ns);
        }
    }

    fn make_rates(&self, budget: u64, since_ns: u64) {
        let mut totals = [0_u64; KERNELS + 1];
        for pair in &self.pairs {
            let kernel = pair.kernel.load(Ordering::Relaxed);
            if let Some(total) = totals.get_mut(kernel) {
                *total = total.saturating_add(pair.launches.load(Ordering::Relaxed));
            }
        }
        for (kernel, total) in self.kernels.iter().zip(totals) {
            let new = total.saturating_sub(kernel.seen.swap(total, Ordering::Relaxed));
            let rate = new.saturating_mul(1_000_000_000) / since_ns.max(1);
            let before = kernel.rate.load(Ordering::Relaxed);
            kernel.rate.store(rate.max(before.saturating_mul(DECAY.0) / DECAY.1), Ordering::Relaxed);
        }
        let rates = || self.kernels.iter().map(|kernel| kernel.rate.load(Ordering::Relaxed));
        let share = fair_share(budget, rates);
        for (kernel, rate) in self.kernels.iter().zip(rates()) {
            // One that has not launched for long begins as a new one.
            let every = if rate == 0 { 0 } else { rate.div_ceil(share).max(1) };
            kernel.every.store(every, Ordering::Relaxed);
        }
    }

    /// Launches since the process began.
    pub(crate) fn launches(&self) -> u64 {
        let before = self.before.load(Ordering::Relaxed);
        self.pairs.iter().fold(before, |sum, pair| sum.saturating_add(pair.launches.load(Ordering::Relaxed)))
    }

    /// Those of them that were sampled.
    pub(crate) fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }
}

/// What each may have at most, so that the smaller ones get all that they want and all together get the budget:
/// `sum(min(rate, share)) = budget`. At least 1; 2^64-1 where all get what they want.
pub(crate) fn fair_share<I: Iterator<Item = u64>>(budget: u64, rates: impl Fn() -> I) -> u64 {
    if rates().fold(0, u64::saturating_add) <= budget {
        return u64::MAX;
    }
    let mut share = 0_u64;
    // Each round gives out what the smaller ones left; after some rounds nearly nothing is left.
    for _ in 0..16 {
        let given = rates().fold(0, |sum: u64, rate| sum.saturating_add(rate.min(share)));
        let wanting = rates().filter(|rate| *rate > share).count() as u64;
        let more = budget.saturating_sub(given).checked_div(wanting).unwrap_or(0);
        if more == 0 {
            break;
        }
        share = share.saturating_add(more);
    }
    share.max(1)
}
