//! One recording: load the programs, attach the probes, follow processes, read what comes, detach.

use std::collections::BTreeMap;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{
    Iter, Link, MapCore, MapFlags, MapHandle, MapType, OpenObject, RingBuffer, RingBufferBuilder,
};
use stallscope_schemas::loss::LossCounter;
use zerocopy::IntoBytes;

use crate::event::{Event, Malformed};
use crate::kernel::Kernel;
use crate::probes::collectives::{self, Collectives, Rescan};
use crate::probes::launches::{self, Launches, Unseen};
use crate::probes::{ALL, Attached, Probe, ProbeId, Standing};
use crate::python::{Entry, PythonProcess};
use crate::skeleton::{OpenStallscopeSkel, StallscopeSkel, StallscopeSkelBuilder};

/// Most rings: more CPUs share them. Must be MAX_SHARDS of the kernel half.
const MAX_SHARDS: u32 = 64;

/// What a recording is asked to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Probes to use; others are not loaded.
    pub probes: Vec<ProbeId>,
    /// Bytes of all rings together. Each is a power of two of at least 64 KiB.
    pub ring_bytes: u32,
    /// Waits at least this long get stacks, ns.
    pub stack_threshold_ns: u64,
    /// Samples a second on each CPU.
    pub sample_hz: u64,
    /// Whether stacks are taken at all.
    pub stacks: bool,
    /// Most threads to follow.
    pub max_threads: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Launches change how CUPTI is used in the job: only who asks for them has them.
            probes: ProbeId::all().into_iter().filter(|id| *id != ProbeId::Launches).collect(),
            // At half a million records a second of 104 bytes, a third of a second of patience.
            ring_bytes: 16 << 20,
            // Two stack walks cost about 5 µs: a twentieth of such a wait.
            stack_threshold_ns: 100_000,
            // Not 100: a loop that sleeps for whole centiseconds would always be met at the same place.
            sample_hz: 99,
            stacks: true,
            max_threads: 65_536,
        }
    }
}

/// Why a recording cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The scheduler probe, without which there is nothing, cannot run.
    #[error("{reason}")]
    Unable {
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What libbpf says.
        source: libbpf_rs::Error,
    },
}

fn failed(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> SessionError {
    move |source| SessionError::Kernel { what: what.into(), source }
}

/// A loaded set of probes.
pub struct Session {
    // Links go before the programs that they hold.
    attached: BTreeMap<ProbeId, Attached>,
    collectives: Collectives,
    launches: Launches,
    rings: Vec<MapHandle>,
    skeleton: StallscopeSkel<'static>,
    settings: Settings,
    standings: Vec<(ProbeId, Standing)>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("standings", &self.standings).finish_non_exhaustive()
    }
}

impl Session {
    /// Loads the probes that can run here. One that the kernel refuses is left out, by name.
    ///
    /// # Errors
    /// [`SessionError`] where not even the scheduler probe can be loaded.
    pub fn load(kernel: &Kernel, settings: Settings) -> Result<Self, SessionError> {
        let mut standings = Vec::new();
        let mut wanted: Vec<&'static Probe> = Vec::new();
        for probe in ALL.iter().filter(|p| p.id == ProbeId::Sched || settings.probes.contains(&p.id)) {
            let standing = (probe.can_run)(kernel);
            if standing.usable() {
                wanted.push(probe);
            } else if let (ProbeId::Sched, Standing::Missing { reason, remedy }) = (probe.id, &standing) {
                return Err(SessionError::Unable { reason: reason.clone(), remedy: remedy.clone() });
            }
            standings.push((probe.id, standing));
        }
        let mut skeleton = load_programs(&wanted, kernel, &settings);
        if skeleton.is_err() && wanted.len() > 1 {
            // Something newer than this kernel: without all but the scheduler first, then one more at a time.
            let mut kept: Vec<&'static Probe> =
                wanted.iter().copied().filter(|p| p.id == ProbeId::Sched).collect();
            for probe in wanted.iter().filter(|p| p.id != ProbeId::Sched) {
                kept.push(probe);
                if let Err(error) = load_programs(&kept, kernel, &settings) {
                    kept.pop();
                    let reason = format!("the kernel refuses its programs: {error}");
                    let remedy = "use a newer kernel, and report this one".to_owned();
                    standings.retain(|(id, _)| *id != probe.id);
                    standings.push((probe.id, Standing::Missing { reason, remedy }));
                }
            }
            skeleton = load_programs(&kept, kernel, &settings);
        }
        let (skeleton, rings) = skeleton.map_err(failed("load the scheduler probe"))?;
        let (collectives, launches) = (Collectives::new(kernel), Launches::new(kernel));
        Ok(Self { attached: BTreeMap::new(), collectives, launches, rings, skeleton, settings, standings })
    }

    /// How each probe stands: what is not seen, and why.
    #[must_use]
    pub fn standings(&self) -> &[(ProbeId, Standing)] {
        &self.standings
    }

    /// Attaches the probes and follows all threads of these processes, and whatever they fork from now on.
    ///
    /// # Errors
    /// [`SessionError`] where the scheduler probe cannot be attached; others degrade.
    pub fn attach(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        self.attach_reading(pids, None)
    }

    /// As [`Session::attach`]; the rings are read meanwhile. Threads are told of by one CPU, whose ring holds a few
    /// thousand of them where it is one of many.
    ///
    /// # Errors
    /// As for [`Session::attach`].
    pub fn attach_reading(&mut self, pids: &[u32], reader: Option<&Reader<'_>>) -> Result<(), SessionError> {
        self.set_recording(true);
        self.follow_processes(pids)?;
        for probe in ALL {
            let usable = self.standings.iter().any(|(id, s)| *id == probe.id && s.usable());
            if !usable {
                continue;
            }
            match (probe.attach)(&mut self.skeleton, &self.settings) {
                Ok(attached) => {
                    self.attached.insert(probe.id, attached);
                }
                Err(source) if probe.id == ProbeId::Sched => {
                    return Err(SessionError::Kernel {
                        what: "attach the scheduler probe".to_owned(),
                        source,
                    });
                }
                Err(error) => {
                    let reason = format!("cannot be attached: {error}");
                    let remedy = "stallscope doctor says what this host lacks".to_owned();
                    self.standings.retain(|(id, _)| *id != probe.id);
                    self.standings.push((probe.id, Standing::Missing { reason, remedy }));
                }
            }
        }
        self.run_iterator(false, reader)
    }

    /// Follows more processes: all their threads, and whatever they fork.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the kernel refuses.
    pub fn follow(&mut self, pids: &[u32]) -> Result<(), SessionError> {
        self.follow_processes(pids)?;
        self.run_iterator(false, None)
    }

    fn follow_processes(&self, pids: &[u32]) -> Result<(), SessionError> {
        for pid in pids {
            self.skeleton
                .maps
                .followed
                .update(&pid.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
                .map_err(failed(format!("follow process {pid}")))?;
        }
        Ok(())
    }

    /// Has the Python frames of a process walked, and of what it forks, until it begins another program.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the kernel has no room for more processes.
    pub fn set_python(&self, pid: u32, process: &PythonProcess) -> Result<(), SessionError> {
        let map = &self.skeleton.maps.python_processes;
        let entry = Entry::of(process)
            .ok_or_else(|| std::io::Error::other("a field of the interpreter is out of reach").into());
        entry
            .and_then(|entry| map.update(&pid.to_ne_bytes(), entry.as_bytes(), MapFlags::ANY))
            .map_err(failed(format!("have the Python frames of process {pid} walked")))
    }

    /// Looks for collective libraries in processes and probes those that are new. To be called after attaching and then
    /// about every second: a process whose code has not changed costs two small reads.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the kernel refuses all of it; what is wrong with one file is a note.
    pub fn rescan_collectives(&mut self, pids: &[u32]) -> Result<Rescan, SessionError> {
        if !self.attached.contains_key(&ProbeId::Collectives) {
            return Ok(Rescan::default());
        }
        self.collectives.rescan(&mut self.skeleton, pids).map_err(failed("probe collective libraries"))
    }

    /// Collective calls that have begun, of all followed threads.
    #[must_use]
    pub fn collective_calls(&self) -> u64 {
        self.counter(COUNT_CALLS)
    }

    /// Takes the probes on collective calls off until [`Self::resume_collectives`]. `now_ns` is CLOCK_MONOTONIC, read
    /// after this was called: it is asked for once they are off, as calls until then may have been seen in part.
    pub fn pause_collectives(&mut self, now_ns: impl FnOnce() -> u64) {
        self.collectives.pause();
        if let Some(bss) = self.skeleton.maps.bss_data.as_deref_mut() {
            bss.calls_paused_at = now_ns();
            bss.calls_round += 1;
        }
    }

    /// Puts them on again.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the kernel refuses: then they stay off.
    pub fn resume_collectives(&mut self) -> Result<(), SessionError> {
        self.collectives.resume(&mut self.skeleton).map_err(failed("probe collective libraries again"))
    }

    /// Whether a probe was asked for and is attached.
    #[must_use]
    pub fn is_attached(&self, probe: ProbeId) -> bool {
        self.attached.contains_key(&probe)
    }

    /// Probes the agent in a process: from then on the launches that it samples are told with their stacks. Nothing is
    /// done where that was not asked for, or where its agent is probed already.
    ///
    /// # Errors
    /// [`Unseen`] where they cannot be seen.
    pub fn follow_launches(&mut self, pid: u32) -> Result<(), Unseen> {
        if !self.attached.contains_key(&ProbeId::Launches) {
            return Ok(());
        }
        self.launches.follow(&self.skeleton, pid)
    }

    /// Runs over all tasks of the host in the kernel: to begin following, or to leave.
    fn run_iterator(&mut self, leave: bool, reader: Option<&Reader<'_>>) -> Result<(), SessionError> {
        let programs = &mut self.skeleton.progs;
        let program = if leave { &mut programs.leave_tasks } else { &mut programs.follow_tasks };
        let what = || failed("look at the host's tasks");
        run(&program.attach().map_err(what())?, reader).map_err(what())
    }

    /// Has the sums since the last time told: bytes by file, and what open connections have done. They come through the
    /// rings.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the kernel refuses.
    pub fn report_totals(&mut self) -> Result<(), SessionError> {
        self.report_totals_reading(None)
    }

    /// As [`Session::report_totals`]; the rings are read meanwhile.
    ///
    /// # Errors
    /// As for [`Session::report_totals`].
    pub fn report_totals_reading(&mut self, reader: Option<&Reader<'_>>) -> Result<(), SessionError> {
        let what = || failed("ask for totals");
        let (programs, maps) = (&mut self.skeleton.progs, &self.skeleton.maps);
        if self.attached.contains_key(&ProbeId::Files) {
            run(&programs.gather_file_io.attach().map_err(what())?, reader).map_err(what())?;
        }
        for (probe, program, map) in [
            (ProbeId::Files, &programs.report_file_io, maps.file_io.as_fd()),
            (ProbeId::Network, &programs.report_connections, maps.connections.as_fd()),
        ] {
            if self.attached.contains_key(&probe) {
                run(&program.attach_iter(map).map_err(what())?, reader).map_err(what())?;
            }
        }
        Ok(())
    }

    fn set_recording(&mut self, on: bool) {
        if let Some(bss) = self.skeleton.maps.bss_data.as_deref_mut() {
            bss.recording = on;
        }
    }

    /// A reader of the rings. It may be moved to another thread.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where they cannot be mapped.
    pub fn reader<'a, F>(&self, on_event: F) -> Result<Reader<'a>, SessionError>
    where
        F: FnMut(Result<Event, Malformed>) + 'a,
    {
        let on_event = std::rc::Rc::new(std::cell::RefCell::new(on_event));
        let mut builder = RingBufferBuilder::new();
        for ring in &self.rings {
            let on_event = std::rc::Rc::clone(&on_event);
            let each = move |bytes: &[u8]| {
                (on_event.borrow_mut())(Event::parse(bytes));
                0
            };
            builder.add(ring, each).map_err(failed("read a ring"))?;
        }
        Ok(Reader { rings: builder.build().map_err(failed("map the rings"))? })
    }

    /// Takes all probes off after having asked every thread for what is pending. The rings still hold the last records.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the pending records could not be asked for; the probes are off all the same.
    pub fn detach(&mut self) -> Result<(), SessionError> {
        self.detach_reading(None)
    }

    /// As [`Session::detach`]; the rings are read while every thread is asked.
    ///
    /// # Errors
    /// As for [`Session::detach`].
    pub fn detach_reading(&mut self, reader: Option<&Reader<'_>>) -> Result<(), SessionError> {
        let asked = self.run_iterator(true, reader).and(self.report_totals_reading(reader));
        self.set_recording(false);
        self.attached.clear();
        self.collectives.detach();
        self.launches.detach();
        asked
    }

    /// What the kernel half could not do, so far.
    #[must_use]
    pub fn losses(&self) -> Vec<(LossCounter, u64)> {
        // Places as in `enum counter` of the kernel half.
        const PLACES: [(u32, LossCounter); 7] = [
            (0, LossCounter::RingFull),
            (1, LossCounter::ThreadTableFull),
            (2, LossCounter::StackLost),
            (3, LossCounter::ObjectUnresolved),
            (4, LossCounter::CallOpen),
            (6, LossCounter::RequestLost),
            (7, LossCounter::ProbeMissed),
        ];
        PLACES.iter().map(|(at, loss)| (*loss, self.counter(*at))).filter(|(_, n)| *n > 0).collect()
    }

    fn counter(&self, at: u32) -> u64 {
        let by_cpu = self.skeleton.maps.counters.lookup_percpu(&at.to_ne_bytes(), MapFlags::ANY);
        let values = by_cpu.ok().flatten().unwrap_or_default();
        values.iter().filter_map(|v| Some(u64::from_ne_bytes(*v.first_chunk()?))).sum()
    }
}

/// Place of the counter of collective calls in `enum counter` of the kernel half.
const COUNT_CALLS: u32 = 8;

/// How long the rings are waited for before it is asked again whether an iterator has come to its end.
const WALK_LOOK: Duration = Duration::from_millis(1);

/// Runs an iterator over all there is. Its programs write records and no text. With a reader it runs in a thread of its
/// own: it is one read, and the rings are to be emptied meanwhile.
fn run(link: &Link, reader: Option<&Reader<'_>>) -> Result<(), libbpf_rs::Error> {
    let mut walk = Iter::new(link)?;
    let mut walk = move || walk.read_to_end(&mut Vec::new());
    let Some(reader) = reader else {
        walk()?;
        return Ok(());
    };
    std::thread::scope(|scope| {
        let walking = scope.spawn(walk);
        while !walking.is_finished() {
            // What cannot be read now is said when it is next tried.
            let _ = reader.poll(WALK_LOOK);
        }
        walking.join().unwrap_or_else(|_| Err(std::io::Error::other("the iterator's thread died")))?;
        Ok(())
    })
}

/// Reads the rings.
pub struct Reader<'a> {
    rings: RingBuffer<'a>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader<'_> {
    /// Waits until a ring is filling up or the time is over, then reads all that is there.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] where the wait fails for another reason than a signal.
    pub fn poll(&self, timeout: Duration) -> Result<(), SessionError> {
        match self.rings.poll(timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("wait for the rings")(error)),
        }
        // The kernel half wakes us only when much has gathered: what is there without a wake-up is read here.
        self.rings.consume().map_err(failed("read the rings"))
    }
}

/// Rings of a size that the kernel accepts: a power of two of pages.
fn make_rings(settings: &Settings, shards: u32) -> Result<Vec<MapHandle>, libbpf_rs::Error> {
    let each = (settings.ring_bytes / shards).max(64 << 10);
    let each = if each.is_power_of_two() { each } else { each.next_power_of_two() >> 1 };
    (0..shards)
        .map(|_| {
            let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
                sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
                ..Default::default()
            };
            MapHandle::create(MapType::RingBuf, Some("stall_ring"), 0, 0, each, &options)
        })
        .collect()
}

fn load_programs(
    probes: &[&'static Probe],
    kernel: &Kernel,
    settings: &Settings,
) -> Result<(StallscopeSkel<'static>, Vec<MapHandle>), libbpf_rs::Error> {
    // The skeleton borrows the object. A recording loads once or twice in the life of the process: the few words that
    // hold the object are not given back, so that the session can own what it loads.
    let place: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open: OpenStallscopeSkel<'static> = StallscopeSkelBuilder::default().open(place)?;
    for mut program in open.open_object_mut().progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let wanted = probes.iter().any(|p| p.programs.contains(&name.as_str()));
        let wanted = wanted && !collectives::is_other_way(kernel, &name);
        let wanted = wanted && !launches::is_other_way(kernel, &name);
        program.set_autoload(wanted && crate::probes::faults::loadable(&name));
    }
    let shards = kernel.cpus.min(MAX_SHARDS);
    let rings = make_rings(settings, shards)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.shards = shards;
        rodata.wakeup_bytes = u64::from(settings.ring_bytes / shards / 4);
        rodata.stack_threshold_ns = settings.stack_threshold_ns;
        rodata.sample_period_ns = 1_000_000_000 / settings.sample_hz.max(1);
        rodata.max_tasks = settings.max_threads;
        rodata.want_stacks = settings.stacks;
        let want = |id| probes.iter().any(|p| p.id == id);
        rodata.want_syscalls = want(ProbeId::Syscalls);
        rodata.want_files = want(ProbeId::Files);
        rodata.want_network = want(ProbeId::Network);
    }
    let skeleton = open.load()?;
    for (at, ring) in (0u32..).zip(&rings) {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&ring.as_fd());
        skeleton.maps.rings.update(&at.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?;
    }
    Ok((skeleton, rings))
}
