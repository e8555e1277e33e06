//! What differs between processors: system calls, the functions that the compiler takes for granted, the USDT site.
//!
//! Another processor is another file beside `x86_64.rs` with the same items.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{number, probe_launch, stack_pointer, syscall};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the agent has no system calls for this processor yet");
