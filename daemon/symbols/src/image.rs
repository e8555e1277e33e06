//! A private copy of what names are made from: an ELF file in memory with the symbol table, its names and, if they fit,
//! the sections of debug information. This is all that blazesym gets to see.
//!
//! What always holds here: the copy cannot change or shrink, and has no links to other files. Nothing in it is compressed;
//! no table exceeds its limit; every symbol is code, ends where it says, and does not wrap around. Copying goes through a
//! small buffer, so that the copy costs resident memory only where blazesym touches it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::elf::{
    DEBUG_INFO, DEBUG_SECTIONS, DYNSTR, DYNSYM, Elf, STRTAB, SYMTAB, Section, bounded_length, u16_at, u32_at,
    u64_at, unsupported,
};
use crate::limits::Limits;

const CHUNK_BYTES: usize = 240 << 10;
const SYMBOL_BYTES: usize = 24;

const SECTION_BITS: u32 = 1;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_STRINGS: u32 = 3;

const COMPRESSED_BY_ZLIB: u32 = 1;
const COMPRESSED_BY_ZSTD: u32 = 2;

/// The copy.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file: File,
    /// What it costs at most when all of it is used: its length, and what blazesym makes of debug information, which
    /// was up to twice as long as that (libpython 3.11, a Rust test).
    pub(crate) cost_bytes: u64,
    /// It has lines and inlined functions.
    pub(crate) has_debug: bool,
}

/// A file and what is known about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) file: &'a File,
    pub(crate) elf: &'a Elf,
}

/// Copies from the mapped file and, where there is one, its separate debug file. None if neither has symbols.
pub(crate) fn build(
    mapped: Origin<'_>,
    debug: Option<Origin<'_>>,
    limits: &Limits,
) -> io::Result<Option<Image>> {
    let file = File::from(memfd_create("stallscope-symbols", MemfdFlags::CLOEXEC)?);
    let mut writer = Writer { file, end: 64, sections: Vec::new() };

    // The full table holds all that the dynamic one does, which is left after stripping.
    let full = debug
        .into_iter()
        .chain([mapped])
        .any(|origin| writer.copy_symbols(origin, (SYMTAB, STRTAB), limits.symbol_bytes).unwrap_or(false));
    let named = full || writer.copy_symbols(mapped, (DYNSYM, DYNSTR), limits.symbol_bytes)?;
    let has_debug = debug.into_iter().chain([mapped]).any(|origin| {
        origin.elf.section(DEBUG_INFO).is_some() && writer.copy_debug(origin, limits.debug_bytes).is_ok()
    });
    if !named && !has_debug {
        return Ok(None);
    }
    let (file, bytes) = writer.finish()?;
    let cost_bytes = if has_debug { bytes.saturating_mul(3) } else { bytes };
    Ok(Some(Image { file, cost_bytes, has_debug }))
}

/// A section of the copy.
#[derive(Clone, Copy, Debug)]
struct Copied {
    name: &'static str,
    kind: u32,
    offset: u64,
    length: u64,
    /// Number of the section with the names, for symbols.
    link: u32,
}

struct Writer {
    file: File,
    end: u64,
    sections: Vec<Copied>,
}

impl Writer {
    /// Takes back what was written since a mark.
    fn undo(&mut self, mark: (u64, usize)) {
        self.end = mark.0;
        self.sections.truncate(mark.1);
    }

    /// Everything is aligned to 16, which no table exceeds.
    fn begin(&mut self) -> io::Result<u64> {
        self.end = self.end.checked_next_multiple_of(16).ok_or_else(too_long)?;
        Ok(self.end)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Copies what `from` yields, if it is at most `most` bytes; returns how many those were.
    fn append_all(&mut self, from: &mut impl Read, most: u64) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut copied = 0;
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(copied);
            }
            copied += read as u64;
            if copied > most {
                return Err(too_long());
            }
            self.append(&buffer[..read])?;
        }
    }

    /// Copies the symbols of functions and their names; false if there are none.
    fn copy_symbols(
        &mut self,
        origin: Origin<'_>,
        names: (&'static str, &'static str),
        most: u64,
    ) -> io::Result<bool> {
        let (Some(symbols), Some(strings)) = (origin.elf.section(names.0), origin.elf.section(names.1))
        else {
            return Ok(false);
        };
        if symbols.compressed || strings.compressed || symbols.length.saturating_add(strings.length) > most {
            return Err(too_long());
        }
        let mark = (self.end, self.sections.len());
        let copied = self.copy_functions(origin.file, symbols).and_then(|any| {
            if any {
                let offset = self.begin()?;
                let length = self.append_all(&mut plain(origin.file, strings), most)?;
                // The first section's number is 1, so this is the number of the one that follows.
                self.sections.push(Copied { name: names.1, kind: SECTION_STRINGS, offset, length, link: 0 });
            }
            Ok(any)
        });
        if !matches!(copied, Ok(true)) {
            self.undo(mark);
        }
        copied
    }

    fn copy_functions(&mut self, file: &File, table: Section) -> io::Result<bool> {
        let offset = self.begin()?;
        let mut from = plain(file, table);
        let mut kept = Vec::with_capacity(CHUNK_BYTES);
        let mut symbol = [0; SYMBOL_BYTES];
        let mut buffered = BufReader::with_capacity(CHUNK_BYTES, &mut from);
        for _ in 0..table.length / SYMBOL_BYTES as u64 {
            buffered.read_exact(&mut symbol)?;
            if is_function(&symbol) {
                kept.extend_from_slice(&symbol);
            }
            if kept.len() + SYMBOL_BYTES > CHUNK_BYTES {
                self.append(&kept)?;
                kept.clear();
            }
        }
        self.append(&kept)?;
        let length = self.end - offset;
        let link = u32::try_from(self.sections.len() + 2).unwrap_or(0);
        self.sections.push(Copied { name: table.name, kind: SECTION_SYMBOLS, offset, length, link });
        Ok(length > 0)
    }

    /// Copies all sections of debug information, or none.
    fn copy_debug(&mut self, origin: Origin<'_>, most: u64) -> io::Result<()> {
        let mark = (self.end, self.sections.len());
        let mut left = most;
        for name in DEBUG_SECTIONS {
            let Some(section) = origin.elf.section(name) else { continue };
            match self.copy_debug_section(origin.file, section, left) {
                Ok(length) => left -= length,
                Err(error) => {
                    self.undo(mark);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn copy_debug_section(&mut self, file: &File, section: Section, most: u64) -> io::Result<u64> {
        let offset = self.begin()?;
        let mut from = plain(file, section);
        let length = if section.compressed {
            let mut header = [0; 24];
            from.read_exact(&mut header)?;
            match u32_at(&header, 0) {
                COMPRESSED_BY_ZLIB => {
                    let mut decoder = flate2::bufread::ZlibDecoder::new(BufReader::new(from));
                    self.append_all(&mut decoder, most)?
                }
                COMPRESSED_BY_ZSTD => {
                    let mut decoder = zstd::stream::read::Decoder::new(from)?;
                    // 8 MiB is what zstd itself asks for at its usual levels.
                    decoder.window_log_max(23)?;
                    self.append_all(&mut decoder, most)?
                }
                _ => return Err(unsupported("a compression that is not known")),
            }
        } else {
            self.append_all(&mut from, most)?
        };
        self.sections.push(Copied { name: section.name, kind: SECTION_BITS, offset, length, link: 0 });
        Ok(length)
    }

    /// Writes the table of sections and the header.
    fn finish(mut self) -> io::Result<(File, u64)> {
        let mut names = vec![0];
        let name_of_names = ".shstrtab";
        let mut table = vec![0; 64];
        let offset = self.begin()?;
        let all = self.sections.iter().map(|s| s.name).chain([name_of_names]);
        let starts: Vec<usize> = all
            .map(|name| {
                let start = names.len();
                names.extend_from_slice(name.as_bytes());
                names.push(0);
                start
            })
            .collect();
        let length = names.len() as u64;
        self.append(&names)?;
        self.sections.push(Copied { name: name_of_names, kind: SECTION_STRINGS, offset, length, link: 0 });
        for (section, start) in self.sections.iter().zip(starts) {
            let entry_bytes = if section.kind == SECTION_SYMBOLS { SYMBOL_BYTES as u64 } else { 0 };
            table.extend_from_slice(&u32::try_from(start).unwrap_or(0).to_le_bytes());
            table.extend_from_slice(&section.kind.to_le_bytes());
            for field in [0, 0, section.offset, section.length] {
                table.extend_from_slice(&field.to_le_bytes());
            }
            table.extend_from_slice(&section.link.to_le_bytes());
            table.extend_from_slice(&[0; 4]);
            for field in [16, entry_bytes] {
                table.extend_from_slice(&field.to_le_bytes());
            }
        }
        let table_offset = self.begin()?;
        self.append(&table)?;
        let count = u16::try_from(table.len() / 64).map_err(|_| too_long())?;
        self.file.write_all_at(&header(table_offset, count), 0)?;
        Ok((self.file, self.end))
    }
}

/// An ELF header for x86-64 of a shared object without segments.
fn header(sections: u64, count: u16) -> [u8; 64] {
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16] = 3;
    header[18] = 62;
    header[20] = 1;
    header[40..48].copy_from_slice(&sections.to_le_bytes());
    header[52] = 64;
    header[58] = 64;
    header[60..62].copy_from_slice(&count.to_le_bytes());
    header[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    header
}

/// Whether a symbol names code of this file. Labels without a type are not taken: what lies behind them is anyone's.
fn is_function(symbol: &[u8; SYMBOL_BYTES]) -> bool {
    const FUNCTION: u8 = 2;
    const INDIRECT_FUNCTION: u8 = 10;
    let defined = u16_at(symbol, 6) != 0;
    let ends = u64_at(symbol, 8).checked_add(u64_at(symbol, 16)).is_some();
    defined && ends && matches!(symbol[4] & 0xf, FUNCTION | INDIRECT_FUNCTION)
}

/// Reads a section of a file as it lies there.
fn plain(file: &File, section: Section) -> SectionReader<'_> {
    SectionReader { file, at: section.offset, left: section.length }
}

struct SectionReader<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for SectionReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at = self.at.saturating_add(read as u64);
        self.left -= read as u64;
        Ok(read)
    }
}

fn too_long() -> io::Error {
    unsupported("tables longer than the limit")
}

/// Finds the address of a function by its exact name among the dynamic symbols.
pub(crate) fn exported(origin: Origin<'_>, wanted: &[&str]) -> io::Result<Vec<u64>> {
    // The only file this is asked of is libc, with 3,000 symbols.
    const MOST_BYTES: u64 = 4 << 20;
    let (Some(symbols), Some(strings)) = (origin.elf.section(DYNSYM), origin.elf.section(DYNSTR)) else {
        return Ok(Vec::new());
    };
    let mut table = vec![0; bounded_length(symbols.length, MOST_BYTES)?];
    origin.file.read_exact_at(&mut table, symbols.offset)?;
    let mut names = vec![0; bounded_length(strings.length, MOST_BYTES)?];
    origin.file.read_exact_at(&mut names, strings.offset)?;
    let found = table.chunks_exact(SYMBOL_BYTES).filter_map(|symbol| {
        let name = names.get(usize::try_from(u32_at(symbol, 0)).ok()?..)?;
        let name = name.split(|&b| b == 0).next()?;
        (u16_at(symbol, 6) != 0 && wanted.iter().any(|w| w.as_bytes() == name)).then(|| u64_at(symbol, 8))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::{SYMBOL_BYTES, is_function};

    fn symbol(kind: u8, section: u16, address: u64, length: u64) -> [u8; SYMBOL_BYTES] {
        let mut symbol = [0; SYMBOL_BYTES];
        symbol[4] = kind;
        symbol[6..8].copy_from_slice(&section.to_le_bytes());
        symbol[8..16].copy_from_slice(&address.to_le_bytes());
        symbol[16..].copy_from_slice(&length.to_le_bytes());
        symbol
    }

    #[test]
    fn only_functions_that_are_there_and_end_are_copied() {
        assert!(is_function(&symbol(0x12, 14, 0x1000, 16)));
        assert!(is_function(&symbol(0x1a, 14, 0x1000, 0)));
        assert!(!is_function(&symbol(0x11, 14, 0x1000, 16)), "data");
        assert!(!is_function(&symbol(0x12, 0, 0x1000, 16)), "undefined");
        assert!(!is_function(&symbol(0x12, 14, u64::MAX, 16)), "wraps around");
    }
}
