//! What an injector that died may have left: a thread in the code.

use std::thread;
use std::time::{Duration, Instant};

use crate::Refusal;
use crate::process::Process;
use crate::room::Room;
use crate::sys::{self, Event, Resume};

/// A thread that is back sleeps sooner or later; until then it has to be stopped to be looked at.
const ASK_AFTER: Duration = Duration::from_millis(20);

/// Waits until no thread reads the context that an earlier injector wrote, so that it can be written anew.
pub(crate) fn settle(process: &Process, room: &Room, within: Duration) -> Result<(), Refusal> {
    let Some(owner) = room.owner(process) else { return Ok(()) };
    let pid = process.pid;
    let began = Instant::now();
    while began.elapsed() < within {
        if !process.has_thread(owner) {
            return Ok(());
        }
        let asked = match process.waiting(owner) {
            // In a system call: of the stub, of a function that the stub called, or of its own.
            Ok(Some(waiting)) if is_in_stub(process, room, waiting.instruction, waiting.stack) => None,
            Ok(Some(_)) => Some(false),
            Ok(None) | Err(_) if began.elapsed() > ASK_AFTER => stopped_in_stub(process, room, owner),
            Ok(None) | Err(_) => None,
        };
        if asked == Some(false) {
            return Ok(());
        }
        if !process.is_alive() {
            return Err(Refusal::Gone { pid });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(Refusal::Busy { pid })
}

/// The stub runs on a stack of its own once it calls functions, and its return addresses lie there.
fn is_in_stub(process: &Process, room: &Room, instruction: u64, stack: u64) -> bool {
    const STACK_BYTES: usize = 64 * 1024;
    if room.contains(instruction) {
        return true;
    }
    let mut bytes = vec![0; STACK_BYTES];
    let read = process.peek(stack, &mut bytes).unwrap_or(0);
    let words = bytes.get(..read).unwrap_or_default().as_chunks().0;
    words.iter().any(|word| room.contains(u64::from_ne_bytes(*word)))
}

/// Stops a thread for as long as it takes to read its registers. `None`: not known.
fn stopped_in_stub(process: &Process, room: &Room, tid: i32) -> Option<bool> {
    // The kernel lets go of a thread when the one that traces it ends.
    thread::scope(|scope| {
        let look = || {
            sys::seize(tid).ok()?;
            sys::interrupt(tid).ok()?;
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(100) {
                if let Some(event) = sys::poll_event(tid).ok()? {
                    let Event::Stopped { signal, event } = event else { return Some(false) };
                    let registers = sys::registers(tid).ok();
                    sys::resume(tid, Resume::Detach, if event == 0 { signal } else { 0 }).ok()?;
                    let registers = registers?;
                    return Some(is_in_stub(process, room, registers.instruction(), registers.stack()));
                }
                thread::yield_now();
            }
            None
        };
        scope.spawn(look).join().ok().flatten()
    })
}
