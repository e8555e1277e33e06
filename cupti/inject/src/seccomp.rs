//! What the target's seccomp filters say to the system calls that are about to be made in it.
//!
//! A filter may end the process for a call that it does not know. So the filters of the borrowed thread, which the new
//! thread inherits, are read and run here, on the calls that the seed, `pthread_create` and `dlopen` make, before any of
//! them is made there.

use crate::Refusal;
use crate::arch::{AUDIT_ARCH, number};
use crate::sys::{self, FilterInstruction};

/// A system call that will be made.
struct Planned {
    name: &'static str,
    number: u32,
    arguments: [u64; 6],
    /// An error from it is as bad as a refusal; others have another way.
    needed: bool,
}

const fn planned(name: &'static str, number: u32, needed: bool) -> Planned {
    Planned { name, number, arguments: [0; 6], needed }
}

const PROT_READ_WRITE: u64 = 3;
const PROT_READ_EXEC: u64 = 5;
const MAP_PRIVATE: u64 = 2;
const MAP_PRIVATE_ANONYMOUS: u64 = 0x22;
const THREAD_FLAGS: u64 = 0x3d_0f00;

const PLANNED: [Planned; 20] = [
    planned("rt_sigprocmask", number::RT_SIGPROCMASK, true),
    Planned {
        arguments: [0, 65536, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, u64::MAX, 0],
        ..planned("mmap", number::MMAP, true)
    },
    Planned {
        arguments: [0, 4096, PROT_READ_EXEC, MAP_PRIVATE, 5, 0],
        ..planned("mmap of code", number::MMAP, true)
    },
    planned("munmap", number::MUNMAP, true),
    Planned { arguments: [0, 4096, PROT_READ_WRITE, 0, 0, 0], ..planned("mprotect", number::MPROTECT, true) },
    planned("madvise", number::MADVISE, false),
    Planned { arguments: [THREAD_FLAGS, 0, 0, 0, 0, 0], ..planned("clone of a thread", number::CLONE, true) },
    planned("clone3", number::CLONE3, false),
    planned("tgkill", number::TGKILL, true),
    planned("rt_sigpending", number::RT_SIGPENDING, false),
    planned("rt_sigaction", number::RT_SIGACTION, false),
    planned("nanosleep", number::NANOSLEEP, true),
    planned("gettid", number::GETTID, true),
    planned("memfd_create", number::MEMFD_CREATE, true),
    planned("openat", number::OPENAT, true),
    planned("read", number::READ, true),
    planned("close", number::CLOSE, true),
    planned("set_robust_list", number::SET_ROBUST_LIST, false),
    planned("rseq", number::RSEQ, false),
    planned("exit", number::EXIT, true),
];

/// Refuses if a filter of a stopped thread stands against one of the calls.
pub(crate) fn check(pid: i32, tid: i32) -> Result<(), Refusal> {
    let mut filters = Vec::new();
    while let Some(filter) =
        sys::seccomp_filter(tid, filters.len()).map_err(|error| Refusal::SeccompUnknown { pid, error })?
    {
        filters.push(filter);
    }
    refused(&filters).map_or(Ok(()), |call| Err(Refusal::Seccomp { pid, call }))
}

/// The first of the calls that the filters do not let pass.
fn refused(filters: &[Vec<FilterInstruction>]) -> Option<&'static str> {
    let stands = |planned: &&Planned| {
        filters.iter().any(|filter| match verdict(filter, planned) {
            Verdict::Allow => false,
            Verdict::Fail => planned.needed,
            Verdict::Harm => true,
        })
    };
    PLANNED.iter().find(stands).map(|planned| planned.name)
}

/// What a filter does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// The call returns an error.
    Fail,
    /// The process or thread ends, gets a signal, or waits for somebody.
    Harm,
}

impl Verdict {
    /// Of a filter's return value.
    fn of(value: u32) -> Self {
        const ALLOW: u32 = 0x7fff_0000;
        const LOG: u32 = 0x7ffc_0000;
        const ERRNO: u32 = 0x0005_0000;
        const ACTION: u32 = 0xffff_0000;
        match value & ACTION {
            ALLOW | LOG => Self::Allow,
            ERRNO => Self::Fail,
            _ => Self::Harm,
        }
    }
}

/// `struct seccomp_data`, in the order of its bytes: number, architecture, instruction pointer, arguments.
fn load(planned: &Planned, offset: u32) -> Option<u32> {
    if !offset.is_multiple_of(4) {
        return None;
    }
    Some(match offset / 4 {
        0 => planned.number,
        1 => AUDIT_ARCH,
        2 | 3 => 0,
        word @ 4..16 => {
            let argument = planned.arguments.get(usize::try_from((word - 4) / 2).ok()?)?;
            let half = if word % 2 == 0 { *argument } else { argument >> 32 };
            u32::try_from(half & u64::from(u32::MAX)).ok()?
        }
        _ => return None,
    })
}

/// Runs a filter. Whatever it does that is not understood counts as harm.
fn verdict(filter: &[FilterInstruction], planned: &Planned) -> Verdict {
    run(filter, planned).map_or(Verdict::Harm, Verdict::of)
}

/// Classic BPF, as far as seccomp accepts it. Jumps go forward only, so it ends.
fn run(filter: &[FilterInstruction], planned: &Planned) -> Option<u32> {
    const DATA_BYTES: u32 = 64;
    let mut memory = [0_u32; 16];
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    loop {
        let instruction = filter.get(at)?;
        let k = instruction.k;
        let cell = usize::try_from(k).ok();
        at += 1;
        let operand = if instruction.code & 0x08 == 0 { k } else { x };
        match instruction.code {
            0x20 => a = load(planned, k)?,
            0x80 => a = DATA_BYTES,
            0x81 => x = DATA_BYTES,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = *memory.get(cell?)?,
            0x61 => x = *memory.get(cell?)?,
            0x02 => *memory.get_mut(cell?)? = a,
            0x03 => *memory.get_mut(cell?)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x05 => at = at.checked_add(cell?)?,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => a = a.checked_div(operand)?,
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.checked_shl(operand)?,
            0x74 | 0x7c => a = a.checked_shr(operand)?,
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= operand,
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                let holds = match instruction.code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    _ => a & operand != 0,
                };
                at += usize::from(if holds { instruction.if_true } else { instruction.if_false });
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FilterInstruction, number, refused};

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0001;
    const KILL: u32 = 0x8000_0000;

    fn op(code: u16, if_true: u8, if_false: u8, k: u32) -> FilterInstruction {
        FilterInstruction { code, if_true, if_false, k }
    }

    /// `action` for one system call, allowed the others.
    fn against(number: u32, action: u32) -> Vec<FilterInstruction> {
        vec![op(0x20, 0, 0, 0), op(0x15, 0, 1, number), op(0x06, 0, 0, action), op(0x06, 0, 0, ALLOW)]
    }

    #[test]
    fn a_filter_that_lets_all_pass_is_no_refusal() {
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[vec![op(0x06, 0, 0, ALLOW)]]), None);
    }

    #[test]
    fn the_call_that_is_refused_is_named() {
        assert_eq!(refused(&[against(number::MEMFD_CREATE, ERRNO)]), Some("memfd_create"));
        assert_eq!(refused(&[against(u32::MAX, KILL), against(number::TGKILL, KILL)]), Some("tgkill"));
    }

    #[test]
    fn an_error_matters_only_where_there_is_no_other_way_but_death_always() {
        assert_eq!(refused(&[against(number::CLONE3, ERRNO)]), None);
        assert_eq!(refused(&[against(number::CLONE3, KILL)]), Some("clone3"));
    }

    #[test]
    fn arguments_are_looked_at() {
        // Kill mmap with PROT_EXEC (argument 2, low half at byte 32).
        let filter = vec![
            op(0x20, 0, 0, 0),
            op(0x15, 0, 3, number::MMAP),
            op(0x20, 0, 0, 32),
            op(0x45, 0, 1, 4),
            op(0x06, 0, 0, KILL),
            op(0x06, 0, 0, ALLOW),
        ];
        assert_eq!(refused(&[filter]), Some("mmap of code"));
    }

    #[test]
    fn a_filter_that_is_not_understood_is_a_refusal() {
        for broken in
            [vec![], vec![op(0xffff, 0, 0, 0)], vec![op(0x20, 0, 0, 3)], vec![op(0x05, 0, 0, u32::MAX)]]
        {
            assert!(refused(&[broken]).is_some());
        }
    }
}
