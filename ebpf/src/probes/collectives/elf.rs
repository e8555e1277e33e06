//! What a mapped file holds of the table's functions, and the data that tells handles apart.
//!
//! The file belongs to whoever made the process. Its tables are streamed in pieces: memory does not grow with what the
//! file holds or claims to hold, and nothing is mapped, so that a file which shrinks is an error and not a signal.
//! libtorch's names are 30 MB; of those three tables of patterns are searched for, and only what was found is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;
use object::elf::{self, FileHeader64, Sym64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache};

use super::handles;
use super::table::Table;

type Header = FileHeader64<Endianness>;

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Names longer than this are not in the table: the longest of c10d is 300 bytes.
const MAX_NAME: usize = 4096;
/// Larger tables are left out: the names of an unstripped libtorch_cuda are 120 MB.
const MAX_TABLE: u64 = 512 << 20;
/// Sections that are looked at.
const MAX_SECTIONS: usize = 65_536;
/// Loaded segments that are looked at.
const MAX_LOADS: usize = 64;
/// Found symbols that are kept: the table has fewer.
const MAX_FOUND: usize = 16_384;

/// Why a file cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not an ELF file for this machine, or is damaged.
    #[error("{0}")]
    Format(&'static str),
}

impl From<object::Error> for ElfError {
    fn from(_: object::Error) -> Self {
        Self::Format("its ELF headers are damaged")
    }
}

/// A part of the file that is mapped as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    offset: u64,
    address: u64,
    size: u64,
    executable: bool,
}

/// A function of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its row.
    pub(crate) row: u16,
    /// Its address in the file's terms.
    pub(crate) address: u64,
    /// Its length; 0 where the symbol does not say.
    pub(crate) size: u64,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    loads: Vec<Load>,
    /// Where the table of the functions' begins is (`.eh_frame_hdr`), which exceptions are found with: address and offset.
    begins: Option<(u64, u64)>,
    /// Functions of the table, each place once.
    pub(crate) functions: Vec<Found>,
    /// Addresses of objects whose addresses are handles, in the file's terms.
    pub(crate) data: Vec<(u64, &'static str)>,
    /// Whether it has any symbols.
    pub(crate) symbols: bool,
    /// What was left out, and why.
    pub(crate) left_out: Option<&'static str>,
}

impl Image {
    /// Looks through a file.
    ///
    /// # Errors
    /// [`ElfError`] where it is not an ELF file for this machine, cannot be read or is damaged.
    pub(crate) fn read(file: &File, table: &Table) -> Result<Self, ElfError> {
        let cache = ReadCache::new(file.try_clone()?);
        let header = Header::parse(&cache).map_err(|_| ElfError::Format("it is not a 64-bit ELF file"))?;
        let endian = header.endian()?;
        if endian != Endianness::Little || header.e_machine(endian) != elf::EM_X86_64 {
            return Err(ElfError::Format("it is for another kind of processor"));
        }
        let loads =
            header.program_headers(endian, &cache)?.iter().filter(|p| p.p_type(endian) == elf::PT_LOAD);
        let loads = loads.take(MAX_LOADS).map(|p| Load {
            offset: p.p_offset(endian),
            address: p.p_vaddr(endian),
            size: p.p_filesz(endian),
            executable: p.p_flags(endian).0 & elf::PF_X.0 != 0,
        });
        let mut image = Self { loads: loads.collect(), ..Self::default() };
        let mut segments = header.program_headers(endian, &cache)?.iter();
        image.begins = segments
            .find(|p| p.p_type(endian) == elf::PT_GNU_EH_FRAME)
            .map(|p| (p.p_vaddr(endian), p.p_offset(endian)));
        let sections = header.section_headers(endian, &cache)?;
        for section in sections.iter().take(MAX_SECTIONS) {
            let kind = section.sh_type(endian);
            if kind != elf::SHT_DYNSYM && kind != elf::SHT_SYMTAB {
                continue;
            }
            let names = usize::try_from(section.sh_link(endian)).ok().and_then(|link| sections.get(link));
            let Some((names, symbols)) =
                names.and_then(|s| s.file_range(endian)).zip(section.file_range(endian))
            else {
                image.left_out = Some("a symbol table has no names");
                continue;
            };
            if names.1 > MAX_TABLE || symbols.1 > MAX_TABLE {
                image.left_out = Some("a symbol table of more than 512 MiB was not read");
                continue;
            }
            image.symbols |= symbols.1 > 0;
            let wanted = wanted_names(file, names, table)?;
            image.look_up(file, symbols, endian, &wanted)?;
        }
        image.settle(table);
        Ok(image)
    }

    /// Streams a symbol table for the names that are wanted.
    fn look_up(
        &mut self,
        file: &File,
        (offset, size): (u64, u64),
        endian: Endianness,
        wanted: &HashMap<u32, Wanted>,
    ) -> Result<(), ElfError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let each = size_of::<SymbolBytes>();
        let mut piece = vec![0; PIECE / each * each];
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(piece.len());
            let Some(bytes) = piece.get_mut(..length) else { break };
            file.read_exact_at(bytes, offset.saturating_add(at))?;
            for bytes in bytes.as_chunks::<SYMBOL>().0 {
                let bytes = Aligned(*bytes);
                let Ok((symbol, _)) = object::pod::from_bytes::<Sym64<Endianness>>(&bytes.0) else {
                    continue;
                };
                let Some(wanted) = wanted.get(&symbol.st_name(endian)) else { continue };
                let defined = symbol.st_shndx(endian) != elf::SHN_UNDEF && symbol.st_value(endian) != 0;
                if !defined || self.functions.len() + self.data.len() >= MAX_FOUND {
                    continue;
                }
                let address = symbol.st_value(endian);
                match (wanted, symbol.st_type()) {
                    (Wanted::Function(row), elf::STT_FUNC) => {
                        self.functions.push(Found { row: *row, address, size: symbol.st_size(endian) });
                    }
                    (Wanted::Data(name), elf::STT_OBJECT | elf::STT_NOTYPE) => {
                        self.data.push((address, name))
                    }
                    _ => {}
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Leaves one function for each place: of several names the plain one, not that of the profiling interface.
    fn settle(&mut self, table: &Table) {
        let rank =
            |found: &Found| table.function(found.row).map_or(2, |f| u8::from(f.name.starts_with(['p', 'P'])));
        self.functions.retain(|f| self.loads.iter().any(|l| l.executable && l.contains(f.address)));
        self.functions.sort_by_key(|f| (f.address, rank(f), f.row));
        self.functions.dedup_by_key(|f| f.address);
        self.data.sort_unstable();
        self.data.dedup();
    }

    /// Where in the file the byte at an address of an executable part is.
    pub(crate) fn file_offset(&self, address: u64) -> Option<u64> {
        let load = self.loads.iter().find(|l| l.executable && l.contains(address))?;
        (address - load.address).checked_add(load.offset)
    }

    /// What must be added to the file's addresses, given that its page at `offset` is mapped at `start`.
    pub(crate) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let page = |value: u64| value & !0xfff;
        let load = self.loads.iter().find(|l| {
            l.executable && page(l.offset) <= offset && offset < l.offset.saturating_add(l.size.max(1))
        })?;
        Some(start.wrapping_sub(offset).wrapping_add(load.offset).wrapping_sub(load.address))
    }

    /// The length of the function that begins at an address: up to the begin of the next one. Symbols say it too, but
    /// not of functions that only their file knows.
    pub(crate) fn length(&self, file: &File, address: u64) -> Option<u64> {
        // Version 1, and the encodings that linkers write: a count, and sorted pairs relative to the table's begin.
        const HEAD: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
        let (base, offset) = self.begins?;
        let word = |at: u64| -> Option<u32> {
            let mut bytes = [0; 4];
            file.read_exact_at(&mut bytes, offset.checked_add(at)?).ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        if word(0)?.to_le_bytes() != HEAD {
            return None;
        }
        let count = u64::from(word(8)?);
        let begin = |n: u64| {
            // A signed distance.
            let distance = i64::from(word(12 + n * 8)?.cast_signed());
            Some(base.wrapping_add_signed(distance))
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if begin(middle)? < address { low = middle + 1 } else { high = middle }
        }
        let next = low.checked_add(1).filter(|&next| next < count)?;
        (begin(low)? == address).then_some(())?;
        begin(next)?.checked_sub(address)
    }

    /// Up to `length` bytes of code from an address on.
    pub(crate) fn code(&self, file: &File, address: u64, length: usize) -> Vec<u8> {
        let load = self.loads.iter().find(|l| l.executable && l.contains(address));
        let Some((load, offset)) = load.zip(self.file_offset(address)) else { return Vec::new() };
        let rest = load.size - (address - load.address);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }
}

impl Load {
    fn contains(&self, address: u64) -> bool {
        address >= self.address && address - self.address < self.size
    }
}

/// Bytes of a symbol.
const SYMBOL: usize = size_of::<Sym64<Endianness>>();
type SymbolBytes = [u8; SYMBOL];

/// A symbol's bytes where its fields may be read.
#[repr(C, align(8))]
struct Aligned(SymbolBytes);

enum Wanted {
    Function(u16),
    Data(&'static str),
}

/// What every symbol of the table begins with, `P` aside, and the data that is handles. A name may be the end of
/// another one in the file (linkers fold `MPI_Send` into `PMPI_Send`): they are searched for everywhere, and count where
/// they end with the name.
const BEGINS: [&str; 10] = [
    "nccl",
    "MPI_",
    "mpi_",
    "_ZN4gloo",
    "_ZN4c10d",
    "oneccl",
    "_ZN3ccl",
    "_ZN8ccl_comm",
    "__cxa_begin_catch",
    handles::PREFIX,
];

/// Streams a table of names. Offsets of those that are wanted.
fn wanted_names(
    file: &File,
    (offset, size): (u64, u64),
    table: &Table,
) -> Result<HashMap<u32, Wanted>, ElfError> {
    let finders = BEGINS.map(Finder::new);
    let mut wanted = HashMap::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(PIECE);
        let Some(bytes) = piece.get_mut(..length) else { break };
        file.read_exact_at(bytes, offset.saturating_add(at))?;
        let last = at + length as u64 >= size;
        // A name that begins in the last part of a piece may go on in the next, and is read there.
        let new = if last { length } else { length - MAX_NAME };
        for finder in &finders {
            for hit in finder.find_iter(bytes).take_while(|&hit| hit < new) {
                // With the letter before it, the other name.
                for begin in [hit, hit.saturating_sub(1)] {
                    let Some(name) = bytes.get(begin..) else { continue };
                    let Some(end) = memchr::memchr(0, name.get(..name.len().min(MAX_NAME)).unwrap_or(name))
                    else {
                        continue;
                    };
                    let Some(name) = name.get(..end) else { continue };
                    let found = match handles::find(name) {
                        Some(name) => Wanted::Data(name),
                        None => match table.find(name) {
                            Some(row) => Wanted::Function(row),
                            None => continue,
                        },
                    };
                    let Ok(at) = u32::try_from(at + begin as u64) else { continue };
                    if wanted.len() < MAX_FOUND {
                        wanted.insert(at, found);
                    }
                }
            }
        }
        if last {
            break;
        }
        // One byte more again, for the letter before a name that begins there.
        at += (new - 1) as u64;
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::{Image, Table};

    fn image(bytes: &[u8]) -> Option<(File, Image)> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        let image = Image::read(&file, &Table::new()).ok()?;
        Some((file, image))
    }

    #[test]
    fn damaged_files_are_refused_or_give_less_and_never_more_than_is_there() {
        let program = std::fs::read("/bin/ls").or_else(|_| std::fs::read("/bin/sh")).expect("a program");
        let (file, whole) = image(&program).expect("an ELF file");
        assert!(whole.symbols && !whole.loads.is_empty());
        // Code and lengths are found where the file says that functions begin.
        let (base, offset) = whole.begins.expect("a table of begins");
        let at = usize::try_from(offset).expect("small") + 12;
        let first = i32::from_le_bytes(*program[at..].first_chunk().expect("an entry"));
        let first = base.wrapping_add_signed(first.into());
        assert!(whole.length(&file, first).is_some_and(|length| length > 0));
        assert_eq!(whole.length(&file, first + 1), None);
        assert!(!whole.code(&file, first, 16).is_empty());

        // A generator of its own: the same damage every time.
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("fits") % below
        };
        let sections = program.len() - 64 * 40;
        for round in 0..400 {
            let mut bytes = program.clone();
            for _ in 0..=random(4) {
                // The headers at the begin, the sections' at the end, or anywhere.
                let at = [random(1024), sections + random(64 * 40), random(program.len())][round % 3];
                bytes[at] = [0, 0xff, 0x7f, 1][random(4)];
            }
            if round % 5 == 0 {
                bytes.truncate(random(program.len()));
            }
            let Some((file, image)) = image(&bytes) else { continue };
            for address in [0, first, u64::MAX, u64::MAX - 8] {
                let _ = image.length(&file, address);
                let _ = image.file_offset(address);
                let _ = image.bias(address, address);
                assert!(image.code(&file, address, 64).len() <= 64);
            }
        }
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n"] {
            assert!(image(bytes).is_none());
        }
    }
}
