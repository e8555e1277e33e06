//! Names of one mapped file, whatever process maps it.
//!
//! What always holds here: blazesym gets private copies only; a copy is made when the first name is wanted, and can be
//! dropped at any time without losing what was resolved already. A file in which a lookup panics is not looked into again.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer, source};

use crate::demangle::readable;
use crate::elf::Elf;
use crate::frame::{Missing, NativeFrame};
use crate::image::{self, Image, Origin};
use crate::limits::Limits;
use crate::{debug_file, open, unwind_index};

/// How far in front of an exported function its neighbours of the same source file lie, in glibc.
const NEIGHBOUR_BYTES: u64 = 4096;

/// A file that processes map.
#[derive(Debug)]
pub(crate) struct Object {
    /// None where it could not be opened.
    file: Option<File>,
    stamp: Option<(u64, std::time::SystemTime)>,
    name: Arc<str>,
    content: Content,
    resolved: HashMap<u64, Arc<[NativeFrame]>>,
    /// When it was used last, as the owner counts.
    pub(crate) last_used: u64,
}

#[derive(Debug)]
enum Content {
    Unread,
    /// Not an ELF file, or one that cannot be read.
    Unreadable,
    Read {
        elf: Box<Elf>,
        /// Exported functions with the entry of threads in front of them.
        entries_before: Vec<u64>,
        names: Names,
    },
}

#[derive(Debug)]
enum Names {
    NotCopied,
    /// There are none, or they cannot be used.
    Without,
    Copied {
        image: Image,
        symbolizer: Box<Symbolizer>,
    },
}

/// Who maps it: debug files are looked for where that process would find them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a Path,
    pub(crate) root: Option<BorrowedFd<'a>>,
}

impl Object {
    pub(crate) fn new(file: Option<File>, name: Arc<str>) -> Self {
        let stamp = file.as_ref().and_then(open::stamp);
        Self { file, stamp, name, content: Content::Unread, resolved: HashMap::new(), last_used: 0 }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Code in it was written by a JIT compiler: memory with a name instead of a file.
    pub(crate) fn is_memory(&self) -> bool {
        self.name.starts_with("memfd:") || &*self.name == "zero"
    }

    /// Forgets what was read if the file was written to since.
    pub(crate) fn refresh(&mut self) {
        let stamp = self.file.as_ref().and_then(open::stamp);
        if stamp != self.stamp {
            self.stamp = stamp;
            self.content = Content::Unread;
            self.resolved.clear();
        }
    }

    /// What the private copy costs at most.
    pub(crate) fn image_bytes(&self) -> u64 {
        match &self.content {
            Content::Read { names: Names::Copied { image, .. }, .. } => image.cost_bytes,
            _ => 0,
        }
    }

    /// Drops the private copy; what was resolved stays.
    pub(crate) fn drop_image(&mut self) {
        if let Content::Read { names, .. } = &mut self.content
            && matches!(names, Names::Copied { .. })
        {
            *names = Names::NotCopied;
        }
    }

    pub(crate) fn resolved_addresses(&self) -> usize {
        self.resolved.len()
    }

    pub(crate) fn forget_resolved(&mut self) {
        self.resolved = HashMap::new();
    }

    /// Whether names have to be copied to resolve an offset.
    pub(crate) fn needs_copy(&self, offset: u64) -> bool {
        let copied =
            matches!(&self.content, Content::Read { names: Names::Copied { .. } | Names::Without, .. });
        !copied && !self.resolved.contains_key(&offset)
    }

    /// The frames at an offset of the file, innermost first; at least one.
    pub(crate) fn frames(&mut self, offset: u64, seen: Seen<'_>, limits: &Limits) -> Arc<[NativeFrame]> {
        if let Some(frames) = self.resolved.get(&offset) {
            return Arc::clone(frames);
        }
        let frames: Arc<[NativeFrame]> = self.resolve(offset, seen, limits).into();
        self.resolved.insert(offset, Arc::clone(&frames));
        frames
    }

    fn resolve(&mut self, offset: u64, seen: Seen<'_>, limits: &Limits) -> Vec<NativeFrame> {
        let name = &self.name;
        let unnamed = |address: u64, why| NativeFrame::unnamed(format!("{address:#x} in {name}"), name, why);
        let Some(file) = &self.file else {
            return vec![unnamed(offset, Missing::FileUnavailable)];
        };
        if matches!(self.content, Content::Unread) {
            self.content = read(file, name);
        }
        let Content::Read { elf, entries_before, names } = &mut self.content else {
            return vec![unnamed(offset, Missing::FileUnreadable)];
        };
        let Some(address) = elf.address_of(offset) else {
            return vec![unnamed(offset, Missing::FileUnreadable)];
        };
        if matches!(names, Names::NotCopied) {
            *names = copy(Origin { file, elf }, seen, limits);
        }
        if let Names::Copied { image, symbolizer } = names {
            match catch_unwind(AssertUnwindSafe(|| look_up(symbolizer, image, address, name))) {
                Ok(Some(frames)) => return frames,
                Ok(None) => {}
                Err(_) => *names = Names::Without,
            }
        }
        let start = unwind_index::function_start(file, elf, address);
        let mut frame = unnamed(start.unwrap_or(address), Missing::Symbol);
        frame.thread_entry = start.is_some_and(|start| {
            entries_before.iter().any(|&next| start < next && next - start < NEIGHBOUR_BYTES)
        });
        vec![frame]
    }
}

fn read(file: &File, name: &str) -> Content {
    let Ok(elf) = Elf::read(file) else {
        return Content::Unreadable;
    };
    // Distributions strip the C library, and with it the names of the two functions in which threads begin. Each lies
    // next to an exported function of its source file.
    let is_libc = ["libc.so", "libc-2", "libpthread"].iter().any(|begin| name.starts_with(begin));
    let entries_before = if is_libc {
        image::exported(Origin { file, elf: &elf }, &["__libc_start_main", "pthread_create"])
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    Content::Read { elf: Box::new(elf), entries_before, names: Names::NotCopied }
}

fn copy(mapped: Origin<'_>, seen: Seen<'_>, limits: &Limits) -> Names {
    let debug = debug_file::find(mapped.elf, seen.path, seen.root);
    let debug = debug.as_ref().map(|(file, elf)| Origin { file, elf });
    match image::build(mapped, debug, limits) {
        Ok(Some(image)) => {
            let builder = Symbolizer::builder().enable_auto_reload(false).enable_demangling(false);
            Names::Copied { image, symbolizer: Box::new(builder.build()) }
        }
        Ok(None) | Err(_) => Names::Without,
    }
}

/// What blazesym says about an address; None where it knows no symbol.
fn look_up(
    symbolizer: &Symbolizer,
    image: &Image,
    address: u64,
    module: &Arc<str>,
) -> Option<Vec<NativeFrame>> {
    let ask = |debug_syms| {
        let mut elf = source::Elf::new(open::path_of(&image.file));
        elf.debug_syms = debug_syms;
        symbolizer.symbolize_single(&source::Source::Elf(elf), Input::VirtOffset(address))
    };
    let mut answer = ask(image.has_debug);
    if image.has_debug && answer.is_err() {
        // Damaged debug information leaves the symbol table.
        answer = ask(false);
    }
    match answer {
        Ok(Symbolized::Sym(symbol)) => Some(frames_of(&symbol, module)),
        Ok(Symbolized::Unknown(_)) | Err(_) => None,
    }
}

/// blazesym lists inlined functions from the outermost to the innermost.
fn frames_of(symbol: &Sym<'_>, module: &Arc<str>) -> Vec<NativeFrame> {
    let inlined = symbol.inlined.iter().rev().map(|function| {
        let mut frame = frame_of(&function.name, function.code_info.as_ref(), module);
        frame.inlined = true;
        frame
    });
    let outer = frame_of(&symbol.name, symbol.code_info.as_deref(), module);
    inlined.chain([outer]).collect()
}

fn frame_of(name: &str, code: Option<&CodeInfo<'_>>, module: &Arc<str>) -> NativeFrame {
    let mut frame = NativeFrame::named(readable(name), module);
    if let Some(code) = code {
        let file = Path::new(&code.file).file_name().unwrap_or(&code.file);
        frame.file = Some(readable(&file.to_string_lossy()));
        frame.line = code.line.filter(|&line| line > 0);
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;

    use super::{Object, Seen};
    use crate::frame::Missing;
    use crate::limits::Limits;

    fn seen() -> Seen<'static> {
        Seen { path: Path::new("/x/libx.so"), root: None }
    }

    fn shared_object() -> Vec<u8> {
        let directory = tempfile::TempDir::new().unwrap();
        let (code, library) = (directory.path().join("x.c"), directory.path().join("libx.so"));
        let text = "static inline __attribute__((always_inline)) int inner(int *p) { __asm__ volatile(\"nop\"); return *p * 3; }\n\
                    int outer(int *p) { return inner(p) + inner(p + 1); }\n";
        std::fs::write(&code, text).unwrap();
        let output = std::process::Command::new("gcc")
            .args(["-O2", "-g", "-shared", "-fPIC", "-o"])
            .args([&library, &code])
            .output()
            .unwrap();
        assert!(output.status.success());
        std::fs::read(library).unwrap()
    }

    fn object(bytes: &[u8]) -> (Object, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        (Object::new(Some(file.try_clone().unwrap()), "libx.so".into()), file)
    }

    /// An offset in `outer`, found by trying.
    fn offset_of_outer(bytes: &[u8]) -> u64 {
        let (mut object, _) = object(bytes);
        let is_outer = |offset: &u64| {
            object.frames(*offset, seen(), &Limits::default()).iter().any(|f| &*f.name == "outer")
        };
        (0x1000..0x2000).find(is_outer).unwrap()
    }

    #[test]
    fn a_damaged_file_costs_names_and_nothing_else() {
        let good = shared_object();
        let offset = offset_of_outer(&good);
        // A generator of our own, so that a failure can be repeated.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let (mut named, mut unnamed) = (0, 0);
        for round in 0..1500 {
            let mut bytes = good.clone();
            for _ in 0..=random(8) {
                // Headers and tables lie at both ends.
                let end = if round % 3 == 0 { 4096 } else { bytes.len() };
                let at = random(end);
                bytes[at] = if round % 2 == 0 { 0xff } else { u8::try_from(random(256)).unwrap() };
            }
            if round % 5 == 0 {
                bytes.truncate(random(good.len()));
            }
            let (mut object, _) = object(&bytes);
            for offset in [offset, 0, offset + 7, u64::MAX] {
                let frames = object.frames(offset, seen(), &Limits::default());
                assert!(!frames.is_empty());
            }
            let found = object.frames(offset, seen(), &Limits::default()).iter().any(|f| &*f.name == "outer");
            named += u32::from(found);
            unnamed += u32::from(!found);
        }
        assert!(named > 100 && unnamed > 100, "{named} named, {unnamed} not: the damage is of no use");
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_used_does_no_harm() {
        let good = shared_object();
        let offset = offset_of_outer(&good);
        let is_inner = |offset: &u64| {
            let frames = object(&good).0.frames(*offset, seen(), &Limits::default());
            frames[0].inlined && &*frames[0].name == "inner"
        };
        let inlined = (offset + 1..offset + 32).find(is_inner).unwrap();
        let (mut object, file) = object(&good);
        let frames = object.frames(offset, seen(), &Limits::default());
        assert_eq!(frames.last().map(|frame| &*frame.name), Some("outer"));
        file.set_len(0).unwrap();
        // Reading a mapping of the file itself would be a bus error here.
        let frames = object.frames(inlined, seen(), &Limits::default());
        assert_eq!(&*frames[0].name, "inner");
        object.refresh();
        let frames = object.frames(offset, seen(), &Limits::default());
        assert_eq!(frames[0].missing, Some(Missing::FileUnreadable));
    }

    #[test]
    fn what_is_not_an_elf_file_is_unreadable() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x01\x01", &[0; 200]] {
            let (mut object, _) = object(bytes);
            let frames = object.frames(0, seen(), &Limits::default());
            assert_eq!((frames.len(), frames[0].missing), (1, Some(Missing::FileUnreadable)));
        }
    }
}
