//! The target's C library: which one it is, and where its functions are.
//!
//! Files are read through /proc/PID/map_files, so that it is the mapped file which is read whatever mount namespace it
//! is in and whether or not it has been deleted or replaced since.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use object::elf;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};

use crate::Refusal;
use crate::process::{Mapping, Process};

/// The most of a library that is read. The largest glibc with its debugging information is below 32 MiB.
const LIBRARY_BYTES: u64 = 128 << 20;

type Elf<'a> = ElfFile64<'a, Endianness>;

/// Addresses of functions in the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub(crate) dlopen: u64,
    pub(crate) dlsym: u64,
    pub(crate) dlerror: u64,
    pub(crate) dlclose: u64,
    pub(crate) pthread_create: u64,
    pub(crate) pthread_detach: u64,
    pub(crate) errno_location: u64,
}

/// What of the C library an injection uses.
#[derive(Debug)]
pub(crate) struct CLibrary {
    pub(crate) functions: Functions,
    /// Mappings of its code (libc, and libpthread where that is a library of its own): system calls made there are made
    /// by a function of the library.
    pub(crate) code: Vec<Mapping>,
}

impl CLibrary {
    pub(crate) fn find(process: &Process, maps: &[Mapping]) -> Result<Self, Refusal> {
        let pid = process.pid;
        let libc = only_libc(process, maps)?;
        // Before 2.34, functions are spread over three libraries.
        let beside =
            ["libpthread", "libdl"].iter().filter_map(|stem| first_of(maps, |name| is_named(name, stem)));
        let parts: Vec<&Mapping> = std::iter::once(libc).chain(beside).collect();
        let mut found = Found::default();
        for part in &parts {
            found.add(process, part)?;
        }
        if !found.is_glibc {
            return Err(no_glibc(process));
        }
        let get = |name| found.get(name).ok_or(Refusal::NoFunction { pid, function: name });
        let functions = Functions {
            dlopen: get("dlopen")?,
            dlsym: get("dlsym")?,
            dlerror: get("dlerror")?,
            dlclose: get("dlclose")?,
            pthread_create: get("pthread_create")?,
            pthread_detach: get("pthread_detach")?,
            errno_location: get("__errno_location")?,
        };
        let code = maps.iter().filter(|map| map.executable && parts.iter().any(|part| part.same_file(map)));
        Ok(Self { functions, code: code.cloned().collect() })
    }
}

/// `libc.so.6`, or `libc-2.31.so` as it is called before 2.34.
fn is_named(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem)
        .is_some_and(|rest| rest.starts_with(".so") || (rest.starts_with("-2.") && rest.ends_with(".so")))
}

fn first_of(maps: &[Mapping], is: impl Fn(&str) -> bool) -> Option<&Mapping> {
    maps.iter().find(|map| map.is_of_a_file() && map.offset == 0 && is(map.name()))
}

fn only_libc<'a>(process: &Process, maps: &'a [Mapping]) -> Result<&'a Mapping, Refusal> {
    let mut libcs = maps
        .iter()
        .filter(|map| {
            map.is_of_a_file() && map.offset == 0 && !map.executable && is_named(map.name(), "libc")
        })
        .peekable();
    // Old linkers put the headers and the code into one mapping.
    let first = libcs.next().or_else(|| first_of(maps, |name| is_named(name, "libc")));
    if libcs.next().is_some() {
        return Err(Refusal::SeveralLibcs { pid: process.pid });
    }
    first.ok_or_else(|| no_glibc(process))
}

/// Which refusal it is that there is no glibc.
fn no_glibc(process: &Process) -> Refusal {
    let pid = process.pid;
    let loader = program(process).and_then(|bytes| {
        let elf = parse(pid, &bytes).ok()?;
        let endian = elf.endian();
        let named =
            elf.elf_program_headers().iter().find(|header| header.p_type(endian) == elf::PT_INTERP)?;
        Some(String::from_utf8_lossy(named.data(endian, bytes.as_slice()).ok()?).into_owned())
    });
    match loader {
        None => Refusal::Static { pid },
        Some(path) if path.contains("musl") => Refusal::Musl { pid },
        Some(_) => Refusal::NoGlibc { pid },
    }
}

/// The functions that were found so far.
#[derive(Debug, Default)]
struct Found {
    is_glibc: bool,
    symbols: Vec<(String, u64)>,
}

impl Found {
    const WANTED: [&'static str; 7] =
        ["dlopen", "dlsym", "dlerror", "dlclose", "pthread_create", "pthread_detach", "__errno_location"];

    fn add(&mut self, process: &Process, part: &Mapping) -> Result<(), Refusal> {
        let bytes = read_mapped(process, part)?;
        let elf = parse(process.pid, &bytes)?;
        let Some(first) = lowest_address(&elf) else { return Ok(()) };
        for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
            let Ok(name) = symbol.name() else { continue };
            self.is_glibc |= name == "gnu_get_libc_version";
            let is_function = matches!(symbol.kind(), object::SymbolKind::Text);
            if is_function && Self::WANTED.contains(&name) && self.get(name).is_none() {
                let address = part.start.wrapping_add(symbol.address().wrapping_sub(first));
                self.symbols.push((name.to_owned(), address));
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|(known, _)| known == name).map(|(_, address)| *address)
    }
}

/// Address of the first page of an object, as its own headers say.
fn lowest_address(elf: &Elf<'_>) -> Option<u64> {
    let first = segments(elf).into_iter().map(|segment| segment.address).min()?;
    Some(first & !(PAGE_BYTES - 1))
}

pub(crate) const PAGE_BYTES: u64 = 4096;

/// A part of an object that is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) executable: bool,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    /// Where it is in the file.
    pub(crate) offset: u64,
}

/// The segments of an object that are mapped.
pub(crate) fn segments(elf: &Elf<'_>) -> Vec<Segment> {
    let endian = elf.endian();
    let loaded = elf.elf_program_headers().iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
    let segment = |header: &elf::ProgramHeader64<Endianness>| Segment {
        executable: header.p_flags(endian).0 & elf::PF_X.0 != 0,
        address: header.p_vaddr(endian),
        bytes: header.p_memsz(endian),
        offset: header.p_offset(endian),
    };
    loaded.map(segment).collect()
}

/// Names in an object's dynamic section: what it is called, or what it needs.
pub(crate) fn dynamic_names(elf: &Elf<'_>, tag: elf::DynamicTag) -> Vec<String> {
    let endian = elf.endian();
    let bytes = elf.data();
    let Ok(sections) = elf.elf_header().sections(endian, bytes) else { return Vec::new() };
    let Ok(Some((entries, link))) = sections.dynamic(endian, bytes) else { return Vec::new() };
    let strings = sections.strings(endian, bytes, link).unwrap_or_default();
    let named = entries.iter().filter(|entry| entry.tag(endian) == tag);
    named
        .filter_map(|entry| strings.get(u32::try_from(entry.d_val(endian)).ok()?).ok())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

pub(crate) fn parse(pid: i32, bytes: &[u8]) -> Result<Elf<'_>, Refusal> {
    ElfFile64::parse(bytes)
        .map_err(|_| Refusal::Hostile { pid, what: "a library that it has mapped is not a whole ELF file" })
}

/// The file that is mapped.
pub(crate) fn open_mapped(process: &Process, mapping: &Mapping) -> io::Result<File> {
    let link = process.file(&format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    File::open(link).or_else(|denied| {
        // map_files wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. The path will do where it still names the file.
        let path = process.file(&format!("root{}", mapping.path));
        let file = File::open(path).map_err(|_| denied)?;
        if file.metadata()?.ino() == mapping.inode {
            Ok(file)
        } else {
            Err(io::Error::other(
                "the file was replaced, and reading the mapped one needs CAP_CHECKPOINT_RESTORE",
            ))
        }
    })
}

/// The contents of the file that is mapped.
pub(crate) fn read_mapped(process: &Process, mapping: &Mapping) -> Result<Vec<u8>, Refusal> {
    let read = || {
        let mut bytes = Vec::new();
        open_mapped(process, mapping)?.take(LIBRARY_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| process.error("read a mapped library", error))
}

/// What the program says that it needs, by name.
pub(crate) fn needed_by_program(process: &Process) -> Vec<String> {
    let Some(bytes) = program(process) else { return Vec::new() };
    parse(process.pid, &bytes).map(|elf| dynamic_names(&elf, elf::DT_NEEDED)).unwrap_or_default()
}

/// The program's file.
fn program(process: &Process) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(process.file("exe")).ok()?.take(LIBRARY_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn names_of_old_and_new_libraries() {
        for name in ["libc.so.6", "libc-2.17.so"] {
            assert!(is_named(name, "libc"), "{name}");
        }
        for name in ["libcap.so.2", "libc-client.so", "libcrypt.so.1", "libc++.so.1"] {
            assert!(!is_named(name, "libc"), "{name}");
        }
        assert!(is_named("libpthread-2.31.so", "libpthread"));
    }
}
