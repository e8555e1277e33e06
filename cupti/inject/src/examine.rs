//! Whether a process is one that can be injected into at all, before anything of it is touched.

use std::fs::File;
use std::io::{self, Read};

use crate::process::{Process, refused};
use crate::{Refusal, arch};

/// What is known of a process that may be injected into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The process as it numbers itself.
    pub(crate) inner_tgid: u32,
    /// It has seccomp filters.
    pub(crate) has_seccomp: bool,
    /// A signal that the target ignores, if there is one.
    pub(crate) ignored_signal: Option<i32>,
}

pub(crate) fn examine(process: &Process) -> Result<Facts, Refusal> {
    let pid = process.pid;
    let status = process.status().map_err(|_| Refusal::Gone { pid })?;
    if status.has_ended() {
        return Err(Refusal::Gone { pid });
    }
    if status.number::<i32>("TracerPid").is_some_and(|tracer| tracer != 0) {
        return Err(refused(pid, &process.file(""), io::Error::from_raw_os_error(libc::EPERM)));
    }
    if status.is_stopped() {
        return Err(Refusal::Stopped { pid });
    }
    if status.field("x86_Thread_features").is_some_and(|features| features.contains("shstk")) {
        return Err(Refusal::ShadowStack { pid });
    }
    program(process)?;
    let seccomp = status.number::<u32>("Seccomp").unwrap_or(0);
    const STRICT: u32 = 1;
    if seccomp == STRICT {
        return Err(Refusal::Seccomp { pid, call: "anything but read and write (strict mode)" });
    }
    Ok(Facts {
        inner_tgid: status.innermost("NStgid").unwrap_or(pid.unsigned_abs()),
        has_seccomp: seccomp != 0,
        ignored_signal: ignored_signal(
            status.signals("SigIgn").unwrap_or(0),
            status.signals("SigCgt").unwrap_or(u64::MAX),
        ),
    })
}

/// The program must be of this processor.
fn program(process: &Process) -> Result<(), Refusal> {
    let pid = process.pid;
    let mut file = match File::open(process.file("exe")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(refused(pid, &process.file(""), error));
        }
        Err(error) => return Err(process.error("open the program", error)),
    };
    let mut head = [0; 20];
    file.read_exact(&mut head).map_err(|error| process.error("read the program", error))?;
    check_head(pid, &head)
}

/// The first bytes of an ELF file.
fn check_head(pid: i32, head: &[u8; 20]) -> Result<(), Refusal> {
    let [0x7f, b'E', b'L', b'F', class, .., low, high] = *head else {
        return Err(Refusal::Hostile { pid, what: "its program is not an ELF file" });
    };
    let machine = u16::from_le_bytes([low, high]);
    const CLASS_32: u8 = 1;
    const CLASS_64: u8 = 2;
    const MACHINE_386: u16 = 3;
    match (class, machine) {
        (CLASS_32, MACHINE_386 | arch::ELF_MACHINE) => Err(Refusal::ThirtyTwoBit { pid }),
        (CLASS_64, arch::ELF_MACHINE) => Ok(()),
        _ => Err(Refusal::Architecture { pid, machine }),
    }
}

/// A signal that does nothing to the target: one whose default is to be ignored, or that it ignores.
///
/// Not SIGCHLD or SIGCONT, which mean something to the kernel as well.
fn ignored_signal(ignored: u64, caught: u64) -> Option<i32> {
    let is_in = |set: u64, signal: i32| set >> (signal - 1) & 1 == 1;
    let by_default = [libc::SIGURG, libc::SIGWINCH];
    let quiet = by_default.into_iter().find(|signal| !is_in(caught, *signal));
    const LAST_STANDARD: i32 = 31;
    quiet.or_else(|| {
        (1..=LAST_STANDARD)
            .filter(|signal| {
                ![libc::SIGCHLD, libc::SIGCONT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(signal)
            })
            .find(|signal| is_in(ignored, *signal))
    })
}

#[cfg(test)]
mod tests {
    use super::{check_head, ignored_signal};
    use crate::Refusal;

    fn head(class: u8, machine: u16) -> [u8; 20] {
        let mut head = [0; 20];
        head[..4].copy_from_slice(b"\x7fELF");
        head[4] = class;
        head[18..].copy_from_slice(&machine.to_le_bytes());
        head
    }

    #[test]
    fn programs_of_other_processors_are_told_apart() {
        assert!(check_head(1, &head(2, 62)).is_ok());
        assert!(matches!(check_head(1, &head(1, 3)), Err(Refusal::ThirtyTwoBit { .. })));
        assert!(matches!(check_head(1, &head(1, 62)), Err(Refusal::ThirtyTwoBit { .. })), "x32");
        assert!(matches!(check_head(1, &head(2, 183)), Err(Refusal::Architecture { machine: 183, .. })));
        assert!(matches!(check_head(1, &[0; 20]), Err(Refusal::Hostile { .. })));
    }

    #[test]
    fn the_marking_signal_is_one_that_nobody_handles() {
        let bit = |signal: i32| 1_u64 << (signal - 1);
        assert_eq!(ignored_signal(0, 0), Some(libc::SIGURG));
        assert_eq!(ignored_signal(0, bit(libc::SIGURG)), Some(libc::SIGWINCH));
        let both = bit(libc::SIGURG) | bit(libc::SIGWINCH);
        assert_eq!(ignored_signal(0, both), None);
        assert_eq!(ignored_signal(bit(libc::SIGPIPE) | bit(libc::SIGCHLD), both), Some(libc::SIGPIPE));
    }
}
