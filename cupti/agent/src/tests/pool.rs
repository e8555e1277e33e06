use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pool::{BUFFER_BYTES, MAX_BUFFERS, Pool, USUAL_BUFFERS};

/// A pool on memory of the test's own, so that Miri can run it.
struct Fixture {
    pool: Pool,
    base: NonNull<u8>,
    layout: Layout,
}

impl Fixture {
    fn new() -> Self {
        let layout = Layout::from_size_align(MAX_BUFFERS * BUFFER_BYTES, 4096).unwrap();
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc(layout) }).unwrap();
        let pool = Pool::new();
        pool.use_memory(base);
        pool.grow();
        Self { pool, base, layout }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

#[test]
fn buffers_are_given_out_once_and_declined_when_there_are_no_more() {
    let fixture = Fixture::new();
    let taken: BTreeSet<_> = (0..USUAL_BUFFERS).map(|_| fixture.pool.take().unwrap()).collect();
    assert_eq!(taken.len(), USUAL_BUFFERS);
    assert_eq!(fixture.pool.take(), None);
    assert_eq!(fixture.pool.take_declined(), 1);
    assert_eq!(fixture.pool.out_count(), USUAL_BUFFERS as u32);
}

#[test]
fn buffers_come_back_in_order_with_what_is_in_them() {
    let fixture = Fixture::new();
    let taken: Vec<_> = (0..5).map(|_| fixture.pool.take().unwrap()).collect();
    for (index, buffer) in [3, 1, 4, 0, 2].into_iter().zip(&taken) {
        fixture.pool.give_back(buffer.as_ptr(), index * 100);
    }
    let done: Vec<_> = fixture.pool.take_done().unwrap().collect();
    assert_eq!(done.iter().map(|done| done.valid).collect::<Vec<_>>(), [300, 100, 400, 0, 200]);
    assert_eq!(done.iter().map(|done| done.base).collect::<Vec<_>>(), taken);
    assert_eq!(fixture.pool.free_count(), USUAL_BUFFERS - 5, "not free before they are read");
    done.iter().for_each(|done| fixture.pool.recycle(done.index));
    assert_eq!(fixture.pool.free_count(), USUAL_BUFFERS);
    assert!(fixture.pool.take_done().is_none());
}

#[test]
fn what_is_not_a_buffer_of_ours_or_not_out_is_counted_and_left_alone() {
    let fixture = Fixture::new();
    let buffer = fixture.pool.take().unwrap().as_ptr();
    let outside = fixture.base.as_ptr().wrapping_add(MAX_BUFFERS * BUFFER_BYTES);
    let not_out = buffer.wrapping_add(BUFFER_BYTES);
    for wrong in [buffer.wrapping_add(8), outside, not_out, std::ptr::without_provenance_mut(16)] {
        fixture.pool.give_back(wrong, 100);
    }
    assert!(fixture.pool.take_done().is_none());
    assert_eq!(fixture.pool.take_foreign(), 4);
    fixture.pool.give_back(buffer, usize::MAX);
    fixture.pool.give_back(buffer, 100);
    let done: Vec<_> = fixture.pool.take_done().unwrap().collect();
    assert_eq!((done.len(), done[0].valid), (1, BUFFER_BYTES), "once, and cut to its size");
    assert_eq!(fixture.pool.take_foreign(), 1);
}

#[test]
fn buffers_that_cupti_keeps_are_replaced_up_to_a_bound() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        while fixture.pool.take().is_some() {}
        fixture.pool.grow();
    }
    assert_eq!(fixture.pool.out_count(), MAX_BUFFERS as u32);
    fixture.pool.reclaim();
    assert_eq!((fixture.pool.out_count(), fixture.pool.free_count()), (0, MAX_BUFFERS));
}

#[test]
fn no_buffer_is_in_two_places_whatever_the_threads_do() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = if cfg!(miri) { 60 } else { 50_000 };
    let fixture = Fixture::new();
    let pool = &fixture.pool;
    // A word for each buffer: who has it.
    let owners: Vec<AtomicU64> = (0..MAX_BUFFERS).map(|_| AtomicU64::new(0)).collect();
    let base = fixture.base.addr().get();
    let place = |buffer: NonNull<u8>| (buffer.addr().get() - base) / BUFFER_BYTES;
    let given = AtomicU64::new(0);
    let read = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=THREADS)
            .map(|me| {
                let (owners, given) = (&owners, &given);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let Some(buffer) = pool.take() else {
                            std::thread::yield_now();
                            continue;
                        };
                        let owner = &owners[place(buffer)];
                        assert_eq!(owner.swap(me, Ordering::Relaxed), 0, "somebody else has it");
                        assert_eq!(owner.swap(THREADS + 1, Ordering::Relaxed), me);
                        given.fetch_add(1, Ordering::Relaxed);
                        pool.give_back(buffer.as_ptr(), (round % 100) as usize);
                    }
                })
            })
            .collect();
        let mut read = 0;
        loop {
            let is_over = workers.iter().all(std::thread::ScopedJoinHandle::is_finished);
            for done in pool.take_done().into_iter().flatten() {
                assert_eq!(owners[place(done.base)].swap(0, Ordering::Relaxed), THREADS + 1);
                pool.recycle(done.index);
                read += 1;
            }
            if is_over {
                break read;
            }
        }
    });
    assert_eq!(read, given.load(Ordering::Relaxed));
    assert_eq!((pool.out_count(), pool.free_count()), (0, USUAL_BUFFERS));
}

/// Threads take and give back while the agent closes again and again: no buffer is ever with two.
#[test]
fn closing_while_buffers_come_back_loses_none_and_gives_none_out_twice() {
    let fixture = Fixture::new();
    let with: Vec<AtomicU64> = (0..MAX_BUFFERS).map(|_| AtomicU64::new(0)).collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    let (pool, base) = (&fixture.pool, fixture.base.as_ptr().addr());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(buffer) = pool.take() else { continue };
                    let owner = &with[(buffer.addr().get() - base) / BUFFER_BYTES];
                    assert_eq!(owner.swap(1, Ordering::SeqCst), 0, "it is with somebody");
                    std::hint::spin_loop();
                    assert_eq!(owner.swap(0, Ordering::SeqCst), 1);
                    pool.give_back(buffer.as_ptr(), 8);
                }
            });
        }
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            // What close would do if nothing were held, without the memory that is the test's.
            if let Some(free) = pool.withdraw() {
                assert_eq!((free.count_ones() as usize, pool.out_count()), (USUAL_BUFFERS, 0));
                pool.restore(free);
            }
            for done in pool.take_done().into_iter().flatten() {
                pool.recycle(done.index);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(pool.take_foreign(), 0);
}
