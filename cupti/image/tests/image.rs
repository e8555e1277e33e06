//! The image loads wherever CUDA does: it needs nothing, and cannot do what nobody wants in a job.

use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, Object};
use stallscope_cupti_image::AGENT;
use stallscope_cupti_wire::ENTRY;

fn image() -> ElfFile64<'static, Endianness> {
    ElfFile64::parse(AGENT).expect("an ELF file of 64 bits")
}

fn segments() -> Vec<(elf::ProgramType, u32)> {
    let image = image();
    let endian = image.endian();
    image
        .elf_program_headers()
        .iter()
        .map(|header| (header.p_type(endian), header.p_flags(endian).0))
        .collect()
}

#[test]
fn it_needs_no_library_and_asks_for_no_version() {
    let image = image();
    let endian = image.endian();
    let dynamic = image
        .elf_program_headers()
        .iter()
        .find_map(|header| header.dynamic(endian, AGENT).expect("a dynamic section that can be read"))
        .expect("a dynamic section");
    let unwanted =
        [elf::DT_NEEDED, elf::DT_VERNEED, elf::DT_VERSYM, elf::DT_TEXTREL, elf::DT_RPATH, elf::DT_RUNPATH];
    for entry in dynamic {
        let tag = entry.d_tag.get(endian);
        assert!(!unwanted.contains(&tag), "the dynamic section has {tag:?}");
    }
}

#[test]
fn it_has_no_undefined_symbol_and_exports_its_two_entries_only() {
    let image = image();
    let endian = image.endian();
    let symbols = image.elf_section_table().symbols(endian, AGENT, elf::SHT_DYNSYM).expect("symbols");
    let mut exported = Vec::new();
    for symbol in symbols.iter().skip(1) {
        let name = symbol.name(endian, symbols.strings()).expect("a name");
        let name = String::from_utf8_lossy(name).into_owned();
        assert!(!symbol.is_undefined(endian), "{name} is undefined");
        exported.push(name);
    }
    exported.sort();
    assert_eq!(exported, ["InitializeInjection", ENTRY.to_str().expect("text")]);
}

#[test]
fn it_has_no_thread_local_storage_and_nothing_writable_and_executable() {
    let segments = segments();
    for (kind, flags) in &segments {
        assert_ne!(*kind, elf::PT_TLS);
        assert_ne!(*kind, elf::PT_INTERP);
        assert_ne!(flags & (elf::PF_W | elf::PF_X).0, (elf::PF_W | elf::PF_X).0, "segment {kind:?}");
    }
    let stack = segments
        .iter()
        .find(|(kind, _)| *kind == elf::PT_GNU_STACK)
        .expect("without it the stack becomes executable");
    assert_eq!(stack.1 & elf::PF_X.0, 0);
}

#[test]
fn it_has_no_way_to_panic() {
    // What the panic handler would keep in the image, if anything could call it.
    let mark = b"stallscope-agent-can-panic-yes";
    assert!(!AGENT.windows(mark.len()).any(|part| part == mark), "something in the agent can panic");
}

#[test]
fn it_describes_its_probe() {
    let image = image();
    let notes = image.section_by_name(".note.stapsdt").expect("a note");
    let endian = image.endian();
    let mut notes = notes.elf_section_header().notes(endian, AGENT).expect("notes").expect("notes");
    let note = notes.next().expect("a note that can be read").expect("one note");
    assert_eq!((note.name(), note.n_type(endian).0), (b"stapsdt".as_slice(), 3));
    let description = note.desc();
    let (site, texts) = (description.first_chunk::<8>().expect("an address"), &description[24..]);
    assert!(texts.starts_with(b"stallscope\0launch\0"));
    let site = u64::from_le_bytes(*site);
    let code = image
        .elf_program_headers()
        .iter()
        .find(|header| header.p_flags(endian).0 & elf::PF_X.0 != 0)
        .expect("code");
    let from = code.p_vaddr(endian);
    assert!((from..from + code.p_memsz(endian)).contains(&site));
    let offset = usize::try_from(code.p_offset(endian) + site - from).expect("small");
    assert_eq!(AGENT[offset], 0x90, "the site is a nop");
}
