//! Several files read as one capture: their tables one after the other, their batches side by side.
//!
//! Nothing is copied but tables: batches stay where they are and are renumbered when they are decoded (`ids`). Each file
//! keeps its sources, and with them its clocks; which of them can be compared is said by [`Relation`]s.

use std::collections::BTreeMap;

use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{KeySpace, RecordKind};
use stallscope_schemas::units::{ProcessId, SourceId, StackId, StringId, TimeNs};

use super::ReadAt;
use super::ids::{Ids, Numbers};
use super::reader::{Capture, Hole};
use super::relation::Relation;
use super::segment::source_of;
use super::tables::{Frame, Interner, MAX_STACKS, Tables};
use super::writer::plausible;

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Adds one file's tables to those of all.
fn add(all: &mut Tables, interner: &mut Interner, of: &Tables, lost: &mut u64) -> Ids {
    let mut strings = Vec::with_capacity(of.string_count());
    for at in 0..of.string_count() {
        let place = interner.string(all, of.string(StringId(number(at))));
        *lost = lost.saturating_add(u64::from(place.is_none()));
        strings.push(place.map_or(u32::MAX, |id| id.0));
    }
    let string = |id: StringId| StringId(strings.get(id.index()).copied().unwrap_or(u32::MAX));
    // The empty stack is that of all.
    let base = all.stacks.len().saturating_sub(1);
    let room = MAX_STACKS.saturating_sub(all.stacks.len());
    let parent = |id: StackId| match id.0 {
        0 => StackId(0),
        other => StackId(other.saturating_add(number(base))),
    };
    let frames = of.stacks.iter().skip(1).take(room);
    all.stacks.extend(frames.map(|frame| Frame { parent: parent(frame.parent), name: string(frame.name) }));
    let stacks = Numbers { base: base as u64, count: (all.stacks.len().saturating_sub(base)) as u64 };
    *lost = lost.saturating_add((of.stacks.len() as u64).saturating_sub(stacks.count));
    let numbers = |base: usize, count: usize| Numbers { base: base as u64, count: count as u64 };
    let (sources, processes) = (all.sources.len(), all.processes.len());
    let ids = Ids {
        stacks,
        threads: numbers(all.threads.len(), of.threads.len()),
        processes: numbers(processes, of.processes.len()),
        strings,
    };
    let source = |id: SourceId| SourceId(id.0.saturating_add(number(sources)));
    let process = |id: ProcessId| ProcessId(id.0.saturating_add(number(processes)));
    all.sources.extend(of.sources.iter().cloned());
    for clock in &of.clocks {
        all.clocks.push(super::Clock { source: source(clock.source), ..clock.clone() });
    }
    for row in &of.processes {
        all.processes.push(super::Process { source: source(row.source), ..row.clone() });
    }
    for row in &of.threads {
        all.threads.push(super::Thread { process: process(row.process), ..row.clone() });
    }
    for row in &of.devices {
        let processes = row.processes.iter().map(|&id| process(id)).collect();
        all.devices.push(super::Device { source: source(row.source), processes, ..row.clone() });
    }
    for label in &of.labels {
        // What two hosts say alike is said once.
        if !all.labels.contains(label) {
            all.labels.push(label.clone());
        }
    }
    ids
}

impl<S: ReadAt> Capture<S> {
    /// Reads several captures as one. Devices, processes and threads of each come after those of the one before; nothing
    /// is known of how their clocks relate.
    #[must_use]
    pub fn join(captures: Vec<Self>) -> Option<Self> {
        let mut captures = captures.into_iter();
        let mut all = captures.next()?;
        if captures.len() == 0 {
            return Some(all);
        }
        let own = std::mem::take(&mut all.tables);
        let (mut interner, mut lost) = (Interner::default(), 0u64);
        let ids = add(&mut all.tables, &mut interner, &own, &mut lost);
        all.parts.iter_mut().for_each(|part| part.ids = Some(ids.clone()));
        drop(own);
        for capture in captures {
            let devices =
                Numbers { base: all.tables.devices.len() as u64, count: capture.tables.devices.len() as u64 };
            let ids = add(&mut all.tables, &mut interner, &capture.tables, &mut lost);
            let order = all.batches.len();
            for mut batch in capture.batches.iter().cloned() {
                batch.order = batch.order.saturating_add(order);
                batch.part = all.parts.len();
                let keys = match batch.kind.map(RecordKind::key_space) {
                    Some(KeySpace::Thread) => ids.threads,
                    Some(KeySpace::Process) => ids.processes,
                    Some(KeySpace::Device) | None => devices,
                };
                batch.key = u32::try_from(keys.of(batch.key.into())).unwrap_or(u32::MAX);
                all.batches.push(batch);
            }
            let holes = capture
                .holes
                .iter()
                .map(|hole| Hole { after_batches: hole.after_batches.saturating_add(order) });
            all.holes.extend(holes);
            for (counter, count) in capture.losses() {
                all.add_loss(counter, count);
            }
            all.segments = all.segments.saturating_add(capture.segments);
            all.header_bytes = all.header_bytes.saturating_add(capture.header_bytes);
            all.file_len = all.file_len.saturating_add(capture.file_len);
            if all.host != capture.host {
                // Of several hosts none is that of the capture; each device says its own.
                all.host.clear();
            }
            if all.boot_id != capture.boot_id {
                all.boot_id.clear();
            }
            let sources =
                capture.parts.into_iter().map(|part| super::reader::Part { ids: Some(ids.clone()), ..part });
            all.parts.extend(sources);
        }
        if lost > 0 {
            all.count_loss(LossCounter::TableFull, lost);
        }
        all.index();
        Some(all)
    }

    /// Says how clocks of sources relate to each other. A clock is put right by what its moments have in common; what is
    /// left remains in the relation.
    pub fn relate(&mut self, mut relations: Vec<Relation>) {
        let mut shifts: BTreeMap<SourceId, i64> = BTreeMap::new();
        for relation in &mut relations {
            let mut all: Vec<i64> = relation.moments.iter().map(|moment| moment.shift_ns).collect();
            all.sort_unstable();
            let Some(&usual) = all.get(all.len() / 2).filter(|&&shift| plausible(TimeNs(shift))) else {
                continue;
            };
            for moment in &mut relation.moments {
                moment.at = TimeNs(moment.at.0.saturating_add(usual));
                moment.shift_ns = moment.shift_ns.saturating_sub(usual);
            }
            shifts.insert(relation.source, usual);
        }
        for batch in &mut self.batches {
            let source = batch.kind.and_then(|kind| source_of(kind.key_space(), batch.key, &self.tables));
            let Some(&shift) = source.and_then(|source| shifts.get(&source)) else { continue };
            batch.clock_offset_ns = batch.clock_offset_ns.saturating_add(shift);
            batch.min = TimeNs(batch.min.0.saturating_add(shift));
            batch.max = TimeNs(batch.max.0.saturating_add(shift));
        }
        for (&source, &shift) in &shifts {
            let known = self.tables.clock(source).cloned().unwrap_or_default();
            let offset_ns = known.offset_ns.saturating_add(shift);
            let note = "put level with the other captures by what their collectives allow".to_owned();
            self.tables.clocks.push(super::Clock { source, offset_ns, note, ..known });
        }
        self.relations = relations;
        self.index();
    }

    /// How a source's clock relates to others'; `None` where it is compared with no other.
    #[must_use]
    pub fn relation(&self, source: SourceId) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.source == source)
    }

    /// Adds a sentence that is to be known of the capture.
    pub fn add_note(&mut self, text: String) {
        self.tables.labels.push(("note".to_owned(), text));
    }

    /// Gives the processes of a job another name: hosts may call one job by different names.
    pub fn rename_job(&mut self, from: &str, to: &str) {
        for process in self.tables.processes.iter_mut().filter(|process| process.job == from) {
            to.clone_into(&mut process.job);
        }
    }
}
