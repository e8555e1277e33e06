//! Where in a function to put probes.
//!
//! What always holds:
//! - An entry is probed before anything of the arguments or the stack pointer has changed.
//! - An exit is an instruction in the body at which the function may hand over for good: a return, or a jump elsewhere.
//!   Whether it does is decided when it is hit, by the stack pointer: probing one too many costs time, not truth.

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

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
/// Bytes of a function that does nothing but jump: argument registers may be put right before.
const MAX_STUB: u64 = 48;
/// How often such a jump leads to another.
const MAX_HOPS: usize = 4;

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
    matches!(instruction.code(), Opcode::Push_r64 | Opcode::Nopd | Opcode::Nopq | Opcode::Nopw)
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
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz => {
            Branch::Other
        }
        Mnemonic::Xbegin => Branch::Other,
        _ => Branch::Conditional(target),
    })
}

/// A place at which a function may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exit {
    pub(crate) address: u64,
    /// By a jump to another function, which returns to the caller in its place; else by a return.
    pub(crate) jump: bool,
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
    /// It only throws or ends the process: there is no call to record.
    #[error("the function never returns")]
    Never,
    /// It returns from too many places, or is one of a circle of jumps.
    #[error("the function returns from more than 256 places")]
    Exits,
}

/// What the exits of a function are found with.
pub(crate) trait Code {
    /// The bytes at an address, as many as there are up to a length.
    fn bytes(&self, address: u64, length: usize) -> Vec<u8>;
    /// The length of the function that begins at an address, where that is known.
    fn length(&self, address: u64) -> Option<u64>;
}

/// A function's exits. One that does nothing but jump to another, as `gloo::allreduce` does, has those of the other.
pub(crate) fn exits(begin: u64, size: u64, code: &impl Code) -> Result<Vec<Exit>, Unprobed> {
    let (mut begin, mut size) = (begin, size);
    for _ in 0..MAX_HOPS {
        if size == 0 {
            size = code.length(begin).ok_or(Unprobed::NoSize)?;
        }
        let (exits, target) = body(begin, size, code)?;
        match target.filter(|_| size <= MAX_STUB && exits.len() == 1) {
            Some(target) => (begin, size) = (target, 0),
            None => return Ok(exits),
        }
    }
    Err(Unprobed::Exits)
}

/// The exits of one body, and the function that the last of them jumps to.
fn body(begin: u64, size: u64, code: &impl Code) -> Result<(Vec<Exit>, Option<u64>), Unprobed> {
    if size > MAX_BODY {
        return Err(Unprobed::TooLong);
    }
    let end = begin.checked_add(size).ok_or(Unprobed::NotCode)?;
    let within = |address: u64| (begin..end).contains(&address);
    let body = code.bytes(begin, usize::try_from(size).unwrap_or(usize::MAX));
    if (body.len() as u64) < size {
        return Err(Unprobed::NotCode);
    }
    let mut exits = Vec::new();
    let mut target = None;
    let mut elsewhere = Vec::new();
    for instruction in Decoder::with_ip(64, &body, begin, DecoderOptions::NONE).iter() {
        if instruction.is_invalid() {
            return Err(Unprobed::NotCode);
        }
        if let Some(jump) = leaves(&instruction, within) {
            exits.push(Exit { address: instruction.ip(), jump });
            if let Some(Branch::Jump(to)) = branch(&instruction) {
                target = Some(to);
            }
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
        let bytes = code.bytes(part, MAX_PART);
        for instruction in Decoder::with_ip(64, &bytes, part, DecoderOptions::NONE).iter() {
            if instruction.is_invalid() {
                break;
            }
            if let Some(jump) = leaves(&instruction, within) {
                // A lone jump through memory is the stub of another library's function, which all callers share.
                if instruction.ip() != part {
                    exits.push(Exit { address: instruction.ip(), jump });
                }
                break;
            }
            if instruction.mnemonic() == Mnemonic::Ud2
                || matches!(branch(&instruction), Some(Branch::Jump(_)))
            {
                break;
            }
        }
    }
    exits.sort_unstable();
    exits.dedup();
    match exits.len() {
        0 => Err(Unprobed::Never),
        1..=MAX_EXITS => Ok((exits, target)),
        _ => Err(Unprobed::Exits),
    }
}

/// Whether the function may be over after this instruction, and if so, whether by a jump. One through a register may be
/// that of a switch.
fn leaves(instruction: &Instruction, within: impl Fn(u64) -> bool) -> Option<bool> {
    match instruction.mnemonic() {
        Mnemonic::Ret | Mnemonic::Retf => Some(false),
        Mnemonic::Jmp => match branch(instruction) {
            Some(Branch::Jump(target)) if within(target) => None,
            _ => Some(true),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Entry, Exit, Unprobed, entry, exits};

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

    /// One function at 0x1000, and another or a part of it at 0x2000.
    struct Two<'a>(&'a [u8], &'a [u8]);

    impl Code for Two<'_> {
        fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
            let bytes = if address >= 0x2000 { self.1 } else { self.0 };
            let from = usize::try_from(address & 0xfff).expect("small");
            bytes.get(from..).unwrap_or_default().iter().copied().take(length).collect()
        }

        fn length(&self, address: u64) -> Option<u64> {
            (address == 0x2000).then_some(self.1.len() as u64)
        }
    }

    fn of(code: &[u8], cold: &[u8]) -> Result<Vec<Exit>, Unprobed> {
        exits(0x1000, code.len() as u64, &Two(code, cold))
    }

    fn at(address: u64, jump: bool) -> Exit {
        Exit { address, jump }
    }

    #[test]
    fn returns_and_jumps_elsewhere_are_exits_and_jumps_within_are_not() {
        // jmp +0; ret; jmp far away; jmp *rax; call; ret 8
        let code = b"\xeb\x00\xc3\xe9\x00\x10\x00\x00\xff\xe0\xe8\x00\x00\x00\x00\xc2\x08\x00";
        assert_eq!(
            of(code, b""),
            Ok(vec![at(0x1002, false), at(0x1003, true), at(0x1008, true), at(0x100f, false)])
        );
    }

    #[test]
    fn a_part_that_was_moved_away_is_followed_to_its_return() {
        // je 0x2000; ret — and there: nop; ret; ret
        let code = b"\x0f\x84\xfa\x0f\x00\x00\xc3";
        assert_eq!(of(code, b"\x90\xc3\xc3"), Ok(vec![at(0x1006, false), at(0x2001, false)]));
        // A stub of another library is left alone.
        assert_eq!(of(code, b"\xff\x25\x00\x00\x00\x00"), Ok(vec![at(0x1006, false)]));
    }

    #[test]
    fn a_function_that_only_jumps_has_the_exits_of_the_other() {
        let jump = b"\xe9\xfb\x0f\x00\x00"; // to 0x2000
        assert_eq!(of(jump, b"\x90\xc3\xc3"), Ok(vec![at(0x2001, false), at(0x2002, false)]));
        // In a circle.
        assert_eq!(of(jump, b"\xe9\xfb\xff\xff\xff\xc3"), Ok(vec![at(0x2005, false)]));
        assert_eq!(of(b"\xe9\xfb\x1f\x00\x00", b""), Err(Unprobed::NoSize));
        // With another way out it is a jump that leaves it.
        assert_eq!(of(b"\xc3\xe9\xfa\x0f\x00\x00", b"\xc3"), Ok(vec![at(0x1000, false), at(0x1001, true)]));
    }

    #[test]
    fn what_is_not_a_function_is_refused() {
        assert_eq!(of(b"", b""), Err(Unprobed::NoSize));
        assert_eq!(of(b"\x90\x90", b""), Err(Unprobed::Never));
        assert_eq!(of(b"\x06\xc3", b""), Err(Unprobed::NotCode));
        let nothing = Two(b"", b"");
        assert_eq!(exits(0x1000, u64::MAX, &nothing), Err(Unprobed::TooLong));
        assert_eq!(exits(u64::MAX, 16, &nothing), Err(Unprobed::NotCode));
        assert_eq!(exits(0x1000, 16, &nothing), Err(Unprobed::NotCode));
    }
}
