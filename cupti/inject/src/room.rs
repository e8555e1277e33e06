//! Where the seed lies: the unused end of the last page of a library's code.
//!
//! A segment of code seldom fills its last page. The rest of that page is mapped and executable, and no symbol of any
//! object reaches into it, so nothing ever runs or reads it. Writing there gives the target a private copy of that one
//! page and changes no file.
//!
//! Only objects that are never unloaded serve: the C library, the loader, the program, and what the program needs. The
//! code stays for as long as a thread may be in it, which is as long as the agent lives.

use std::os::unix::fs::FileExt;

use object::elf;
use object::read::elf::ElfFile64;
use zerocopy::IntoBytes;

use crate::Refusal;
use crate::arch::{Context, Seed, seed};
use crate::libraries::{PAGE_BYTES, dynamic_names, needed_by_program, open_mapped, read_mapped, segments};
use crate::process::{Mapping, Process};

/// The stub's loads of eight bytes are of aligned words.
const ALIGNMENT: u64 = 16;

/// Unused bytes of the target that the seed is written to.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) address: u64,
    /// What was there: what the file says.
    original: Vec<u8>,
    /// The code is there already, from an injection before this one.
    found: bool,
    pub(crate) seed: Seed,
}

/// What the unused bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// What the file says.
    Unused,
    /// The code.
    Seed,
    /// A mixture of both: an injector died while it wrote.
    Partial,
    /// Something else.
    Foreign,
}

impl Room {
    /// Bytes of code and context.
    fn needed() -> usize {
        seed().code.len() + size_of::<Context>()
    }

    /// Finds room; the target is not touched.
    pub(crate) fn find(process: &Process, maps: &[Mapping]) -> Result<Self, Refusal> {
        let program = std::fs::read_link(process.file("exe")).unwrap_or_default();
        let is_code = |map: &&Mapping| map.executable && map.private && map.is_of_a_file();
        // The coldest first: the loader's code hardly runs once a program has started.
        let staying = |map: &Mapping| {
            let own = ["ld-linux", "ld-2.", "libc.so", "libc-2.", "libpthread"];
            let place = own.iter().position(|stem| map.name().starts_with(stem));
            place.or_else(|| (program.as_os_str() == map.path.as_str()).then_some(own.len()))
        };
        let mut largest = 0;
        let mut try_one = |mapping: &Mapping, names: &[String]| {
            let Some(unused) = Unused::of(process, maps, mapping, names)? else { return Ok(None) };
            largest = largest.max(unused.bytes());
            if unused.bytes() < Self::needed() { Ok(None) } else { Self::take(process, &unused, mapping) }
        };
        let mut stay: Vec<&Mapping> =
            maps.iter().filter(is_code).filter(|map| staying(map).is_some()).collect();
        stay.sort_by_key(|map| staying(map));
        for mapping in stay {
            if let Some(room) = try_one(mapping, &[])? {
                return Ok(room);
            }
        }
        let names = needed_by_program(process);
        for mapping in maps.iter().filter(is_code).filter(|map| !names.is_empty() && staying(map).is_none()) {
            if let Some(room) = try_one(mapping, &names)? {
                return Ok(room);
            }
        }
        Err(Refusal::NoRoom { pid: process.pid, needed: Self::needed(), largest })
    }

    /// The unused bytes as room, unless somebody else's are in them.
    fn take(process: &Process, unused: &Unused, mapping: &Mapping) -> Result<Option<Self>, Refusal> {
        let failed = |error| process.error("read the code", error);
        let bytes = Self::needed();
        let file = open_mapped(process, mapping).map_err(failed)?;
        let mut original = vec![0; bytes];
        // Past the end of the file a page is zero.
        let mut filled = 0;
        while let Some(rest) = original.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, unused.file_offset + filled as u64).map_err(failed)? {
                0 => break,
                read => filled += read,
            }
        }
        let mut present = vec![0; bytes];
        let read = process.peek(unused.start, &mut present).map_err(failed)?;
        if read != bytes {
            return Ok(None);
        }
        let seed = seed();
        let found = match contents(&present, &original, seed.code) {
            Contents::Foreign => return Ok(None),
            Contents::Seed => true,
            Contents::Unused | Contents::Partial => false,
        };
        Ok(Some(Self { address: unused.start, original, found, seed }))
    }

    /// Thread that an earlier injector left in the code when it died, as that numbered it.
    pub(crate) fn owner(&self, process: &Process) -> Option<i32> {
        let owner = self.found.then(|| process.peek_word(self.context()).ok()).flatten()?;
        i32::try_from(owner).ok().filter(|owner| *owner != 0)
    }

    /// Writes the code, in one piece, with a context that says that no thread is in it.
    pub(crate) fn write_code(&self, process: &Process) -> Result<(), Refusal> {
        if self.found {
            return Ok(());
        }
        let mut bytes = self.seed.code.to_vec();
        bytes.resize(self.original.len(), 0);
        process.poke(self.address, &bytes).map_err(|error| process.error("write to the code", error))
    }

    /// Writes what the stub reads.
    pub(crate) fn write_context(&self, process: &Process, context: &Context) -> std::io::Result<()> {
        process.poke(self.context(), context.as_bytes())
    }

    /// No thread reads the context any more.
    pub(crate) fn release(&self, process: &Process) -> std::io::Result<()> {
        process.poke(self.context(), &0_u64.to_ne_bytes())
    }

    /// Puts back what was there. No thread may be in the code.
    pub(crate) fn restore(&self, process: &Process) -> std::io::Result<()> {
        if self.found { Ok(()) } else { process.poke(self.address, &self.original) }
    }

    pub(crate) fn contains(&self, instruction: u64) -> bool {
        (self.address..self.context()).contains(&instruction)
    }

    pub(crate) fn marker(&self) -> u64 {
        self.address + self.seed.marker
    }

    /// Where the context is. Its first word is the owner.
    pub(crate) fn context(&self) -> u64 {
        self.address + self.seed.code.len() as u64
    }
}

fn contents(present: &[u8], original: &[u8], code: &[u8]) -> Contents {
    if present == original {
        return Contents::Unused;
    }
    if present.starts_with(code) {
        return Contents::Seed;
    }
    let ours = code.iter().copied().chain(std::iter::repeat(0));
    let either =
        present.iter().zip(original).zip(ours).all(|((byte, was), ours)| byte == was || *byte == ours);
    if either { Contents::Partial } else { Contents::Foreign }
}

/// The end of a page that no segment of an object reaches.
#[derive(Clone, Copy, Debug)]
struct Unused {
    start: u64,
    end: u64,
    /// Where `start` is in the file.
    file_offset: u64,
}

impl Unused {
    /// After the code in this mapping. With `names`, only if the object is called one of them.
    fn of(
        process: &Process,
        maps: &[Mapping],
        mapping: &Mapping,
        names: &[String],
    ) -> Result<Option<Self>, Refusal> {
        let Some(first) = maps.iter().find(|map| map.offset == 0 && map.same_file(mapping)) else {
            return Ok(None);
        };
        let bytes = read_mapped(process, mapping)?;
        let Ok(elf) = ElfFile64::parse(bytes.as_slice()) else { return Ok(None) };
        if !names.is_empty() && !dynamic_names(&elf, elf::DT_SONAME).iter().any(|name| names.contains(name)) {
            return Ok(None);
        }
        let segments = segments(&elf);
        let Some(lowest) = segments.iter().map(|segment| segment.address & !(PAGE_BYTES - 1)).min() else {
            return Ok(None);
        };
        let of_mapping = segments.iter().filter(|segment| segment.executable).find_map(|segment| {
            let end =
                first.start.checked_add(segment.address.wrapping_sub(lowest))?.checked_add(segment.bytes)?;
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            (end > mapping.start && end.checked_next_multiple_of(PAGE_BYTES)? == mapping.end).then_some(
                Self {
                    start,
                    end: mapping.end,
                    file_offset: segment.offset.checked_add(segment.bytes)?.checked_add(start - end)?,
                },
            )
        });
        Ok(of_mapping)
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Contents, contents};

    #[test]
    fn what_an_injector_left_that_died_is_recognised() {
        let (code, original) = ([1, 2, 3], [9, 9, 9, 9, 0]);
        assert_eq!(contents(&original, &original, &code), Contents::Unused);
        assert_eq!(contents(&[1, 2, 3, 7, 7], &original, &code), Contents::Seed);
        assert_eq!(contents(&[1, 2, 9, 9, 0], &original, &code), Contents::Partial);
        assert_eq!(contents(&[1, 5, 9, 9, 0], &original, &code), Contents::Foreign);
    }
}
