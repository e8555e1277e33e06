//! How the agent is started in the job.

/// The agent's entry: `extern "C" fn(*const StartArguments) -> i32`. It runs on a thread that exists for it, and returns
/// when the agent is to go.
pub const ENTRY: &core::ffi::CStr = c"stallscope_agent_start";

/// What the ring's memory is called: `/proc/PID/maps` and `/proc/PID/fd` show it as `memfd:stallscope-ring`.
pub const RING_NAME: &core::ffi::CStr = c"stallscope-ring";

/// Bits of [`StartArguments::flags`].
pub mod start_flags {
    /// The job was launched with the agent; else it was injected.
    pub const LAUNCHED: u64 = 1;
}

/// What the injector hands to the entry. The agent links nothing: what it needs of the C library it is given here.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartArguments {
    /// Bytes of this structure: an agent refuses a smaller one, and ignores what it does not know.
    pub size: u32,
    /// [`crate::VERSION`] of whoever wrote this.
    pub version: u32,
    /// Address of `dlopen`.
    pub dlopen: u64,
    /// Address of `dlsym`.
    pub dlsym: u64,
    /// Address of `dlerror`.
    pub dlerror: u64,
    /// The ring's memory, as a descriptor of the job. The agent closes it once the memory is mapped.
    pub ring_fd: i32,
    /// A CUPTI library that the daemon brought, as a descriptor of the job, or -1. It is used only where none is mapped.
    pub cupti_fd: i32,
    /// Bits of [`start_flags`].
    pub flags: u64,
}
