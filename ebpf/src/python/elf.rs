//! What an executable or library says about an interpreter in it: two symbols, a section, and where it wants to lie.
//!
//! The file belongs to whoever made the process: sizes that it claims are checked against what they may be before
//! anything of that size is read.

use std::fs::File;

use object::elf::{self, FileHeader64, SectionHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache};

type Cache = ReadCache<File>;
type Header = FileHeader64<Endianness>;

/// A symbol table larger than this is not an interpreter's: that of libpython 3.12 with all its static symbols is 1 MB.
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// Tables and names that are looked at together take no more than this.
const MOST_SECTIONS: usize = 4096;

/// What was found in a file; addresses as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// `_PyRuntime`.
    pub(crate) runtime: Option<u64>,
    /// `Py_Version`, from 3.11 on.
    pub(crate) version: Option<u64>,
    /// Offset and address of what is loaded.
    loads: Vec<(u64, u64)>,
}

const PAGE: u64 = 4096;

impl Image {
    /// What must be added to the file's addresses, given that its page at `offset` is mapped at `start`.
    pub(crate) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let page = |value: u64| value & !(PAGE - 1);
        let (_, address) = self.loads.iter().find(|(at, _)| page(*at) == offset)?;
        Some(start.wrapping_sub(page(*address)))
    }
}

/// Looks into a file. `None` for what is not a 64-bit ELF file of this machine's byte order, or is damaged.
///
/// The static symbols are looked at only where asked for: they are many in an executable that is not Python's.
pub(crate) fn look(file: File, static_symbols: bool) -> Option<Image> {
    let cache = Cache::new(file);
    let header = Header::parse(&cache).ok()?;
    let endian = header.endian().ok().filter(|endian| *endian == Endianness::Little)?;
    let mut image = Image::default();
    for load in header.program_headers(endian, &cache).ok()? {
        if load.p_type(endian) == elf::PT_LOAD {
            image.loads.push((load.p_offset(endian), load.p_vaddr(endian)));
        }
    }
    let headers = header.section_headers(endian, &cache).ok()?;
    if headers.len() > MOST_SECTIONS || !headers.iter().all(|section| bounded(section, endian)) {
        return Some(image);
    }
    let sections = header.sections(endian, &cache).ok()?;
    image.symbols(&sections, endian, &cache, elf::SHT_DYNSYM);
    if image.runtime.is_none() && static_symbols {
        image.symbols(&sections, endian, &cache, elf::SHT_SYMTAB);
    }
    if image.runtime.is_none() {
        // A stripped file still has the section that CPython puts the variable into.
        let section = sections.section_by_name(endian, b".PyRuntime");
        image.runtime = section.map(|(_, section)| section.sh_addr(endian)).filter(|at| *at != 0);
    }
    Some(image)
}

/// Whether what may be read of a section is of a size that it may have.
fn bounded(section: &SectionHeader64<Endianness>, endian: Endianness) -> bool {
    let read = matches!(section.sh_type(endian), elf::SHT_DYNSYM | elf::SHT_SYMTAB | elf::SHT_STRTAB);
    !read || section.sh_size(endian) <= MOST_TABLE_BYTES
}

impl Image {
    fn symbols<'a>(
        &mut self,
        sections: &SectionTable<'a, Header, &'a Cache>,
        endian: Endianness,
        cache: &'a Cache,
        kind: elf::SectionType,
    ) {
        let Ok(symbols) = sections.symbols(endian, cache, kind) else { return };
        for symbol in symbols.iter() {
            if symbol.st_value(endian) == 0 || symbol.is_undefined(endian) {
                continue;
            }
            match symbol.name(endian, symbols.strings()) {
                Ok(b"_PyRuntime") => self.runtime = Some(symbol.st_value(endian)),
                Ok(b"Py_Version") => self.version = Some(symbol.st_value(endian)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Image, look};

    #[test]
    fn the_bias_is_that_of_the_segment_whose_page_is_mapped() {
        let image = Image { loads: vec![(0, 0), (0x20_1234, 0x40_3234)], ..Image::default() };
        assert_eq!(image.bias(0x7f00_0000_0000, 0), Some(0x7f00_0000_0000));
        assert_eq!(image.bias(0x7f00_0040_3000, 0x20_1000), Some(0x7f00_0000_0000));
        assert_eq!(image.bias(0x7f00_0000_0000, 0x1000), None);
    }

    #[test]
    fn a_file_that_is_no_interpreter_has_no_runtime_and_a_cut_one_is_refused() {
        let path = std::env::current_exe().unwrap();
        let image = look(std::fs::File::open(&path).unwrap(), true).unwrap();
        assert_eq!((image.runtime, image.version), (None, None));
        assert!(!image.loads.is_empty());
        let mut cut = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut cut, &std::fs::read(&path).unwrap()[..4096]).unwrap();
        assert_eq!(look(cut, true), None, "its sections are past its end");
    }
}
