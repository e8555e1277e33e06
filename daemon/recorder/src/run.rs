//! One recording from beginning to end.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stallscope_core::capture::{CaptureWriter, Clock, Source, WriteError, WriterOptions};
use stallscope_counters::Options as CounterOptions;
use stallscope_ebpf::{Event, Kernel, ProbeId, Session, SessionError, Settings, Standing};
use stallscope_jobs::{Door, Host, Life, ProcessId, Selection, became_rank};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::wire::OUTSIDE;

use crate::assemble::{Assembler, CallsSeen, NewRank, RankSeat, Seats};
use crate::believable::believable;
use crate::clock::{monotonic_ns, unix_offset};
use crate::counters::{Counters, cgroup};
use crate::gpu::{GpuProcess, Gpus};
use crate::interpreters::Interpreters;
use crate::naming::Names;
use crate::newborn::{descendants, parent};
use crate::pace::{Pace, Turn};
use crate::queue::{Batch, Receiver, Sender, queue};

/// How often the rings are looked at while records come: they hold several times what half a million records a second
/// fill in that time, and the kernel half wakes us when one is a quarter full.
const LOOK: Duration = Duration::from_millis(50);
/// The same while nothing comes, from threads or from agents: ten wake-ups a second would be 0.1 % of a core.
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// The same while agents collect, which wait for us when they have told much.
const LOOK_AGENTS: Duration = Duration::from_millis(100);
/// What a crash can cost.
const FLUSH: Duration = Duration::from_secs(1);
/// A process that takes longer than this to be looked at hangs, and is not: meanwhile the rings fill up.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// Records between reader and writer: about 64 MiB.
const QUEUE: usize = 500_000;

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The ranks.
    pub selection: Selection,
    /// Probes and their settings.
    pub settings: Settings,
    /// For how long; until told to stop where there is none.
    pub duration: Option<Duration>,
    /// Labels of the capture.
    pub labels: Vec<(String, String)>,
    /// Program and version that records.
    pub writer: String,
    /// The agent that is put into processes which use CUDA; none where they are to be left alone.
    pub agent: Option<&'static [u8]>,
}

/// How far a recording is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the probes were attached.
    pub elapsed: Duration,
    /// Records read.
    pub records: u64,
    /// Threads followed now.
    pub threads: u64,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time was over.
    Time,
    /// The caller said so.
    Asked,
    /// Every thread of the job had ended.
    JobEnded,
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Why it ended.
    pub ended: Ended,
    /// From attaching to detaching.
    pub elapsed: Duration,
    /// From the call to the moment when events flow.
    pub attach: Duration,
    /// How long taking the probes off took.
    pub detach: Duration,
    /// Records read from the rings.
    pub records: u64,
    /// Threads that were followed.
    pub threads: u64,
    /// What was lost, by counter.
    pub losses: BTreeMap<LossCounter, u64>,
    /// Probes that did not run or saw less.
    pub standings: Vec<(ProbeId, Standing)>,
    /// Processes that use CUDA, and what became of their agents.
    pub gpus: Vec<GpuProcess>,
    /// What the user should know: one sentence each.
    pub notes: Vec<String>,
}

/// Why nothing, or not everything, was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The probes cannot run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The output refused; what was written until then is a whole capture.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The job ended before the probes were attached.
    #[error("the job ended before it could be attached to (process {pid})")]
    Gone {
        /// One of its processes.
        pid: u32,
    },
    /// A pid was given to another process while attaching.
    #[error("pid {pid} was given to another process while attaching; nothing was recorded")]
    Reused {
        /// The pid.
        pid: u32,
    },
    /// The writing thread died: a defect.
    #[error("the writer stopped by a defect of stallscope; what it wrote until then is a whole capture")]
    Writer,
}

/// Records a job until the time is over, it ends, `stop` is set or the output refuses.
///
/// # Errors
/// [`RecordError`]. The probes are off in every case, and the job runs on.
pub fn record<W: Write + Send>(
    plan: &Plan,
    host: &Host,
    output: W,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, RecordError> {
    let called = Instant::now();
    let session = Session::load(&Kernel::detect(), plan.settings.clone())?;
    let failed = AtomicBool::new(false);
    let (sender, receiver) = queue(QUEUE);
    let begin_ns = monotonic_ns();
    std::thread::scope(|scope| {
        let failed = &failed;
        let writer = scope.spawn(move || {
            let done = write(plan, begin_ns, output, &receiver);
            failed.store(done.is_err(), Ordering::Relaxed);
            done
        });
        let read = read(plan, host, session, called, &sender, stop, failed, progress);
        let closing = read.as_ref().map(|(summary, _)| summary.clone()).ok();
        sender.close(closing);
        let written = writer.join().map_err(|_| RecordError::Writer)?;
        let (mut summary, session) = read?;
        summary.losses = written?;
        drop(session);
        Ok(summary)
    })
}

/// The writer's thread: names what is read and encodes it. Returns all losses.
fn write<W: Write>(
    plan: &Plan,
    begin_ns: i64,
    output: W,
    receiver: &Receiver,
) -> Result<BTreeMap<LossCounter, u64>, WriteError> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let host = read("/proc/sys/kernel/hostname");
    let boot_id = read("/proc/sys/kernel/random/boot_id");
    let options = WriterOptions { writer: plan.writer.clone(), host: host.clone(), boot_id };
    let mut capture = CaptureWriter::new(output, options)?;
    let source = capture.add_source(Source { path: format!("host {host}"), format: "recording".to_owned() });
    let (offset_ns, error_ns) = unix_offset();
    let note = "CLOCK_MONOTONIC to CLOCK_REALTIME, read at the beginning".to_owned();
    capture.set_clock(Clock { source, offset_ns, error_ns, note });
    for (key, value) in &plan.labels {
        capture.add_label(key, value);
    }
    let seats = Seats { source, host, ranks: seats(&plan.selection), begin_ns: begin_ns.unsigned_abs() };
    let mut names = Names::new();
    for seat in &seats.ranks {
        names.world(seat.pid, seat.rank, seat.world_size);
    }
    let mut assembler = Assembler::new(capture, names, seats);
    let mut flushed = Instant::now();
    let mut begun = false;
    while let Some(batch) = receiver.receive(FLUSH) {
        begun |= !batch.events.is_empty() || !batch.told.is_empty();
        batch.handles.into_iter().for_each(|handles| assembler.naming().learn(handles));
        for new in batch.ranks {
            assembler.naming().world(new.pid, Some(new.rank), new.world_size);
            assembler.rank(new);
        }
        batch.calls_seen.into_iter().for_each(|change| assembler.calls_seen(change));
        assembler.count(LossCounter::QueueFull, batch.left_out_plain);
        assembler.batch(batch.events, &batch.left_out, batch.malformed)?;
        batch.told.into_iter().try_for_each(|told| assembler.told(told))?;
        batch.counters.iter().try_for_each(|sample| assembler.counters(sample))?;
        if begun && flushed.elapsed() >= FLUSH {
            assembler.flush()?;
            flushed = Instant::now();
        }
    }
    // Without a last word the recording never began: then nothing is written either.
    let Some(summary) = receiver.closing() else { return Ok(BTreeMap::new()) };
    {
        for (loss, count) in &summary.losses {
            assembler.count(*loss, *count);
        }
        let capture = assembler.writer();
        for (probe, standing) in &summary.standings {
            if let Some(text) = standing_text(standing) {
                capture.add_label(&format!("probe.{probe}"), &text);
            }
        }
        for note in &summary.notes {
            capture.add_label("note", note);
        }
        for gpu in &summary.gpus {
            if let Some(why) = &gpu.refused {
                capture.add_label("note", &format!("GPU work of process {} was not seen: {why}", gpu.pid));
            }
        }
    }
    Ok(assembler.finish()?.1)
}

fn standing_text(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Works => None,
        Standing::Degraded { lost, .. } => Some(format!("degraded: {lost}")),
        Standing::Missing { reason, .. } => Some(format!("missing: {reason}")),
    }
}

fn seats(selection: &Selection) -> Vec<RankSeat> {
    let of_job = |job: &stallscope_jobs::Job| {
        let name = job.name.clone();
        job.ranks
            .iter()
            .map(|rank| RankSeat {
                pid: rank.process.pid,
                rank: rank.rank,
                world_size: rank.world_size,
                helpers: rank.helpers.iter().map(|p| p.pid).collect(),
                job: name.clone(),
                name: rank.comm.clone(),
            })
            .collect::<Vec<_>>()
    };
    selection.jobs.iter().flat_map(of_job).collect()
}

/// What the reader keeps of the threads that it sees come and go.
#[derive(Debug, Default)]
struct Seen {
    records: u64,
    threads: u64,
    alive: u64,
    pids: HashMap<u32, u32>,
    /// Tasks that began another program. Their introduction may come a look later, out of another CPU's ring.
    execs: Vec<u32>,
    late_execs: Vec<u32>,
    /// Processes that did, for those who look now and then.
    changed: Vec<u32>,
}

impl Seen {
    /// The processes that have threads.
    fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.pids.values().copied().collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Processes that began another program since last asked.
    fn begun(&mut self) -> Vec<u32> {
        let mut begun = Vec::new();
        let late = std::mem::take(&mut self.late_execs);
        begun.extend(late.iter().filter_map(|task| self.pids.get(task)));
        for task in std::mem::take(&mut self.execs) {
            match self.pids.get(&task) {
                Some(&pid) => begun.push(pid),
                None => self.late_execs.push(task),
            }
        }
        self.changed.extend(&begun);
        begun
    }

    fn event(&mut self, event: &Event) {
        self.records += 1;
        match event {
            Event::Task(task) if task.head.task & OUTSIDE == 0 => {
                self.threads += 1;
                self.alive += 1;
                self.pids.insert(task.head.task, task.pid);
            }
            Event::TaskEnd(end) => {
                let followed = self.pids.remove(&end.head.task).is_some();
                self.alive = self.alive.saturating_sub(u64::from(followed));
            }
            Event::Exec(exec) => self.execs.push(exec.head.task),
            _ => {}
        }
    }
}

/// Those of these processes, which have just begun a program, that a launcher has started as ranks.
fn new_ranks(door: &mut Door, begun: Vec<u32>) -> Vec<NewRank> {
    let proc = Path::new("/proc");
    let rank = |pid: u32| {
        let parent = parent(&std::fs::read(proc.join(pid.to_string()).join("stat")).ok()?)?;
        if !door.answers(pid) || !door.answers(parent) {
            return None;
        }
        let (rank, world_size) = became_rank(proc, pid, parent)?;
        Some(NewRank { pid, rank, world_size })
    };
    begun.into_iter().filter_map(rank).collect()
}

/// Collective libraries in the followed processes.
#[derive(Debug)]
struct Libraries {
    notes: Vec<String>,
    pace: Pace,
    /// How often the probes were taken off.
    pauses: u64,
}

/// Notes on libraries that are kept: a process of a hundred libraries may have one on each.
const LIBRARY_NOTES: usize = 20;

impl Libraries {
    fn new(plan: &Plan) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let ranks = plan.selection.ranks().count();
        Self { notes: Vec::new(), pace: Pace::new(cpus.min(ranks)), pauses: 0 }
    }

    /// Takes the probes off where calls come too often, and puts them on again.
    fn pace(&mut self, session: &mut Session, elapsed: Duration, batch: &mut Batch) {
        match self.pace.look(elapsed, session.collective_calls()) {
            Some(Turn::Off) => {
                batch.calls_seen.push(CallsSeen::Off(monotonic_ns().unsigned_abs()));
                session.pause_collectives(|| monotonic_ns().unsigned_abs());
                self.pauses += 1;
            }
            Some(Turn::On) => match session.resume_collectives() {
                Ok(()) => batch.calls_seen.push(CallsSeen::On(monotonic_ns().unsigned_abs())),
                Err(error) => self.note(format!("collective calls are no longer seen: {error}")),
            },
            None => {}
        }
    }

    fn into_notes(mut self) -> Vec<String> {
        if self.pauses > 0 {
            let (pauses, allowed) = (self.pauses, self.pace.allowed_per_second());
            self.notes.push(format!(
                "more than {allowed} collective calls a second: their probes were taken off {pauses} times, and the \
                 time of the threads that make them is UNKNOWN meanwhile; `--probes` without collectives sees the rest"
            ));
        }
        self.notes
    }

    fn look(&mut self, session: &mut Session, door: &mut Door, pids: &[u32], batch: &mut Batch) {
        let pids: Vec<u32> = pids.iter().copied().filter(|&pid| door.answers(pid)).collect();
        let found = match session.rescan_collectives(&pids) {
            Ok(found) => found,
            Err(error) => return self.note(format!("collective calls are not seen: {error}")),
        };
        for note in found.notes {
            self.note(format!("collective calls in {}: {}", note.path, note.text));
        }
        for library in found.attached.iter().filter(|l| l.slow > 0) {
            let text = "begin with an instruction that the kernel executes out of line: about 10 µs a call";
            self.note(format!(
                "{} of {} functions of {} {text}",
                library.slow, library.functions, library.path
            ));
        }
        batch.handles.extend(found.handles);
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < LIBRARY_NOTES && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

/// Whether anybody has this pid who has not ended yet.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|letter| !matches!(letter, 'Z' | 'X'))
}

/// The reader: attaches, moves records from the rings to the queue, detaches.
#[allow(
    clippy::too_many_arguments,
    reason = "called once; a struct of them would be named after this function"
)]
fn read(
    plan: &Plan,
    host: &Host,
    mut session: Session,
    called: Instant,
    sender: &Sender,
    stop: &AtomicBool,
    failed: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Summary, Session), RecordError> {
    let gathered = std::cell::RefCell::new((Batch::default(), Seen::default()));
    let reader = session.reader(|event| {
        let (batch, seen) = &mut *gathered.borrow_mut();
        match event {
            Ok(event) if believable(&event) => {
                seen.event(&event);
                batch.events.push(event);
            }
            _ => batch.malformed += 1,
        }
    })?;
    // Loading took a while: a helper that is gone since is left out, whoever has its pid now.
    let processes: Vec<ProcessId> =
        plan.selection.processes().filter(|&p| host.life(p) == Life::Running).collect();
    let pids: Vec<u32> = processes.iter().map(|p| p.pid).collect();
    let mut interpreters = Interpreters::default();
    let mut door = Door::new("/proc".as_ref(), PATIENCE);
    interpreters.look(&session, &mut door, pids.iter().copied());
    session.attach_reading(&pids, Some(&reader))?;
    // From here on forks are seen; loading took a while.
    let newborn = descendants("/proc".as_ref(), &pids);
    if !newborn.is_empty() {
        interpreters.look(&session, &mut door, newborn.iter().copied());
        session.follow(&newborn)?;
    }
    let pids: Vec<u32> = pids.into_iter().chain(newborn).collect();
    let mut libraries = Libraries::new(plan);
    libraries.look(&mut session, &mut door, &pids, &mut gathered.borrow_mut().0);
    let mut gpus = Gpus::new(plan, plan.settings.stacks && session.is_attached(ProbeId::Launches));
    let mut launches_unseen = Vec::new();
    // Whoever has the pid now is followed: it must still be the process that was chosen.
    let ranks: Vec<ProcessId> = plan.selection.ranks().map(|rank| rank.process).collect();
    if let Some(process) = ranks.iter().chain(&processes).find(|&&p| host.life(p) == Life::Reused) {
        return Err(RecordError::Reused { pid: process.pid });
    }
    if let (Some(rank), true) = (ranks.first(), ranks.iter().all(|&p| host.life(p) != Life::Running)) {
        return Err(RecordError::Gone { pid: rank.pid });
    }
    let unnumbered = plan.selection.ranks().any(|rank| rank.rank.is_none());
    gpus.follow(&pids);
    let cgroups = ranks.iter().filter_map(|rank| cgroup(rank.pid)).collect();
    let mut counters = Counters::start(CounterOptions { cgroups, ..CounterOptions::default() });
    let attached = Instant::now();
    let attach = attached.duration_since(called);
    progress(Progress { elapsed: Duration::ZERO, records: 0, threads: 0 });
    let mut followed = 0;
    let mut looked = attached;
    let mut told = 0;
    let mut wait = LOOK;
    let ended = loop {
        reader.poll(wait)?;
        let (records, threads, alive) = {
            let (batch, seen) = &mut *gathered.borrow_mut();
            let begun = seen.begun();
            // Below a rank there are no ranks.
            if unnumbered {
                batch.ranks.extend(new_ranks(&mut door, begun));
            }
            wait = match (batch.events.is_empty(), gpus.any_on()) {
                (false, _) => LOOK,
                (true, true) => LOOK_AGENTS,
                (true, false) => LOOK_IDLE,
            };
            if sender.has_room_for_told() {
                gpus.take(&mut batch.told);
            }
            if let Some(counters) = &mut counters {
                counters.take(&mut batch.counters);
            }
            sender.send(batch);
            (seen.records, seen.threads, seen.alive)
        };
        for pid in gpus.take_on() {
            if let Err(why) = session.follow_launches(pid) {
                launches_unseen.push(format!("no stacks of launches of pid {pid}: {why}"));
            }
        }
        // A process that has just begun may be over soon.
        if std::mem::replace(&mut followed, threads) != threads {
            gpus.follow(&gathered.borrow().1.processes());
        }
        let elapsed = attached.elapsed();
        libraries.pace(&mut session, elapsed, &mut gathered.borrow_mut().0);
        if looked.elapsed() >= FLUSH {
            looked = Instant::now();
            let (changed, pids) = {
                let seen = &mut gathered.borrow_mut().1;
                (std::mem::take(&mut seen.changed), seen.processes())
            };
            interpreters.look(&session, &mut door, changed.into_iter());
            // What was loaded meanwhile (a library by dlopen, another program) is probed from now on.
            libraries.look(&mut session, &mut door, &pids, &mut gathered.borrow_mut().0);
            gpus.follow(&pids);
            let silent = std::mem::replace(&mut told, records) == records;
            // Without them a report lacks sums and has all the rest. Where nobody ran, there is nothing to sum.
            if !silent {
                let _ = session.report_totals_reading(Some(&reader));
            }
            progress(Progress { elapsed, records, threads: alive });
            // Where the records of threads' ends were lost, nothing more comes.
            if silent && alive > 0 && !pids.iter().any(|&pid| lives(pid)) {
                break Ended::JobEnded;
            }
        }
        if failed.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed) {
            break Ended::Asked;
        }
        if plan.duration.is_some_and(|d| elapsed >= d) {
            break Ended::Time;
        }
        if threads > 0 && alive == 0 {
            break Ended::JobEnded;
        }
        if let Some(left) = plan.duration.map(|d| d.saturating_sub(elapsed)) {
            wait = wait.min(left);
        }
    };
    // The agents first: what the host does meanwhile belongs to what the devices do until then.
    let mut failure = None;
    gpus.rest(|told| {
        failure = reader.poll(Duration::from_millis(5)).err();
        let (batch, _) = &mut *gathered.borrow_mut();
        batch.told.extend(told);
        sender.send(batch);
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    let elapsed = attached.elapsed();
    let detaching = Instant::now();
    let _ = session.report_totals_reading(Some(&reader));
    let detached = session.detach_reading(Some(&reader));
    let detach = detaching.elapsed();
    reader.poll(Duration::ZERO)?;
    drop(reader);
    let (mut batch, seen) = gathered.into_inner();
    let unseen = counters.map(|counters| counters.finish(&mut batch.counters)).unwrap_or_default();
    sender.send(&mut batch);
    let mut notes = plan.selection.notes.clone();
    notes.extend(interpreters.notes());
    notes.extend(libraries.into_notes());
    notes.extend(launches_unseen);
    if let Err(error) = detached {
        notes.push(format!("the waits that went on at the end are missing: {error}"));
    }
    let losses = session.losses().into_iter().chain(std::mem::take(&mut gpus.losses)).collect();
    let gpus = gpus.into_processes();
    // Where nobody uses a GPU, nobody misses what GPUs say.
    notes
        .extend(unseen.into_iter().filter(|_| !gpus.is_empty()).map(|what| format!("no counters of {what}")));
    let summary = Summary {
        ended,
        elapsed,
        attach,
        detach,
        records: seen.records,
        threads: seen.threads,
        losses,
        standings: session.standings().to_vec(),
        gpus,
        notes,
    };
    Ok((summary, session))
}
