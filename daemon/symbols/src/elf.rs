//! The few facts about a target's ELF file that are needed to copy its tables: where segments are mapped, where tables lie,
//! its build id. 64-bit little-endian files only, of any type.
//!
//! Everything is read with `pread` into buffers of bounded length: a file that shrinks meanwhile is a short read, and an
//! offset that points nowhere is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// More than any linker writes; a table beyond is not read.
const MOST_SEGMENTS: u16 = 512;
const MOST_SECTIONS: u16 = 16_384;
const LONGEST_SECTION_NAMES_BYTES: u64 = 1 << 20;
const LONGEST_NOTE_BYTES: u64 = 64 << 10;
/// A SHA-1 has 20, and no linker writes more than 64.
const BUILD_ID_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const SEGMENT_EH_FRAME_HDR: u32 = 0x6474_e550;
const SEGMENT_EXECUTABLE: u32 = 1;
const SECTION_WITHOUT_DATA: u32 = 8;
const SECTION_COMPRESSED: u64 = 0x800;

/// Sections that are copied or looked at.
pub(crate) const SYMTAB: &str = ".symtab";
pub(crate) const STRTAB: &str = ".strtab";
pub(crate) const DYNSYM: &str = ".dynsym";
pub(crate) const DYNSTR: &str = ".dynstr";
pub(crate) const DEBUG_INFO: &str = ".debug_info";
const BUILD_ID: &str = ".note.gnu.build-id";
const DEBUG_LINK: &str = ".gnu_debuglink";
/// What lines and inlined frames are made from; locations of variables are not wanted.
pub(crate) const DEBUG_SECTIONS: [&str; 11] = [
    DEBUG_INFO,
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_cu_index",
];

/// A segment of the file that is mapped.
#[derive(Clone, Copy, Debug)]
struct Segment {
    offset: u64,
    length: u64,
    address: u64,
    executable: bool,
}

/// A section that is known by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) compressed: bool,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Elf {
    segments: Vec<Segment>,
    sections: Vec<Section>,
    /// Identity of what was linked; the same in its separate debug file.
    pub(crate) build_id: Option<Vec<u8>>,
    /// Name of the separate debug file.
    pub(crate) debug_link: Option<String>,
    /// Offset, length and address of the index of functions.
    pub(crate) unwind_index: Option<(u64, u64, u64)>,
}

impl Elf {
    /// Reads the headers.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(unsupported("not a 64-bit little-endian ELF file"));
        }
        let mut elf = Self {
            segments: Vec::new(),
            sections: Vec::new(),
            build_id: None,
            debug_link: None,
            unwind_index: None,
        };
        let notes = elf.read_segments(file, &header)?;
        // Without sections there are no symbols, yet addresses can still be told in the file's own counting.
        if elf.read_sections(file, &header).is_err() {
            elf.sections.clear();
        }
        elf.build_id = elf.read_build_id(file, notes);
        elf.debug_link = elf.read_debug_link(file);
        Ok(elf)
    }

    /// Where the byte at an offset of the file is, as the file's own tables count addresses.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        let holds = |s: &&Segment| offset >= s.offset && offset - s.offset < s.length;
        // Neighbouring segments may share a page of the file, so that both hold the offset: code is meant.
        let segment = self.segments.iter().filter(|s| s.executable).find(holds);
        let segment = segment.or_else(|| self.segments.iter().find(holds))?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// The section with this name.
    pub(crate) fn section(&self, name: &str) -> Option<Section> {
        self.sections.iter().copied().find(|s| s.name == name)
    }

    fn read_segments(&mut self, file: &File, header: &[u8; 64]) -> io::Result<Vec<(u64, u64)>> {
        let (table, count) = (u64_at(header, 32), u16_at(header, 56));
        if count > MOST_SEGMENTS || u16_at(header, 54) != 56 && count > 0 {
            return Err(unsupported("program headers of an unknown shape"));
        }
        let mut bytes = vec![0; usize::from(count) * 56];
        file.read_exact_at(&mut bytes, table)?;
        let mut notes = Vec::new();
        for entry in bytes.chunks_exact(56) {
            let (offset, address, length) = (u64_at(entry, 8), u64_at(entry, 16), u64_at(entry, 32));
            match u32_at(entry, 0) {
                SEGMENT_LOAD => {
                    let executable = u32_at(entry, 4) & SEGMENT_EXECUTABLE != 0;
                    self.segments.push(Segment { offset, length, address, executable });
                }
                SEGMENT_NOTE => notes.push((offset, length)),
                SEGMENT_EH_FRAME_HDR => self.unwind_index = Some((offset, length, address)),
                _ => {}
            }
        }
        Ok(notes)
    }

    fn read_sections(&mut self, file: &File, header: &[u8; 64]) -> io::Result<()> {
        let (table, count, names) = (u64_at(header, 40), u16_at(header, 60), u16_at(header, 62));
        if count == 0 || count > MOST_SECTIONS || u16_at(header, 58) != 64 || names >= count {
            return Err(unsupported("section headers of an unknown shape"));
        }
        let mut bytes = vec![0; usize::from(count) * 64];
        file.read_exact_at(&mut bytes, table)?;
        let entry = &bytes[usize::from(names) * 64..][..64];
        let (offset, length) = (u64_at(entry, 24), u64_at(entry, 32));
        let mut names = vec![0; bounded_length(length, LONGEST_SECTION_NAMES_BYTES)?];
        file.read_exact_at(&mut names, offset)?;
        for entry in bytes.chunks_exact(64) {
            let name = usize::try_from(u32_at(entry, 0)).ok().and_then(|at| names.get(at..)).unwrap_or(&[]);
            let Some(name) = wanted(name) else { continue };
            if u32_at(entry, 4) == SECTION_WITHOUT_DATA || self.section(name).is_some() {
                continue;
            }
            self.sections.push(Section {
                name,
                offset: u64_at(entry, 24),
                length: u64_at(entry, 32),
                compressed: u64_at(entry, 8) & SECTION_COMPRESSED != 0,
            });
        }
        Ok(())
    }

    fn read_build_id(&self, file: &File, segments: Vec<(u64, u64)>) -> Option<Vec<u8>> {
        // In a separate debug file the segments' offsets are those of the file it was taken from.
        let section = self.section(BUILD_ID).map(|s| (s.offset, s.length));
        section.into_iter().chain(segments).find_map(|(offset, length)| {
            let mut bytes = vec![0; bounded_length(length, LONGEST_NOTE_BYTES).ok()?];
            file.read_exact_at(&mut bytes, offset).ok()?;
            build_id_of_notes(&bytes)
        })
    }

    fn read_debug_link(&self, file: &File) -> Option<String> {
        let section = self.section(DEBUG_LINK)?;
        let mut bytes = vec![0; bounded_length(section.length, 4096).ok()?];
        file.read_exact_at(&mut bytes, section.offset).ok()?;
        let name = bytes.split(|&b| b == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        // A name of one component: it must not lead elsewhere.
        let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        plain.then(|| name.to_owned())
    }
}

fn wanted(name: &[u8]) -> Option<&'static str> {
    let name = name.split(|&b| b == 0).next()?;
    let others = [SYMTAB, STRTAB, DYNSYM, DYNSTR, BUILD_ID, DEBUG_LINK];
    others.into_iter().chain(DEBUG_SECTIONS).find(|known| known.as_bytes() == name)
}

fn build_id_of_notes(mut bytes: &[u8]) -> Option<Vec<u8>> {
    const NOTE_BUILD_ID: u32 = 3;
    while bytes.len() >= 12 {
        let (name, content, kind) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8));
        let (name, content) = (usize::try_from(name).ok()?, usize::try_from(content).ok()?);
        let begin = 12_usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = begin.checked_add(content)?;
        let id = bytes.get(begin..end)?;
        if kind == NOTE_BUILD_ID && bytes.get(12..16) == Some(b"GNU\0") && BUILD_ID_BYTES.contains(&content) {
            return Some(id.to_owned());
        }
        bytes = bytes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// A length from a file as the length of a buffer.
pub(crate) fn bounded_length(length: u64, most: u64) -> io::Result<usize> {
    if length > most {
        return Err(unsupported("a table longer than the limit"));
    }
    usize::try_from(length).map_err(|_| unsupported("a table longer than the address space"))
}

pub(crate) fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The bytes of a number, zeros where the buffer ends.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}
