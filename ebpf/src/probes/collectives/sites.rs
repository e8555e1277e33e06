//! Where in a function to put probes.
//!
//! What always holds:
//! - An entry is probed before anything of the arguments or the stack pointer has changed.
//! - An exit is an instruction in the body at which the function may hand over for good: a return, or a jump elsewhere.
//!   Whether it does is decided when it is hit, by the stack pointer: probing one too many costs time, not truth.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

/// Bytes of the longest instruction and `endbr64`.
pub(crate) const ENTRY_BYTES: usize = 20;
/// Longer functions are not decoded: c10d's longest method is 40 kB.
pub(crate) const MAX_BODY: u64 = 256 << 10;
/// More exits than this are not probed: each is a page of the file that becomes private.
const MAX_EXITS: usize = 256;
/// How far a part of the function that lies elsewhere is followed.
const MAX_PART: usize = 1024;
/// How many such parts.
const MAX_PARTS: usize = 64;

/// The place for an entry probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Bytes after the function's begin.
    pub(crate) after: u64,
    /// Whether the kernel can do the instruction's work itself. Else it executes it out of line and traps twice.
    pub(crate) cheap: bool,
}

/// Finds the place for an entry probe: past `endbr64` where what follows is cheaper.
pub(crate) fn entry(code: &[u8]) -> Option<Entry> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let first = decoder.decode();
    if first.is_invalid() {
        return None;
    }
    if first.mnemonic() == Mnemonic::Endbr64 && cheap(&decoder.decode()) {
        return Some(Entry { after: first.len() as u64, cheap: true });
    }
    Some(Entry { after: 0, cheap: cheap(&first) })
}

/// What the kernel emulates when a probe is on it (arch/x86/kernel/uprobes.c): push of a register, nop, relative calls
/// and jumps.
fn cheap(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Push_r64 | Code::Nopd | Code::Nopq | Code::Nopw)
        || matches!(branch(instruction), Some(Branch::Jump(_) | Branch::Call | Branch::Conditional(_)))
}

/// A branch to an address that the instruction names.
enum Branch {
    Jump(u64),
    Conditional(u64),
    Call,
    /// A loop instruction or the like.
    Other,
}

fn branch(instruction: &Instruction) -> Option<Branch> {
    if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::NearBranch64 {
        return None;
    }
    let target = instruction.near_branch_target();
    Some(match instruction.mnemonic() {
        Mnemonic::Jmp => Branch::Jump(target),
        Mnemonic::Call => Branch::Call,
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz => Branch::Other,
        Mnemonic::Xbegin => Branch::Other,
        _ => Branch::Conditional(target),
    })
}

/// Why a function's exits cannot be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unprobed {
    /// The symbol has no size.
    #[error("the symbol does not say where the function ends")]
    NoSize,
    /// Larger than is decoded.
    #[error("the function is larger than 256 KiB")]
    TooLong,
    /// What is there is not code.
    #[error("the function cannot be decoded")]
    NotCode,
    /// It never returns, or from too many places.
    #[error("the function returns nowhere, or from more than 256 places")]
    Exits,
}

/// Addresses of a function's exits. `code` gives the bytes at an address, as many as there are up to a length.
pub(crate) fn exits(
    begin: u64,
    size: u64,
    code: impl Fn(u64, usize) -> Vec<u8>,
) -> Result<Vec<u64>, Unprobed> {
    if size == 0 {
        return Err(Unprobed::NoSize);
    }
    if size > MAX_BODY {
        return Err(Unprobed::TooLong);
    }
    let end = begin.checked_add(size).ok_or(Unprobed::NotCode)?;
    let within = |address: u64| (begin..end).contains(&address);
    let body = code(begin, usize::try_from(size).unwrap_or(usize::MAX));
    if (body.len() as u64) < size {
        return Err(Unprobed::NotCode);
    }
    let mut exits = Vec::new();
    let mut elsewhere = Vec::new();
    for instruction in Decoder::with_ip(64, &body, begin, DecoderOptions::NONE).iter() {
        if instruction.is_invalid() {
            return Err(Unprobed::NotCode);
        }
        if leaves(&instruction, within) {
            exits.push(instruction.ip());
        } else if let Some(Branch::Conditional(target)) = branch(&instruction)
            && !within(target)
        {
            elsewhere.push(target);
        }
    }
    // Compilers move unlikely parts of a function away, and get there by conditional jumps.
    elsewhere.sort_unstable();
    elsewhere.dedup();
    for part in elsewhere.into_iter().take(MAX_PARTS) {
        let bytes = code(part, MAX_PART);
        for instruction in Decoder::with_ip(64, &bytes, part, DecoderOptions::NONE).iter() {
            if instruction.is_invalid() {
                break;
            }
            if leaves(&instruction, within) {
                // A lone jump through memory is the stub of another library's function, which all callers share.
                if instruction.ip() != part {
                    exits.push(instruction.ip());
                }
                break;
            }
            if instruction.mnemonic() == Mnemonic::Ud2 || matches!(branch(&instruction), Some(Branch::Jump(_))) {
                break;
            }
        }
    }
    exits.sort_unstable();
    exits.dedup();
    if exits.is_empty() || exits.len() > MAX_EXITS { Err(Unprobed::Exits) } else { Ok(exits) }
}

/// Whether the function may be over after this instruction. A jump through a register may be that of a switch.
fn leaves(instruction: &Instruction, within: impl Fn(u64) -> bool) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Ret | Mnemonic::Retf => true,
        Mnemonic::Jmp => match branch(instruction) {
            Some(Branch::Jump(target)) => !within(target),
            _ => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Unprobed, entry, exits};

    #[test]
    fn an_entry_lies_past_the_landing_pad_only_where_that_is_cheaper() {
        let place = |after, cheap| Some(Entry { after, cheap });
        assert_eq!(entry(b"\x55\x48\x89\xe5"), place(0, true)); // push rbp
        assert_eq!(entry(b"\x41\x57\x90"), place(0, true)); // push r15
        assert_eq!(entry(b"\xf3\x0f\x1e\xfa\x41\x57"), place(4, true)); // endbr64, push r15
        assert_eq!(entry(b"\xf3\x0f\x1e\xfa\x48\x89\xe5"), place(0, false)); // endbr64, mov
        assert_eq!(entry(b"\x48\x8d\x05\x00\x00\x00\x00"), place(0, false)); // lea
        assert_eq!(entry(b"\x90"), place(0, true));
        assert_eq!(entry(b""), None);
    }

    /// `code` at 0x1000, followed by what lies at 0x2000.
    fn of(code: &[u8], cold: &[u8]) -> Result<Vec<u64>, Unprobed> {
        let size = code.len() as u64;
        exits(0x1000, size, |address, length| {
            let bytes = if address >= 0x2000 { cold } else { code };
            let from = usize::try_from(address & 0xfff).expect("small");
            bytes.get(from..).unwrap_or_default().iter().copied().take(length).collect()
        })
    }

    #[test]
    fn returns_and_jumps_elsewhere_are_exits_and_jumps_within_are_not() {
        // jmp +0; ret; jmp far away; jmp *rax; call; ret 8
        let code = b"\xeb\x00\xc3\xe9\x00\x10\x00\x00\xff\xe0\xe8\x00\x00\x00\x00\xc2\x08\x00";
        assert_eq!(of(code, b""), Ok(vec![0x1002, 0x1003, 0x1008, 0x100f]));
    }

    #[test]
    fn a_part_that_was_moved_away_is_followed_to_its_return() {
        // je 0x2000; ret — and there: nop; ret; ret
        let code = b"\x0f\x84\xfa\x0f\x00\x00\xc3";
        assert_eq!(of(code, b"\x90\xc3\xc3"), Ok(vec![0x1006, 0x2001]));
        // A stub of another library is left alone.
        assert_eq!(of(code, b"\xff\x25\x00\x00\x00\x00"), Ok(vec![0x1006]));
    }

    #[test]
    fn what_is_not_a_function_is_refused() {
        assert_eq!(of(b"", b""), Err(Unprobed::NoSize));
        assert_eq!(of(b"\x90\x90", b""), Err(Unprobed::Exits));
        assert_eq!(of(b"\x06\xc3", b""), Err(Unprobed::NotCode));
        assert_eq!(exits(0x1000, u64::MAX, |_, _| Vec::new()), Err(Unprobed::TooLong));
        assert_eq!(exits(u64::MAX, 16, |_, _| Vec::new()), Err(Unprobed::NotCode));
        assert_eq!(exits(0x1000, 16, |_, _| Vec::new()), Err(Unprobed::NotCode));
    }
}
