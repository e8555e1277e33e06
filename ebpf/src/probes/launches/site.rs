//! Where the site `stallscope:launch` is in the agent's file.
//!
//! The file belongs to whoever made the process, though the recorder put it there: lengths are checked, and a site is
//! taken only where it is a `nop` and its arguments are where the kernel half reads them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

/// The agent is 50 KB; whatever is larger is not the agent.
const MAX_BYTES: u64 = 4 << 20;

/// Notes that are looked at.
const MAX_NOTES: usize = 64;

/// The arguments as the kernel half reads them: correlation id, number of the call, name of the kernel.
const ARGUMENTS: &[u8] = b"4@%edi 4@%esi 8@%rdx";

const NOP: u8 = 0x90;

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The file cannot be read.
    #[error("the agent's file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is too large, or no ELF file of this machine, or damaged.
    #[error("the agent's file is damaged: {0}")]
    Format(&'static str),
    /// It has no such site: an agent of another version.
    #[error("the agent is of another version: it has no site that this one knows")]
    None,
}

impl From<object::Error> for SiteError {
    fn from(_: object::Error) -> Self {
        Self::Format("its ELF headers")
    }
}

/// Offset of the site in the file.
pub(super) fn launch_site(file: &File) -> Result<usize, SiteError> {
    let bytes = file.metadata()?.len();
    if bytes > MAX_BYTES {
        return Err(SiteError::Format("it is too large"));
    }
    let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut data, 0)?;
    find(&data)
}

fn find(data: &[u8]) -> Result<usize, SiteError> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    if endian != Endianness::Little || header.e_machine(endian) != elf::EM_X86_64 {
        return Err(SiteError::Format("it is for another kind of processor"));
    }
    let segments = header.program_headers(endian, data)?;
    for section in header.sections(endian, data)?.iter() {
        let Some(mut notes) = section.notes(endian, data)? else { continue };
        for _ in 0..MAX_NOTES {
            let Some(note) = notes.next()? else { break };
            if note.name() != b"stapsdt" || note.n_type(endian).0 != 3 {
                continue;
            }
            let Some(address) = launch_address(note.desc()) else { continue };
            let code = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD);
            let offset = code
                .filter_map(|s| {
                    let inside = address.checked_sub(s.p_vaddr(endian))?;
                    (inside < s.p_filesz(endian)).then(|| s.p_offset(endian).checked_add(inside))?
                })
                .next();
            let offset = offset.and_then(|offset| usize::try_from(offset).ok()).ok_or(SiteError::None)?;
            // Anything else there would be something else than the site.
            return if data.get(offset) == Some(&NOP) { Ok(offset) } else { Err(SiteError::None) };
        }
    }
    Err(SiteError::None)
}

/// The address of the site that a note describes: address, base and semaphore, then provider, name and arguments as texts.
fn launch_address(description: &[u8]) -> Option<u64> {
    let (address, rest) = description.split_first_chunk::<8>()?;
    let mut texts = rest.get(16..)?.split(|byte| *byte == 0);
    let is_ours = texts.next()? == b"stallscope" && texts.next()? == b"launch" && texts.next()? == ARGUMENTS;
    is_ours.then(|| u64::from_le_bytes(*address))
}

#[cfg(test)]
mod tests {
    use super::{ARGUMENTS, SiteError, find, launch_address};

    fn description(name: &[u8], arguments: &[u8]) -> Vec<u8> {
        let words = [0x1234u64, 0, 0].map(u64::to_le_bytes).concat();
        [&words[..], b"stallscope\0", name, b"\0", arguments, b"\0"].concat()
    }

    #[test]
    fn a_note_is_ours_only_if_its_arguments_are_where_they_are_read() {
        assert_eq!(launch_address(&description(b"launch", ARGUMENTS)), Some(0x1234));
        assert_eq!(launch_address(&description(b"launched", ARGUMENTS)), None);
        assert_eq!(launch_address(&description(b"launch", b"4@%eax 4@%esi 8@%rdx")), None);
        let whole = description(b"launch", ARGUMENTS);
        for length in 0..whole.len() - 1 {
            assert_eq!(launch_address(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_agent_is_an_error_and_nothing_worse() {
        assert!(matches!(find(b""), Err(SiteError::Format(_))));
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(find(&own), Err(SiteError::None)), "this program has no such site");
        for cut in (0..4096).step_by(61) {
            assert!(find(&own[..cut]).is_err());
        }
    }
}
