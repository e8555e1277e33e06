//! The buffers that CUPTI fills, and the queue on which they come back.
//!
//! CUPTI asks for buffers and returns them on any thread of the job, at any time. Both are a few atomic operations here:
//! no lock, no allocation, no system call except one wake-up for every few buffers.
//!
//! What always holds:
//! - A buffer is in one place: free, out (with CUPTI), done (returned, not read yet), or with the agent's thread.
//! - Only the agent's thread takes from `done` and gives to `free`; a buffer that CUPTI has never given back is never
//!   given out again, and the memory stays mapped as long as one is out.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::sys::{self, Errno, Scope};

const _: () = assert!(MAX_BUFFERS == u64::BITS as usize);

/// Bytes of a buffer: about 1200 kernels. Smaller ones make CUPTI ask more often, on threads of the job.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// Buffers that are to be had at an attach.
pub(crate) const USUAL_BUFFERS: usize = 16;

/// Buffers at most: those beyond the usual number replace what CUPTI did not give back, and come into use where the usual
/// number was once too few (16 MiB in all).
pub(crate) const MAX_BUFFERS: usize = 64;

/// Returned buffers at which the agent's thread is woken: before that it comes by itself, at its next flush.
const WAKE_AT: u32 = 4;

/// A buffer's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(u32);

impl Index {
    const fn bit(self) -> u64 {
        1 << (self.0 % u64::BITS)
    }

    const fn place(self) -> usize {
        self.0 as usize
    }
}

/// A returned buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) index: Index,
    pub(crate) base: NonNull<u8>,
    /// Bytes with records in them, at most [`BUFFER_BYTES`].
    pub(crate) valid: usize,
}

/// All buffers.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Null while there is no memory. Changed only while nothing is free and nothing is out.
    base: AtomicPtr<u8>,
    /// How many buffers were ever free; the agent's thread only.
    grown: AtomicUsize,
    free: AtomicU64,
    out: AtomicU64,
    /// Threads in [`Pool::take`] or [`Pool::give_back`]: what they have is neither free nor out nor done for a moment.
    busy: AtomicU32,
    /// The buffer that was returned last, plus 1; 0 none. The others follow by `next`.
    done: AtomicU32,
    next: [AtomicU32; MAX_BUFFERS],
    valid: [AtomicUsize; MAX_BUFFERS],
    /// Returned since the agent's thread last looked.
    unseen: AtomicU32,
    /// Returned since the beginning.
    returned: AtomicU64,
    /// Requests for which there was none.
    declined: AtomicU64,
    /// Returns of memory that is not ours, or not out.
    foreign: AtomicU64,
    /// Raised to wake the agent's thread, which says in `asleep` whether it wants that.
    doorbell: AtomicU32,
    asleep: AtomicBool,
}

impl Pool {
    pub(crate) const fn new() -> Self {
        Self {
            base: AtomicPtr::new(null_mut()),
            grown: AtomicUsize::new(0),
            free: AtomicU64::new(0),
            out: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            done: AtomicU32::new(0),
            next: [const { AtomicU32::new(0) }; MAX_BUFFERS],
            valid: [const { AtomicUsize::new(0) }; MAX_BUFFERS],
            unseen: AtomicU32::new(0),
            returned: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            doorbell: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
        }
    }

    // On any thread of the job.

    /// A buffer for CUPTI, or none.
    pub(crate) fn take(&self) -> Option<NonNull<u8>> {
        // Before `free` is looked at: `close` empties that first and looks here afterwards. Sequentially consistent, or
        // both could miss each other.
        self.busy.fetch_add(1, Ordering::SeqCst);
        let taken = self.take_free();
        self.busy.fetch_sub(1, Ordering::SeqCst);
        if taken.is_none() {
            self.declined.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn take_free(&self) -> Option<NonNull<u8>> {
        // Bounded: each round that fails has lost a buffer to another thread.
        for _ in 0..MAX_BUFFERS {
            let index = Index(self.free.load(Ordering::SeqCst).trailing_zeros());
            if index.0 == u64::BITS {
                break;
            }
            if self.free.fetch_and(!index.bit(), Ordering::AcqRel) & index.bit() != 0 {
                self.out.fetch_or(index.bit(), Ordering::SeqCst);
                return self.address(index);
            }
        }
        None
    }

    /// CUPTI gives a buffer back.
    pub(crate) fn give_back(&self, buffer: *mut u8, valid: usize) {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let is_ours = self.put(buffer, valid).is_some();
        self.busy.fetch_sub(1, Ordering::SeqCst);
        if !is_ours {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.returned.fetch_add(1, Ordering::Relaxed);
        if self.unseen.fetch_add(1, Ordering::AcqRel) + 1 >= WAKE_AT {
            self.wake();
        }
    }

    /// A buffer that was out is done; none where it was not.
    fn put(&self, buffer: *mut u8, valid: usize) -> Option<()> {
        let index = self.index_of(buffer)?;
        let (next, room) = (self.next.get(index.place())?, self.valid.get(index.place())?);
        if self.out.fetch_and(!index.bit(), Ordering::SeqCst) & index.bit() == 0 {
            return None;
        }
        room.store(valid.min(BUFFER_BYTES), Ordering::Relaxed);
        let this = index.0 + 1;
        let mut top = self.done.load(Ordering::Relaxed);
        loop {
            next.store(top, Ordering::Relaxed);
            // Release: whoever takes the chain sees `next`, `valid` and the records.
            match self.done.compare_exchange_weak(top, this, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(()),
                Err(now) => top = now,
            }
        }
    }

    /// Wakes the agent's thread if it sleeps.
    pub(crate) fn wake(&self) {
        self.doorbell.fetch_add(1, Ordering::AcqRel);
        if self.asleep.swap(false, Ordering::AcqRel) {
            sys::futex_wake(&self.doorbell, Scope::Process);
        }
    }

    fn address(&self, index: Index) -> Option<NonNull<u8>> {
        // Within the mapping: an index is below MAX_BUFFERS.
        NonNull::new(self.base.load(Ordering::Acquire).wrapping_add(index.place() * BUFFER_BYTES))
    }

    fn index_of(&self, buffer: *mut u8) -> Option<Index> {
        let base = self.base.load(Ordering::Acquire);
        let offset = buffer.addr().checked_sub(base.addr()).filter(|_| !base.is_null())?;
        let index = u32::try_from(offset / BUFFER_BYTES).ok()?;
        (offset.is_multiple_of(BUFFER_BYTES) && index < u64::BITS).then_some(Index(index))
    }

    // On the agent's thread.

    /// Sees to it that there are the usual number of buffers, besides those that CUPTI holds.
    pub(crate) fn open(&self) -> Result<(), Errno> {
        if self.base.load(Ordering::Relaxed).is_null() {
            let base = sys::map(MAX_BUFFERS * BUFFER_BYTES)?;
            sys::populate(base, USUAL_BUFFERS * BUFFER_BYTES);
            self.use_memory(base);
        }
        self.grow();
        Ok(())
    }

    /// The memory of all buffers.
    pub(crate) fn use_memory(&self, base: NonNull<u8>) {
        self.grown.store(0, Ordering::Relaxed);
        self.base.store(base.as_ptr(), Ordering::Release);
    }

    /// Sees to it that the usual number are free.
    pub(crate) fn grow(&self) {
        self.add(USUAL_BUFFERS.saturating_sub(self.free_count()));
    }

    /// There were too few: as many again, up to the bound.
    pub(crate) fn extend(&self) {
        self.add(USUAL_BUFFERS);
    }

    fn add(&self, count: usize) {
        let grown = self.grown.load(Ordering::Relaxed);
        let enough = (grown + count).min(MAX_BUFFERS);
        for index in grown..enough {
            self.free.fetch_or(1 << index, Ordering::AcqRel);
        }
        self.grown.store(enough, Ordering::Relaxed);
    }

    /// Gives no more buffers out, and gives the memory back if CUPTI holds none of it.
    pub(crate) fn close(&self) -> bool {
        if self.withdraw().is_none() {
            return false;
        }
        if let Some(base) = NonNull::new(self.base.swap(null_mut(), Ordering::AcqRel)) {
            // SAFETY: the mapping of `open`; no buffer is free, out or done, so nobody has an address in it.
            unsafe { sys::unmap(base, MAX_BUFFERS * BUFFER_BYTES) };
        }
        true
    }

    /// All buffers that were ever free, if nobody has one: then none is free, out or done. Else what is free stays so.
    pub(crate) fn withdraw(&self) -> Option<u64> {
        let mut free = self.free.swap(0, Ordering::SeqCst);
        loop {
            // Who takes one is busy until it is out; who gives one back is busy from when it is out until it is done.
            let is_busy = || self.busy.load(Ordering::SeqCst) != 0;
            let is_held = is_busy() || self.out.load(Ordering::SeqCst) != 0 || is_busy();
            if let Some(chain) = self.take_done() {
                free = chain.fold(free, |free, done| free | done.index.bit());
            } else if is_held {
                self.restore(free);
                return None;
            } else {
                return Some(free);
            }
        }
    }

    /// These can be given out again.
    pub(crate) fn restore(&self, free: u64) {
        self.free.fetch_or(free, Ordering::AcqRel);
    }

    /// CUPTI is gone from the process: it holds nothing any more.
    pub(crate) fn reclaim(&self) {
        let out = self.out.swap(0, Ordering::AcqRel);
        self.free.fetch_or(out, Ordering::AcqRel);
    }

    /// The buffers that came back, in the order in which they did; each is to be given to [`Pool::recycle`].
    pub(crate) fn take_done(&self) -> Option<Chain<'_>> {
        self.unseen.store(0, Ordering::Relaxed);
        let mut top = self.done.swap(0, Ordering::AcqRel);
        if top == 0 {
            return None;
        }
        // The chain begins with the newest: turned round.
        let mut oldest = 0;
        while let Some(next) = (top as usize).checked_sub(1).and_then(|index| self.next.get(index)) {
            let following = next.load(Ordering::Relaxed);
            next.store(oldest, Ordering::Relaxed);
            oldest = top;
            top = following;
        }
        Some(Chain { pool: self, next: oldest })
    }

    /// A buffer that was read can be given out again.
    pub(crate) fn recycle(&self, index: Index) {
        self.free.fetch_or(index.bit(), Ordering::AcqRel);
    }

    /// Waits until buffers come back, [`Pool::wake`] is called, or the time is over.
    pub(crate) fn wait(&self, timeout_ns: u64) {
        let before = self.doorbell.load(Ordering::Acquire);
        self.asleep.store(true, Ordering::Release);
        if self.unseen.load(Ordering::Acquire) < WAKE_AT {
            sys::futex_wait(&self.doorbell, before, Some(timeout_ns), Scope::Process);
        }
        self.asleep.store(false, Ordering::Release);
    }

    /// Whether some buffer that CUPTI holds has these two words in it, the second by a rule. CUPTI may be writing there:
    /// words are read one by one, and whatever is found was written by it.
    pub(crate) fn holds(&self, first: u64, second: impl Fn(u64) -> bool) -> bool {
        let out = self.out.load(Ordering::Acquire);
        (0..u64::BITS).map(Index).filter(|index| out & index.bit() != 0).any(|index| {
            let Some(base) = self.address(index) else { return false };
            let words = base.cast::<u64>();
            let word = |at: usize| {
                // SAFETY: within the buffer, whose memory stays mapped while it is out, and which begins at a page.
                let word = unsafe { words.add(at) };
                // SAFETY: as above; the other side writes plainly, and a word that is torn is as good as none.
                unsafe { AtomicU64::from_ptr(word.as_ptr()) }.load(Ordering::Relaxed)
            };
            (0..BUFFER_BYTES / 8 - 1).any(|at| word(at) == first && second(word(at + 1)))
        })
    }

    /// Buffers that CUPTI holds.
    pub(crate) fn out_count(&self) -> u32 {
        self.out.load(Ordering::Acquire).count_ones()
    }

    /// Buffers that can be given out.
    pub(crate) fn free_count(&self) -> usize {
        self.free.load(Ordering::Acquire).count_ones() as usize
    }

    /// Buffers that were ever returned.
    pub(crate) fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Requests that were declined since this was last asked.
    pub(crate) fn take_declined(&self) -> u64 {
        self.declined.swap(0, Ordering::Relaxed)
    }

    /// Returns that made no sense since this was last asked.
    pub(crate) fn take_foreign(&self) -> u64 {
        self.foreign.swap(0, Ordering::Relaxed)
    }
}

/// Buffers that came back.
#[derive(Debug)]
pub(crate) struct Chain<'p> {
    pool: &'p Pool,
    next: u32,
}

impl Iterator for Chain<'_> {
    type Item = Done;

    fn next(&mut self) -> Option<Done> {
        let index = Index(self.next.checked_sub(1)?);
        let valid = self.pool.valid.get(index.place())?.load(Ordering::Relaxed);
        self.next = self.pool.next.get(index.place())?.load(Ordering::Relaxed);
        Some(Done { index, base: self.pool.address(index)?, valid })
    }
}
