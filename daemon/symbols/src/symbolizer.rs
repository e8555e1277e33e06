//! The symboliser: processes, the files that they share, and the kernel.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use crate::frame::{Missing, NativeFrame};
use crate::kallsyms::Kallsyms;
use crate::limits::Limits;
use crate::maps::{FileKey, Place};
use crate::object::{Object, Seen};
use crate::process::{Process, ProcessError, open_mapped, root_of};
use crate::{demangle, vdso};

/// A page at a fixed address of every process, with three old system calls in it.
const VSYSCALL: std::ops::Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;

/// Turns addresses into frames. Not shared between threads: it belongs to the one that resolves.
#[derive(Debug)]
pub struct Symbolizer {
    limits: Limits,
    processes: HashMap<u32, Process>,
    objects: HashMap<FileKey, Object>,
    vdso: Object,
    /// Read when the first kernel address comes.
    kernel: Option<Kallsyms>,
    unknown: Arc<str>,
    jit: Arc<str>,
    /// Counts calls: the order in which things were used.
    now: u64,
}

/// What a symboliser holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Processes that live, as far as it was told.
    pub processes: usize,
    /// Processes that are gone and not forgotten.
    pub gone_processes: usize,
    /// Mapped files, over all processes.
    pub files: usize,
    /// Of these, held open.
    pub open_files: usize,
    /// What private copies of symbol tables and debug information cost at most.
    pub image_bytes: u64,
    /// Addresses whose frames are remembered.
    pub cached_addresses: usize,
}

impl Symbolizer {
    /// A symboliser that knows no process yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            vdso: Object::new(vdso::copy().ok(), "[vdso]".into()),
            unknown: "[unknown]".into(),
            jit: "[jit]".into(),
            limits,
            processes: HashMap::new(),
            objects: HashMap::new(),
            kernel: None,
            now: 0,
        }
    }

    /// Takes note of a process: where its code is mapped, and a handle on each file, so that its stacks can be resolved
    /// after it is gone. To be called as soon as the process is followed.
    ///
    /// # Errors
    /// The process is gone or may not be read; its frames will be [`Missing::Process`].
    pub fn process_seen(&mut self, pid: u32) -> Result<(), ProcessError> {
        let process = Process::look(pid, &self.limits)?;
        self.processes.insert(pid, process);
        self.open_files(pid);
        Ok(())
    }

    /// The process runs another program now (exec). Stacks from before should be resolved before this is called; where
    /// they are not, ranges that the new program does not use are still those of the old one.
    ///
    /// # Errors
    /// As for [`process_seen`](Self::process_seen); what was known stays.
    pub fn process_changed(&mut self, pid: u32) -> Result<(), ProcessError> {
        let Some(process) = self.processes.get_mut(&pid) else {
            return self.process_seen(pid);
        };
        match process.look_again(&self.limits) {
            // Another process has the id.
            Err(ProcessError::Gone(_)) => return self.process_seen(pid),
            other => other?,
        }
        self.open_files(pid);
        Ok(())
    }

    /// The process exits or has exited. Its stacks can be resolved until it is forgotten: by [`forget`](Self::forget), or
    /// because more than [`Limits::gone_processes`] went after it.
    pub fn process_gone(&mut self, pid: u32) {
        self.now += 1;
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.leave(self.now, &self.limits);
        let mut gone: Vec<_> = self.processes.iter().filter_map(|(&pid, p)| Some((p.gone?, pid))).collect();
        if gone.len() > self.limits.gone_processes {
            gone.sort_unstable();
            let surplus = gone.len() - self.limits.gone_processes;
            for &(_, pid) in &gone[..surplus] {
                self.processes.remove(&pid);
            }
            self.close_unused_files();
        }
    }

    /// Drops what is known of a process, and closes the files that only it had mapped.
    pub fn forget(&mut self, pid: u32) {
        if self.processes.remove(&pid).is_some() {
            self.close_unused_files();
        }
    }

    /// The frames of a user stack, innermost first. The first address is where the thread was, the others are where it
    /// will return to, which is behind the call.
    pub fn user(&mut self, pid: u32, addresses: &[u64]) -> Vec<NativeFrame> {
        self.now += 1;
        let mut frames = Vec::with_capacity(addresses.len());
        for (depth, &address) in addresses.iter().enumerate() {
            let address = if depth == 0 { address } else { address.saturating_sub(1) };
            self.resolve(pid, address, &mut frames);
        }
        name_entry(&mut frames);
        self.shrink();
        frames
    }

    /// The frames of a kernel stack, innermost first.
    pub fn kernel(&mut self, addresses: &[u64]) -> Vec<NativeFrame> {
        let kernel = self.kernel.get_or_insert_with(|| {
            Kallsyms::read(Path::new("/proc/kallsyms")).unwrap_or_else(|_| Kallsyms::empty())
        });
        let at =
            |(depth, &address): (usize, &u64)| kernel.frame(if depth == 0 { address } else { address - 1 });
        addresses.iter().enumerate().map(at).collect()
    }

    /// Drops all private copies of symbol tables; what was resolved stays. To be called when the work is done or pauses.
    pub fn trim(&mut self) {
        self.objects.values_mut().chain([&mut self.vdso]).for_each(Object::drop_image);
    }

    /// What is held now.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let gone = self.processes.values().filter(|process| process.gone.is_some()).count();
        Footprint {
            processes: self.processes.len() - gone,
            gone_processes: gone,
            files: self.objects.len(),
            open_files: self.objects.values().filter(|object| object.is_open()).count(),
            image_bytes: self.objects.values().map(Object::image_bytes).sum(),
            cached_addresses: self.objects.values().map(Object::resolved_addresses).sum(),
        }
    }

    fn resolve(&mut self, pid: u32, address: u64, frames: &mut Vec<NativeFrame>) {
        if VSYSCALL.contains(&address) {
            let name: Arc<str> = "[vsyscall]".into();
            frames.push(NativeFrame::unnamed(Arc::clone(&name), &name, Missing::Symbol));
            return;
        }
        let Some(mut process) = self.processes.get(&pid) else {
            frames.push(NativeFrame::unnamed(Arc::clone(&self.unknown), &self.unknown, Missing::Process));
            return;
        };
        if process.mapping(address).is_none() && process.may_look_again(&self.limits) {
            self.look_again(pid);
            let Some(again) = self.processes.get(&pid) else { return };
            process = again;
        }
        let Some(mapping) = process.mapping(address) else {
            frames.push(NativeFrame::unnamed(Arc::clone(&self.unknown), &self.unknown, Missing::Mapping));
            return;
        };
        let offset = (address - mapping.start).saturating_add(mapping.offset);
        match &mapping.place {
            Place::Jit => self.resolve_jit(pid, address, frames),
            Place::Vdso => {
                let seen = Seen { path: Path::new(""), root: None };
                let found = self.vdso.frames(offset, seen, &self.limits);
                frames.extend(found.iter().cloned());
            }
            Place::Special(name) => {
                frames.push(NativeFrame::unnamed(Arc::clone(name), name, Missing::Symbol))
            }
            Place::File(file) => {
                let Some(object) = self.objects.get_mut(&file.key) else {
                    let name = format!("{offset:#x} in {}", file.key.name);
                    frames.push(NativeFrame::unnamed(name, &file.key.name, Missing::FileUnavailable));
                    return;
                };
                object.last_used = self.now;
                let found = if object.needs_copy(offset) {
                    let root = process.directory().ok().and_then(|directory| root_of(directory).ok());
                    let seen = Seen { path: &file.path, root: root.as_ref().map(AsFd::as_fd) };
                    object.frames(offset, seen, &self.limits)
                } else {
                    object.frames(offset, Seen { path: &file.path, root: None }, &self.limits)
                };
                let unreadable = found.iter().all(|frame| frame.missing == Some(Missing::FileUnreadable));
                if unreadable && object.is_memory() {
                    self.resolve_jit(pid, address, frames);
                } else {
                    frames.extend(found.iter().cloned());
                }
            }
        }
    }

    fn resolve_jit(&mut self, pid: u32, address: u64, frames: &mut Vec<NativeFrame>) {
        let name = self.processes.get_mut(&pid).and_then(|process| process.jit_name(address, &self.limits));
        frames.push(match name {
            Some(name) => NativeFrame::named(demangle::readable(name), &self.jit),
            None => NativeFrame::unnamed(Arc::clone(&self.jit), &self.jit, Missing::Jit),
        });
    }

    fn look_again(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid)
            // A process that is gone keeps what is known of it.
            && process.look_again(&self.limits).is_ok()
        {
            self.open_files(pid);
        }
    }

    /// Opens the files of a process that are not open yet. One that cannot be opened is remembered as such: it still has
    /// a name.
    fn open_files(&mut self, pid: u32) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Ok(directory) = process.directory() else { return };
        let mut open = self.objects.values().filter(|object| object.is_open()).count();
        let mut looked_at = std::collections::HashSet::new();
        for (mapping, file) in process.files() {
            if !looked_at.insert(&file.key) {
                continue;
            }
            if let Some(object) = self.objects.get_mut(&file.key)
                && object.is_open()
            {
                object.refresh();
                continue;
            }
            let room = open < self.limits.open_files;
            let opened = room.then(|| open_mapped(directory.as_fd(), mapping, file).ok()).flatten();
            open += usize::from(opened.is_some());
            self.objects.insert(file.key.clone(), Object::new(opened, Arc::clone(&file.key.name)));
        }
    }

    fn close_unused_files(&mut self) {
        let used: std::collections::HashSet<_> =
            self.processes.values().flat_map(Process::files).map(|(_, file)| &file.key).collect();
        self.objects.retain(|key, _| used.contains(key));
    }

    /// Keeps within the limits.
    fn shrink(&mut self) {
        let cached: usize = self.objects.values().map(Object::resolved_addresses).sum();
        if cached > self.limits.cached_addresses {
            self.objects.values_mut().for_each(Object::forget_resolved);
        }
        let mut bytes: u64 = self.objects.values().map(Object::image_bytes).sum();
        if bytes <= self.limits.image_bytes {
            return;
        }
        let mut copied: Vec<_> =
            self.objects.values_mut().filter(|object| object.image_bytes() > 0).collect();
        copied.sort_unstable_by_key(|object| object.last_used);
        // One that alone exceeds the limit would otherwise be copied for every stack.
        copied.pop();
        for object in copied {
            if bytes <= self.limits.image_bytes {
                break;
            }
            bytes -= object.image_bytes();
            object.drop_image();
        }
    }
}

/// An outermost frame that can only be the begin of a thread is called so: in a stripped C library it has no name.
fn name_entry(frames: &mut [NativeFrame]) {
    if let Some(outermost) = frames.last_mut()
        && outermost.thread_entry
        && outermost.missing.is_some()
    {
        outermost.name = "[thread start]".into();
        outermost.missing = None;
    }
}
