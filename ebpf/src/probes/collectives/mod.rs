//! Collective calls: which functions of which libraries (`table.tsv`), found in whatever the job's processes have mapped.
//!
//! - `table`: the rows. `elf`: which of them a file holds. `sites`: where in a function to put a probe.
//! - `processes`: what a process has mapped. `decode`, `handles`: what a record means.
//!
//! What always holds:
//! - A return probe changes a return address while the function runs. An exception that passes looks for that address and
//!   ends the program. So return probes are for C functions only; of C++ functions the return instructions are probed.
//! - Probes are on files and not on processes: what a job forks or starts later is probed from its first instruction on,
//!   and a thread that is not followed leaves the program at its first test. The price is that other processes which use
//!   the same file pay for the trap (0.7 µs a call) as well.
//! - Functions that are called in a loop until something has happened (`MPI_Test`, `MPI_Iprobe`) are not in the table:
//!   a probe on them costs many times what they do.

mod decode;
mod elf;
mod handles;
pub(crate) mod processes;
mod sites;
mod table;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;

use libbpf_rs::{Link, MapCore, MapFlags, ProgramMut, UprobeMultiOpts, UprobeOpts};
use stallscope_schemas::record::CollectiveLibrary;

pub use decode::{Decoded, DecodedCall, Decoder, ProcessHandles};

use super::{Probe, ProbeId, Standing, basics};
use crate::kernel::Kernel;
use crate::skeleton::StallscopeSkel;
use elf::Image;
use processes::{Mapping, Version};
use table::{Binding, Table};

pub(crate) const PROBE: Probe = Probe {
    id: ProbeId::Collectives,
    sees: "calls of NCCL, RCCL, MPI, Gloo, c10d and oneCCL: when, how long, how much, with whom",
    programs: &["call_entry_multi", "call_exit_multi", "call_entry_each", "call_exit_each"],
    can_run,
    // Which files to probe depends on the processes: Collectives does it.
    attach: |_, _| Ok(Vec::new().into()),
};

/// The cookie says that a function's exits are probed where they are: COLLECTIVE_AT_RETURN of the kernel half.
const AT_RETURN: u64 = 1 << 32;

/// The exit is a jump to another function: COLLECTIVE_JUMP of the kernel half.
const JUMP: u64 = 1 << 33;

/// Where a number of the file begins in the cookie.
const FILE: u32 = 34;

/// Files that are remembered. A process that maps more of them makes them up.
const MAX_FILES: usize = 16_384;
/// Names of handles of one process: Open MPI has 79.
const MAX_HANDLES: usize = 4096;
/// Notes of one look: a hostile process has thousands of reasons.
const MAX_NOTES: usize = 256;

fn can_run(kernel: &Kernel) -> Standing {
    if std::env::consts::ARCH != "x86_64" {
        return Standing::Missing {
            reason: "collective calls are only probed on x86-64".to_owned(),
            remedy: "none yet".to_owned(),
        };
    }
    match basics(kernel) {
        Standing::Works if !multi(kernel) => Standing::Degraded {
            lost:
                "nothing of the calls; attaching takes about 0.1 s for each function, and needs CAP_SYS_ADMIN"
                    .to_owned(),
            remedy: "use kernel 6.6 or newer (uprobe.multi)".to_owned(),
        },
        standing => standing,
    }
}

/// Whether one link can take many sites.
fn multi(kernel: &Kernel) -> bool {
    kernel.at_least(6, 6)
}

/// Whether return probes are without danger. From 6.11 on they end with a system call of their own, which seccomp filters
/// such as Docker's refused until 6.14 let it pass: the process died. There all exits are probed where they are.
fn return_probes(kernel: &Kernel) -> bool {
    !kernel.at_least(6, 11) || kernel.at_least(6, 14)
}

/// Whether a program is of the way of attaching that this kernel is not used with.
pub(crate) fn is_other_way(kernel: &Kernel, program: &str) -> bool {
    match program {
        "call_entry_multi" | "call_exit_multi" => !multi(kernel),
        "call_entry_each" | "call_exit_each" => multi(kernel),
        _ => false,
    }
}

/// A library whose calls are recorded from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its path, as a process that maps it calls it.
    pub path: String,
    /// Functions that are probed.
    pub functions: usize,
    /// Functions among them whose entry the kernel has to execute out of line: about 10 µs a call instead of 0.7.
    pub slow: usize,
}

/// Something that is not seen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub path: String,
    /// What of it, and why.
    pub text: String,
}

/// What a look at the processes found that earlier ones did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rescan {
    /// Libraries that were found.
    pub attached: Vec<Attached>,
    /// What cannot be seen.
    pub notes: Vec<Note>,
    /// For [`Decoder::learn`].
    pub handles: Vec<ProcessHandles>,
}

/// What is known of a file.
struct Known {
    image: Image,
}

/// The probes on collective libraries of one recording.
pub(crate) struct Collectives {
    multi: bool,
    return_probes: bool,
    table: Option<Table>,
    files: HashMap<(String, u64), Known>,
    processes: HashMap<u32, Version>,
    links: Vec<Link>,
    /// What the links stand for, to make them anew.
    probed: Vec<(File, Plan)>,
    paused: bool,
    /// Where exceptions are caught: probed once there is a function that they may leave.
    catches: Vec<(File, Plan)>,
    exceptions: bool,
}

impl Collectives {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self {
            multi: multi(kernel),
            return_probes: return_probes(kernel),
            table: None,
            files: HashMap::new(),
            processes: HashMap::new(),
            links: Vec::new(),
            probed: Vec::new(),
            paused: false,
            catches: Vec::new(),
            exceptions: false,
        }
    }

    /// Looks at processes, and probes what they have mapped since the last look.
    pub(crate) fn rescan(
        &mut self,
        skeleton: &mut StallscopeSkel<'static>,
        pids: &[u32],
    ) -> Result<Rescan, libbpf_rs::Error> {
        if self.table.is_none() {
            let table = Table::new();
            for (row, function) in (0u32..).zip(table.functions()) {
                skeleton.maps.call_rows.update(&row.to_ne_bytes(), &function.encode(), MapFlags::ANY)?;
            }
            self.table = Some(table);
        }
        let mut found = Rescan::default();
        let wanted: HashSet<u32> = pids.iter().copied().collect();
        self.processes.retain(|pid, _| wanted.contains(pid));
        for pid in wanted {
            let Some(version) = Version::of(pid) else { continue };
            if self.processes.get(&pid) == Some(&version) {
                continue;
            }
            // It may go on mapping while it is looked at: then its next version is another one.
            if self.look_at(skeleton, pid, &mut found) {
                self.processes.insert(pid, version);
            }
        }
        if self.exceptions {
            for (file, plan) in std::mem::take(&mut self.catches) {
                self.probe(skeleton, file, plan)?;
            }
        }
        found.notes.truncate(MAX_NOTES);
        Ok(found)
    }

    /// Attaches a plan, now or, while the probes are off, with the others.
    fn probe(
        &mut self,
        skeleton: &StallscopeSkel<'static>,
        file: File,
        plan: Plan,
    ) -> Result<(), libbpf_rs::Error> {
        if !self.paused {
            self.links.extend(plan.attach(skeleton, self.multi, &file)?);
        }
        self.probed.push((file, plan));
        Ok(())
    }

    /// Takes all probes off for a while.
    pub(crate) fn pause(&mut self) {
        // Entries last on, first off: an entry without an exit would be a call that was left.
        while self.links.pop().is_some() {}
        self.paused = true;
    }

    /// Puts them on again; where that fails, none is on.
    pub(crate) fn resume(&mut self, skeleton: &mut StallscopeSkel<'static>) -> Result<(), libbpf_rs::Error> {
        let mut links = Vec::new();
        for (file, plan) in &self.probed {
            links.extend(plan.attach(skeleton, self.multi, file)?);
        }
        self.links = links;
        self.paused = false;
        Ok(())
    }

    /// Takes all probes off.
    pub(crate) fn detach(&mut self) {
        self.links.clear();
        self.probed.clear();
        self.files.clear();
        self.processes.clear();
        self.catches.clear();
    }

    fn look_at(&mut self, skeleton: &mut StallscopeSkel<'static>, pid: u32, found: &mut Rescan) -> bool {
        // A process that is gone, or that nobody may look at: the latter the recorder says by itself.
        let Ok(mappings) = processes::mappings(pid) else { return false };
        let mut handles = ProcessHandles { pid, names: Vec::new() };
        let (mut symbols, mut has_all) = (false, true);
        for mapping in &mappings {
            if !self.files.contains_key(&mapping.file) {
                if self.files.len() >= MAX_FILES {
                    continue;
                }
                // Of a process that has ended meanwhile: others that have the file will be asked for it.
                let Some(known) = self.look_into(skeleton, pid, mapping, found) else {
                    has_all = false;
                    continue;
                };
                self.files.insert(mapping.file.clone(), known);
            }
            let Some(known) = self.files.get(&mapping.file) else { continue };
            symbols |= known.image.symbols;
            if known.image.data.is_empty() {
                continue;
            }
            if let Some(bias) = known.image.bias(mapping.start, mapping.offset) {
                let there =
                    known.image.data.iter().map(|(address, name)| (address.wrapping_add(bias), *name));
                handles.names.extend(there.take(MAX_HANDLES.saturating_sub(handles.names.len())));
            }
        }
        if !symbols
            && has_all
            && let Some(program) = mappings.first()
        {
            let text = format!("process {pid} has no symbols in any of its files: no call of it can be seen");
            found.notes.push(Note { path: program.path.clone(), text });
        }
        // Of an earlier program of the process, or none: it is told all the same, so that old names are forgotten.
        found.handles.push(handles);
        true
    }

    /// Looks into a file, and probes what is in it; `None` where the process does not have it any more.
    fn look_into(
        &mut self,
        skeleton: &mut StallscopeSkel<'static>,
        pid: u32,
        mapping: &Mapping,
        found: &mut Rescan,
    ) -> Option<Known> {
        let mut note = |text: String| found.notes.push(Note { path: mapping.path.clone(), text });
        let Some(table) = &self.table else { return Some(Known { image: Image::default() }) };
        let opened = mapping.open(pid);
        if opened.is_err() {
            let still_has = |now: Vec<Mapping>| now.iter().any(|other| other.file == mapping.file);
            if !processes::mappings(pid).is_ok_and(still_has) {
                return None;
            }
        }
        let read = opened.map_err(elf::ElfError::from);
        let read = read.and_then(|file| Image::read(&file, table).map(|image| (file, image)));
        let (file, mut image) = match read {
            Ok(read) => read,
            Err(error) => {
                note(error.to_string());
                return Some(Known { image: Image::default() });
            }
        };
        if let Some(what) = image.left_out {
            note(what.to_owned());
        }
        let number = (self.files.len() as u64 + 1) << FILE;
        let mut plan = Plan::of(&image, &file, number, table, self.return_probes, &mapping.path, &mut note);
        self.exceptions |= !plan.exits.is_empty();
        if let Some(at) = plan.catch.take() {
            match file.try_clone() {
                Ok(file) => self.catches.push((file, Plan { entries: vec![at], ..Plan::default() })),
                Err(error) => note(format!("exceptions are not seen: {error}")),
            }
        }
        if !plan.is_empty() {
            let (functions, slow) = (plan.functions, plan.slow);
            match self.probe(skeleton, file, plan) {
                Ok(()) => {
                    found.attached.push(Attached { path: mapping.path.clone(), functions, slow });
                }
                Err(error) => note(format!("cannot be probed: {error}")),
            }
        }
        // What is probed need not be remembered; where handles lie is needed for every process.
        image.functions = Vec::new();
        Some(Known { image })
    }
}

/// A file's code.
struct Mapped<'a> {
    image: &'a Image,
    file: &'a File,
}

impl sites::Code for Mapped<'_> {
    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        self.image.code(self.file, address, length)
    }

    fn length(&self, address: u64) -> Option<u64> {
        self.image.length(self.file, address)
    }
}

/// The probes of one file: offsets and cookies.
#[derive(Debug, Default)]
struct Plan {
    entries: Vec<(usize, u64)>,
    /// Return probes, at the entries of C functions.
    returns: Vec<(usize, u64)>,
    /// The exits of C++ functions, or of all.
    exits: Vec<(usize, u64)>,
    /// Where exceptions are caught.
    catch: Option<(usize, u64)>,
    functions: usize,
    slow: usize,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn of(
        image: &Image,
        file: &File,
        number: u64,
        table: &Table,
        return_probes: bool,
        path: &str,
        note: &mut impl FnMut(String),
    ) -> Self {
        let mut plan = Self::default();
        // RCCL has the names of NCCL.
        let name = path.rsplit('/').next().unwrap_or(path);
        let rccl = if name.contains("rccl") { CollectiveLibrary::Rccl.id() } else { 0 };
        for found in &image.functions {
            let Some(function) = table.function(found.row) else { continue };
            let Some(entry) = sites::entry(&image.code(file, found.address, sites::ENTRY_BYTES)) else {
                note(format!("{}: its first instruction cannot be decoded", function.name));
                continue;
            };
            let offset = |address: u64| usize::try_from(image.file_offset(address)?).ok();
            let Some(at) = found.address.checked_add(entry.after).and_then(offset) else { continue };
            let cookie = u64::from(found.row) | u64::from(rccl) << 16 | number;
            if function.flags.catch {
                plan.catch = Some((at, cookie));
                continue;
            }
            if function.binding == Binding::Cpp || !return_probes {
                match sites::exits(found.address, found.size, &Mapped { image, file }) {
                    Ok(exits) => {
                        plan.exits.extend(exits.into_iter().filter_map(|exit| {
                            let jump = if exit.jump { JUMP } else { 0 };
                            Some((offset(exit.address)?, cookie | AT_RETURN | jump))
                        }));
                        plan.entries.push((at, cookie | AT_RETURN));
                    }
                    Err(sites::Unprobed::Never) => continue,
                    Err(why) => {
                        note(format!("{}: {why}", function.name));
                        continue;
                    }
                }
            } else {
                plan.returns.push((at, cookie));
                plan.entries.push((at, cookie));
            }
            plan.functions += 1;
            plan.slow += usize::from(!entry.cheap);
        }
        // A jump into another function of the table: its begin, or an exit that two share, is probed once.
        plan.exits.sort_unstable();
        plan.exits.dedup_by_key(|(at, _)| *at);
        plan
    }

    fn attach(
        &self,
        skeleton: &StallscopeSkel<'static>,
        multi: bool,
        file: &File,
    ) -> Result<Vec<Link>, libbpf_rs::Error> {
        // This names the file that was looked into, whatever has become of its path.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let programs = &skeleton.progs;
        let (entry, exit) = if multi {
            (&programs.call_entry_multi, &programs.call_exit_multi)
        } else {
            (&programs.call_entry_each, &programs.call_exit_each)
        };
        let mut links = Vec::new();
        // Exits first: an entry whose exit is not probed yet would stay open.
        let groups = [(exit, &self.exits, false), (exit, &self.returns, true), (entry, &self.entries, false)];
        for (program, places, retprobe) in groups {
            if places.is_empty() {
                continue;
            }
            if multi {
                links.push(attach_multi(program, &path, places, retprobe)?);
            } else {
                for &(at, cookie) in places {
                    let options = UprobeOpts { cookie, retprobe, ..UprobeOpts::default() };
                    links.push(program.attach_uprobe_with_opts(-1, &path, at, options)?);
                }
            }
        }
        Ok(links)
    }
}

fn attach_multi(
    program: &ProgramMut<'_>,
    path: &str,
    places: &[(usize, u64)],
    retprobe: bool,
) -> Result<Link, libbpf_rs::Error> {
    let options = UprobeMultiOpts {
        offsets: places.iter().map(|(at, _)| *at).collect(),
        cookies: places.iter().map(|(_, cookie)| *cookie).collect(),
        retprobe,
        ..UprobeMultiOpts::default()
    };
    program.attach_uprobe_multi_with_opts(-1, path, "", options)
}
