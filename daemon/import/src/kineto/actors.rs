//! Processes and threads of one file.
//!
//! They are added to the capture when the first row of theirs comes: traces name dozens of processes (one a GPU) that have
//! none. What the metadata says of them is kept and applied at the end, because it may come before or after.

use std::io::Write;

use hashbrown::HashMap;
use stallscope_core::capture::{CaptureWriter, Process, Thread};
use stallscope_schemas::units::{ProcessId, SourceId, ThreadId};

use super::event::Ident;
use super::ranges::Ranges;
use super::text::decode;

/// Threads of one file. More than any trace has; each costs some hundred bytes.
const MAX_THREADS: usize = 1 << 16;

/// Processes of one file.
const MAX_PROCESSES: usize = 1 << 14;

/// Names from metadata, each of which takes at most [`MAX_NAME_BYTES`].
const MAX_NAMES: usize = 1 << 16;

/// Longest name of a process or thread.
const MAX_NAME_BYTES: usize = 256;

/// Tids and pids that are text are numbered downward from here: no kernel gives out such numbers.
const FIRST_MADE_UP: i64 = -(1 << 40);

/// Process and thread by the numbers of the trace.
pub(super) type Place = (i64, i64);

/// A host thread.
#[derive(Debug)]
pub(super) struct HostThread {
    /// Its id in the capture.
    pub(super) id: ThreadId,
    process: usize,
    place: Place,
    /// Operators that it ran.
    operators: u64,
    /// When it was inside a collective library.
    pub(super) collectives: Ranges,
}

#[derive(Debug)]
struct HostProcess {
    pid: i64,
    id: ProcessId,
    launched: bool,
}

/// The thread that ran most operators.
#[derive(Clone, Copy, Debug)]
struct Busiest {
    operators: u64,
    place: Place,
}

impl Busiest {
    fn update(best: &mut Option<Self>, operators: u64, place: Place) {
        if best.is_none_or(|best| operators > best.operators) {
            *best = Some(Self { operators, place });
        }
    }
}

/// Processes and threads.
#[derive(Debug)]
pub(super) struct Actors {
    source: SourceId,
    made_up: HashMap<Box<[u8]>, i64>,
    by_pid: HashMap<i64, usize>,
    processes: Vec<HostProcess>,
    by_place: HashMap<Place, usize>,
    threads: Vec<HostThread>,
    /// The thread of the event before: nearly always that of the next one too.
    last: Option<(Place, usize)>,
    busiest: Option<Busiest>,
    process_names: HashMap<i64, Box<str>>,
    thread_names: HashMap<Place, Box<str>>,
}

impl Actors {
    pub(super) fn new(source: SourceId) -> Self {
        Self {
            source,
            made_up: HashMap::new(),
            by_pid: HashMap::new(),
            processes: Vec::new(),
            by_place: HashMap::new(),
            threads: Vec::new(),
            last: None,
            busiest: None,
            process_names: HashMap::new(),
            thread_names: HashMap::new(),
        }
    }

    /// The number of a pid or tid; text gets one of its own. `None` where too many were made up.
    pub(super) fn number(&mut self, ident: Ident<'_>) -> Option<i64> {
        let text = match ident {
            Ident::Number(number) => return Some(number),
            Ident::Text(text) => text.get(..MAX_NAME_BYTES).unwrap_or(text),
        };
        if let Some(&number) = self.made_up.get(text) {
            return Some(number);
        }
        let taken = self.made_up.len();
        let number = (taken < MAX_NAMES).then(|| i64::try_from(taken).ok())?.map(|n| FIRST_MADE_UP - n)?;
        self.made_up.insert(text.into(), number);
        Some(number)
    }

    /// The thread at a place. `None` where the file has too many.
    pub(super) fn thread<W: Write>(
        &mut self,
        writer: &mut CaptureWriter<W>,
        place: Place,
    ) -> Option<&mut HostThread> {
        let known = self.last.filter(|(last, _)| *last == place).map(|(_, at)| at);
        let at = match known.or_else(|| self.by_place.get(&place).copied()) {
            Some(at) => at,
            None => self.add_thread(writer, place)?,
        };
        self.last = Some((place, at));
        self.threads.get_mut(at)
    }

    fn add_thread<W: Write>(&mut self, writer: &mut CaptureWriter<W>, place: Place) -> Option<usize> {
        if self.threads.len() >= MAX_THREADS {
            return None;
        }
        let process = self.process(writer, place.0)?;
        let process_id = self.processes.get(process)?.id;
        let id = writer.add_thread(Thread { process: process_id, tid: place.1, name: String::new() });
        self.threads.push(HostThread { id, process, place, operators: 0, collectives: Ranges::default() });
        self.by_place.insert(place, self.threads.len() - 1);
        Some(self.threads.len() - 1)
    }

    fn process<W: Write>(&mut self, writer: &mut CaptureWriter<W>, pid: i64) -> Option<usize> {
        if let Some(&at) = self.by_pid.get(&pid) {
            return Some(at);
        }
        if self.processes.len() >= MAX_PROCESSES {
            return None;
        }
        let id = writer.add_process(Process { source: self.source, pid, ..Process::default() });
        self.processes.push(HostProcess { pid, id, launched: false });
        self.by_pid.insert(pid, self.processes.len() - 1);
        Some(self.processes.len() - 1)
    }

    /// Notes that the thread of the current event ran an operator.
    pub(super) fn ran_operator(&mut self) {
        let Some(thread) = self.last.and_then(|(_, at)| self.threads.get_mut(at)) else { return };
        thread.operators += 1;
        let (operators, place) = (thread.operators, thread.place);
        Busiest::update(&mut self.busiest, operators, place);
    }

    /// Notes that the process of the current event put work on a device.
    pub(super) fn launched(&mut self) {
        let thread = self.last.and_then(|(_, at)| self.threads.get(at));
        if let Some(process) = thread.and_then(|thread| self.processes.get_mut(thread.process)) {
            process.launched = true;
        }
    }

    /// Where a Python function belongs that the trace puts at `place`.
    ///
    /// PyTorch writes functions of threads whose tid its tracer never learnt as tid 0, and on some versions their pid as 0
    /// too. They are threads that ran no operator (tqdm's monitor, say), so they stay apart from those that did; only
    /// their process can be guessed.
    pub(super) fn python_thread(&self, place: Place) -> Place {
        match (place, self.busiest) {
            ((0, 0), Some(busiest)) => (busiest.place.0, 0),
            _ => place,
        }
    }

    /// Keeps the name of a process. `false` where there are too many.
    pub(super) fn name_process(&mut self, pid: i64, raw: &[u8]) -> bool {
        keep_name(&mut self.process_names, pid, raw)
    }

    /// Keeps the name of a thread. `false` where there are too many.
    pub(super) fn name_thread(&mut self, place: Place, raw: &[u8]) -> bool {
        keep_name(&mut self.thread_names, place, raw)
    }

    /// The name that metadata has given a process so far.
    pub(super) fn process_name(&self, pid: i64) -> Option<&str> {
        self.process_names.get(&pid).map(AsRef::as_ref)
    }

    /// The name that metadata has given a thread so far.
    pub(super) fn thread_name(&self, place: Place) -> Option<&str> {
        self.thread_names.get(&place).map(AsRef::as_ref)
    }

    /// Adds a process where the trace has none: a trace of devices alone still has a rank, and ranks are of processes.
    pub(super) fn ensure_process<W: Write>(&mut self, writer: &mut CaptureWriter<W>) {
        if self.processes.is_empty() {
            self.process(writer, 0);
        }
    }

    /// Whether a process of this pid has rows.
    pub(super) fn has_pid(&self, pid: i64) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Tells the capture what is known of each process and thread, and yields the processes that drove devices: those
    /// that launched, or all where no launch was recorded.
    pub(super) fn finish<W: Write>(
        &self,
        writer: &mut CaptureWriter<W>,
        rank: Option<u32>,
        world_size: Option<u32>,
        host: &str,
    ) -> Vec<ProcessId> {
        let texts: HashMap<i64, &[u8]> =
            self.made_up.iter().map(|(text, &number)| (number, &**text)).collect();
        let text_of = |number: i64| texts.get(&number).map(|raw| decode(raw).into_owned());
        for process in &self.processes {
            let name = self.process_name(process.pid).map(str::to_owned).or_else(|| text_of(process.pid));
            writer.update_process(process.id, |entry| {
                entry.name = name.unwrap_or_default();
                entry.rank = rank;
                entry.world_size = world_size;
                host.clone_into(&mut entry.host);
            });
        }
        for thread in &self.threads {
            let name = self.thread_name(thread.place).map(str::to_owned).or_else(|| text_of(thread.place.1));
            if let Some(name) = name {
                writer.update_thread(thread.id, |entry| entry.name = name);
            }
        }
        let ids = |launched: bool| -> Vec<ProcessId> {
            self.processes.iter().filter(|p| p.launched || !launched).map(|p| p.id).collect()
        };
        let launchers = ids(true);
        if launchers.is_empty() { ids(false) } else { launchers }
    }
}

fn keep_name<K: Eq + std::hash::Hash>(names: &mut HashMap<K, Box<str>>, key: K, raw: &[u8]) -> bool {
    if names.len() >= MAX_NAMES && !names.contains_key(&key) {
        return false;
    }
    let text = decode(raw.get(..MAX_NAME_BYTES).unwrap_or(raw));
    names.insert(key, text.into());
    true
}

#[cfg(test)]
mod tests {
    use stallscope_core::capture::{CaptureWriter, WriterOptions};
    use stallscope_schemas::units::SourceId;

    use super::{Actors, Ident};

    #[test]
    fn python_functions_of_nobody_stay_apart_in_the_process_with_most_operators() {
        let mut writer =
            CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("a Vec takes everything");
        let mut actors = Actors::new(SourceId(0));
        assert_eq!(actors.python_thread((0, 0)), (0, 0));
        for (place, operators) in [((950, 951), 2), ((950, 950), 3), ((7, 8), 1)] {
            assert!(actors.thread(&mut writer, place).is_some());
            (0..operators).for_each(|_| actors.ran_operator());
        }
        assert_eq!(actors.python_thread((0, 0)), (950, 0));
        assert_eq!(actors.python_thread((7, 0)), (7, 0));
        assert_eq!(actors.python_thread((950, 951)), (950, 951));
    }

    #[test]
    fn text_gets_a_number_of_its_own_and_becomes_the_name() {
        let mut writer =
            CaptureWriter::new(Vec::new(), WriterOptions::default()).expect("a Vec takes everything");
        let mut actors = Actors::new(SourceId(0));
        let tid = actors.number(Ident::Text(b"worker")).expect("room");
        assert_eq!(actors.number(Ident::Text(b"worker")), Some(tid));
        assert_ne!(actors.number(Ident::Text(b"other")), Some(tid));
        assert!(actors.thread(&mut writer, (1, tid)).is_some());
        actors.finish(&mut writer, Some(3), Some(8), "node1");
        let tables = writer.tables();
        assert_eq!(tables.threads()[0].name, "worker");
        assert_eq!((tables.processes()[0].rank, tables.processes()[0].host.as_str()), (Some(3), "node1"));
    }
}
