//! Puts the agent into a running process and leaves the process as it was.
//!
//! [`inject`] borrows one thread of the target for a fraction of a millisecond to make a new one there, and does all
//! else on that: memory for the ring and the image, loading, the call of the agent's entry. No other thread is stopped.
//! [`find_agent`] finds an agent that is there already.
//!
//! # What always holds
//!
//! - **The target survives the death of the injector after any step.** When a tracer dies, the kernel resumes what it
//!   traced at once, with the registers that it has. So no step leaves a state that needs another step: see below.
//! - **A thread is borrowed only at a safe point**: blocked in a system call of a short list, made by the C library, not
//!   in a handler. `FUTEX_WAIT_BITSET` is on the list (condition variables, semaphores, joins), `FUTEX_WAIT` (locks) is
//!   not. There the thread holds no lock that `pthread_create` needs.
//! - **No system call of the target is lost or ends with an EINTR that it would not have had**, nor lasts longer than it
//!   would; calls for which the kernel offers no better are borrowed from last (`candidate::Rank`).
//! - **What the target says is believed for nothing but the target's own fate.** Descriptors are taken only if they are
//!   sealed memory, text is bounded, numbers are checked.
//! - Every reason not to inject is a [`Refusal`] that says what, why and what to do.
//!
//! # The steps, and what the target does if the injector dies after each
//!
//! | Step | What there is | If the injector dies |
//! |---|---|---|
//! | [`Step::CodeWritten`] | code in the unused end of a library's last page of code | nothing runs it |
//! | [`Step::Seized`] | a thread is traced | it was never stopped |
//! | [`Step::Interrupted`] to [`Step::ContextWritten`] | it stops; its registers lie beside the code | the kernel restarts its call. A call that ends with EINTR (`epoll_wait`, sockets with a timeout) does, as after SIGSTOP and SIGCONT |
//! | [`Step::RegistersSet`] | it seems to be in the same call, made by the code's first instruction | a handler that ends the call runs, and it returns with EINTR past the code. Else it runs the code to the end, and that brings it back |
//! | [`Step::MaskSet`], [`Step::Resumed`] | its signals wait | it runs the code to the end. If by then a signal waits that ends the call, it returns with EINTR, else it makes its call again; a sleep or `poll` goes on with the time that is left |
//! | [`Step::AtMarker`] | the new thread exists; the borrowed one is stopped | as before |
//! | [`Step::ReturnArmed`] | it seems to be in its call again, made by an instruction after the marker | as before |
//! | [`Step::MaskRestored`] | its signals come | a handler that ends the call does, else it makes it again |
//! | [`Step::RegistersRestored`], [`Step::Detached`] | it is as it was | the kernel restarts its call |
//! | [`Step::Left`] and later | the new thread waits for orders | that closes its descriptors, unmaps its memory and ends after ten seconds without orders. Before `Left`, its 64 KiB of memory stay |
//! | [`Step::FileMade`] | a file in the target's file system, where memory cannot be executed | the file stays; the next injection that chooses its name removes it |
//! | [`Step::Started`] | the agent runs | it sees by itself that nobody is there |
//!
//! Two things make this possible. First, **the code needs no help**: what it has to restore lies beside it, where the
//! target cannot write; it runs on memory that it maps, so the borrowed thread's stack is not touched; its last
//! instruction jumps to the interrupted system call. Second, **the kernel's own rules decide what a handler does to the
//! call**: the only moment at which handlers can run while the thread is on its way is one in which it seems to be in
//! that call, so that the kernel ends or restarts it as it would have. While the injector lives it restores the
//! registers of the interrupted call themselves, which leaves every decision to the kernel.
//!
//! # What is left in the target
//!
//! The agent, its thread and the 64 KiB in which its arguments are; one private page of a library's code, of which the
//! unused end has 1 KiB of code that the thread returns through. Nothing of it is needed twice: another injection uses the
//! same bytes. After a refusal the bytes are as they were.

mod arch;
mod borrow;
mod candidate;
mod examine;
mod file;
mod find;
mod inject;
mod libraries;
mod load;
mod marker;
mod new_thread;
mod plant;
mod process;
mod refusal;
mod room;
mod safe_point;
mod seccomp;
mod settle;
mod step;
mod sys;
mod unsafe_point;

pub use find::{Found, find_agent};
pub use inject::{Injected, Options, Payload, inject};
pub use refusal::Refusal;
pub use step::Step;
pub use unsafe_point::{Tally, UnsafePoint};
