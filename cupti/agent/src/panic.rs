//! Nothing here can panic: the optimiser removes every path that could, and a test of the finished image looks for the
//! mark below. Should one be left all the same, the thread stays where it is: ending it would end the job.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// The test of the image looks for this text.
static MARK: [u8; 30] = *b"stallscope-agent-can-panic-yes";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    static NEVER: AtomicU32 = AtomicU32::new(0);
    // Kept by being read: what the optimiser could not remove is found by the test.
    // SAFETY: a byte of a static.
    let _ = unsafe { core::ptr::read_volatile(MARK.as_ptr()) };
    loop {
        sys::futex_wait(&NEVER, NEVER.load(Ordering::Relaxed), None, sys::Scope::Process);
    }
}
