//! Functions of the process by name, without a loader to ask: for a start in which nobody hands over `dlopen`.
//!
//! The kernel says where the program's headers are; these lead to the loader's list of what is loaded, and each entry to
//! tables of symbols. All of it is the loader's own memory of this process.

use core::ffi::CStr;
use core::ptr::with_exposed_provenance;

use crate::sys;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_DEBUG: u64 = 21;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const STT_FUNC: u8 = 2;

/// More than any process has; a list that is longer is broken.
const MAX_OBJECTS: usize = 10_000;
const MAX_DYNAMIC: usize = 1000;

#[derive(Clone, Copy)]
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Dynamic {
    tag: u64,
    value: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Debug {
    version: u64,
    objects: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinkMap {
    bias: u64,
    name: u64,
    dynamic: u64,
    next: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GnuHash {
    buckets: u32,
    first: u32,
    bloom_words: u32,
    bloom_shift: u32,
}

/// Reads from the loader's memory.
///
/// # Safety
/// A value of that type lies at the address.
unsafe fn at<T: Copy>(address: u64) -> T {
    // SAFETY: by the caller's word.
    unsafe { with_exposed_provenance::<T>(usize::try_from(address).unwrap_or(0)).read_unaligned() }
}

/// The entries of a dynamic section.
///
/// # Safety
/// A dynamic section begins at the address.
unsafe fn dynamic(address: u64) -> impl Iterator<Item = Dynamic> {
    (0..MAX_DYNAMIC)
        // SAFETY: no entry before this one was the last.
        .map(move |index| unsafe { at::<Dynamic>(address + (index * size_of::<Dynamic>()) as u64) })
        .take_while(|entry| entry.tag != DT_NULL)
}

/// The loader's list of what is loaded.
fn first_object() -> Option<u64> {
    let mut buffer = [0; 1024];
    let file = sys::open(c"/proc/self/auxv").ok()?;
    let read = sys::read(file, &mut buffer).map(<[u8]>::len);
    sys::close(file);
    let (mut headers, mut count) = (0, 0);
    for entry in buffer.get(..read.ok()?)?.as_chunks::<16>().0 {
        let (tag, value) = (entry.first_chunk()?, entry.last_chunk()?);
        match (u64::from_ne_bytes(*tag), u64::from_ne_bytes(*value)) {
            (AT_NULL, _) => break,
            (AT_PHDR, value) => headers = value,
            (AT_PHNUM, value) => count = value,
            _ => {}
        }
    }
    if headers == 0 {
        return None;
    }
    // SAFETY: the kernel says that so many headers lie there.
    let header =
        |index: u64| unsafe { at::<ProgramHeader>(headers + index * size_of::<ProgramHeader>() as u64) };
    let of_kind = |kind: u32| (0..count).map(header).find(|header| header.kind == kind);
    // Without a header that says where the headers are, the program lies where it was linked to lie.
    let bias = of_kind(PT_PHDR).map_or(0, |header| headers.wrapping_sub(header.address));
    let section = bias.wrapping_add(of_kind(PT_DYNAMIC)?.address);
    // SAFETY: the program's own dynamic section.
    let debug = unsafe { dynamic(section) }.find(|entry| entry.tag == DT_DEBUG)?.value;
    if debug == 0 {
        return None;
    }
    // SAFETY: the loader wrote the address of its structure there.
    Some(unsafe { at::<Debug>(debug) }.objects)
}

/// The address of the first function of that name, in the order in which objects were loaded.
pub(crate) fn function(name: &CStr) -> Option<u64> {
    let mut object = first_object()?;
    for _ in 0..MAX_OBJECTS {
        if object == 0 {
            return None;
        }
        // SAFETY: an entry of the loader's list.
        let map = unsafe { at::<LinkMap>(object) };
        // SAFETY: the loader's own description of an object that is loaded.
        if let Some(address) = unsafe { function_in(&map, name) } {
            return Some(address);
        }
        object = map.next;
    }
    None
}

/// # Safety
/// The object is loaded.
unsafe fn function_in(map: &LinkMap, name: &CStr) -> Option<u64> {
    if map.dynamic == 0 {
        return None;
    }
    let (mut strings, mut symbols, mut hash) = (0, 0, 0);
    // SAFETY: the object's own dynamic section.
    for entry in unsafe { dynamic(map.dynamic) } {
        // Most loaders write addresses in place of offsets here, some do not, and none can in the kernel's own object.
        let address = if entry.value < map.bias { entry.value + map.bias } else { entry.value };
        match entry.tag {
            DT_STRTAB => strings = address,
            DT_SYMTAB => symbols = address,
            DT_GNU_HASH => hash = address,
            _ => {}
        }
    }
    if strings == 0 || symbols == 0 || hash == 0 {
        return None;
    }
    // SAFETY: the object has this table.
    let header = unsafe { at::<GnuHash>(hash) };
    let wanted = gnu_hash(name);
    let buckets = hash + size_of::<GnuHash>() as u64 + u64::from(header.bloom_words) * 8;
    let chains = buckets + u64::from(header.buckets) * 4;
    let bucket = u64::from(wanted.checked_rem(header.buckets)?);
    // SAFETY: within the buckets.
    let mut index = unsafe { at::<u32>(buckets + bucket * 4) };
    while index >= header.first && index != 0 {
        // SAFETY: the chain of the bucket goes on to a word whose lowest bit is set.
        let found = unsafe { at::<u32>(chains + u64::from(index - header.first) * 4) };
        if found | 1 == wanted | 1 {
            // SAFETY: a symbol that the table names.
            let symbol = unsafe { at::<Symbol>(symbols + u64::from(index) * size_of::<Symbol>() as u64) };
            let text = strings + u64::from(symbol.name);
            let mut bytes = name.to_bytes_with_nul().iter().zip(text..);
            // SAFETY: the name of a symbol ends with a zero, and no byte before this one was it.
            let is_named = bytes.all(|(byte, address)| unsafe { at::<u8>(address) } == *byte);
            if is_named && symbol.section != 0 && symbol.info & 0xf == STT_FUNC {
                return Some(map.bias + symbol.value);
            }
        }
        if found & 1 != 0 {
            return None;
        }
        index += 1;
    }
    None
}

fn gnu_hash(name: &CStr) -> u32 {
    name.to_bytes().iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}
