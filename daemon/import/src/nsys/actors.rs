//! Who did what: processes and threads from serialised ids, devices from what the export knows of them.
//!
//! A global id packs hardware (8 bits), virtual machine (8), process (24) and thread (24). Everything above the thread
//! identifies a process within the file, and correlation ids are unique within one.

use std::io::Write;
use std::path::Path;

use hashbrown::HashMap;
use stallscope_core::capture::{Device, Process, Thread};
use stallscope_core::ingest::{Ingest, Scope};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::device_kind;
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, ThreadId};

use super::database::{Database, integer, text};
use crate::ImportError;

/// Bits of a global id that number the thread, and bits of what is left that number the process.
const THREAD_BITS: u32 = 24;
const ID_MASK: i64 = (1 << THREAD_BITS) - 1;

/// More than any host has: beyond, ids are noise.
const MAX_PROCESSES: usize = 1 << 16;
const MAX_THREADS: usize = 1 << 20;
const MAX_DEVICES: usize = 1 << 12;
const MAX_CONTEXTS: usize = 1 << 16;

/// A global id without its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProcessKey(i64);

impl ProcessKey {
    /// Rows that do not say whose they are.
    pub(super) const UNKNOWN: Self = Self(-1);

    /// The process of a serialised process or thread id.
    pub(super) fn of(global_id: i64) -> Self {
        Self(global_id >> THREAD_BITS)
    }

    fn pid(self) -> i64 {
        if self == Self::UNKNOWN { 0 } else { self.0 & ID_MASK }
    }
}

/// A GPU as the export describes it.
#[derive(Clone, Debug, Default)]
struct Gpu {
    uuid: Option<String>,
    model: String,
}

/// A device of the capture and who used it.
#[derive(Debug)]
struct KnownDevice {
    id: DeviceId,
    users: Vec<ProcessKey>,
}

/// Processes, threads and devices seen so far.
#[derive(Debug)]
pub(super) struct Actors {
    source: SourceId,
    file_stem: String,
    processes: HashMap<ProcessKey, ProcessId>,
    threads: HashMap<i64, ThreadId>,
    gpus: HashMap<i64, Gpu>,
    /// Which GPU a process means by an ordinal, and its UUID where it is not the GPU's own (a MIG instance).
    ordinals: HashMap<(i64, i64), (i64, Option<String>)>,
    /// Without `ordinals`: whether an ordinal can be taken for the number of a GPU.
    ordinals_are_gpus: bool,
    by_identity: HashMap<String, usize>,
    by_ordinal: HashMap<(ProcessKey, i64), usize>,
    /// Contexts belong to one device.
    by_context: HashMap<(ProcessKey, i64), usize>,
    devices: Vec<KnownDevice>,
}

impl Actors {
    /// Reads what the export says of its GPUs.
    pub(super) fn new(database: &Database, path: &Path, source: SourceId) -> Result<Self, ImportError> {
        let mut actors = Self {
            source,
            file_stem: path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
            processes: HashMap::new(),
            threads: HashMap::new(),
            gpus: HashMap::new(),
            ordinals: HashMap::new(),
            ordinals_are_gpus: true,
            by_identity: HashMap::new(),
            by_ordinal: HashMap::new(),
            by_context: HashMap::new(),
            devices: Vec::new(),
        };
        if let Some(table) = database.table("TARGET_INFO_GPU") {
            database.scan(table, &["id", "uuid", "name"], |row| {
                if let Ok(Some(id)) = integer(row, 0)
                    && actors.gpus.len() < MAX_DEVICES
                {
                    let uuid = text(row, 1).ok().flatten().and_then(|u| full_uuid(&u));
                    let model = text(row, 2).ok().flatten().unwrap_or_default().into_owned();
                    actors.gpus.insert(id, Gpu { uuid, model });
                }
                Ok(())
            })?;
        }
        if let Some(table) = database.table("TARGET_INFO_CUDA_DEVICE") {
            database.scan(table, &["pid", "cudaId", "gpuId", "uuid"], |row| {
                if let (Ok(Some(pid)), Ok(Some(ordinal)), Ok(Some(gpu))) =
                    (integer(row, 0), integer(row, 1), integer(row, 2))
                    && actors.ordinals.len() < MAX_DEVICES
                {
                    let uuid = text(row, 3).ok().flatten().and_then(|u| full_uuid(&u));
                    actors.ordinals.insert((pid, ordinal), (gpu, uuid));
                }
                Ok(())
            })?;
        }
        if actors.ordinals.is_empty() && actors.gpus.len() > 1 {
            actors.ordinals_are_gpus = uses_several_ordinals(database);
        }
        Ok(actors)
    }

    /// The process, new or known, and the scope of its correlation ids.
    pub(super) fn process<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        key: ProcessKey,
    ) -> (ProcessId, Scope) {
        let known = self.processes.get(&key).copied();
        let id = known.unwrap_or_else(|| {
            if self.processes.len() >= MAX_PROCESSES {
                ingest.writer().count_loss(LossCounter::TableFull, 1);
                return ProcessId(0);
            }
            let process = Process { source: self.source, pid: key.pid(), ..Process::default() };
            let id = ingest.writer().add_process(process);
            self.processes.insert(key, id);
            id
        });
        (id, Scope(id.0))
    }

    /// The thread of a serialised thread id, new or known, with its process's scope.
    pub(super) fn thread<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        global_tid: Option<i64>,
    ) -> (ThreadId, Scope) {
        let key = global_tid.map_or(ProcessKey::UNKNOWN, ProcessKey::of);
        let (process, scope) = self.process(ingest, key);
        let global_tid = global_tid.unwrap_or(-1);
        if let Some(&thread) = self.threads.get(&global_tid) {
            return (thread, scope);
        }
        if self.threads.len() >= MAX_THREADS {
            ingest.writer().count_loss(LossCounter::TableFull, 1);
            return (ThreadId(0), scope);
        }
        let tid = if key == ProcessKey::UNKNOWN { 0 } else { global_tid & ID_MASK };
        let thread = ingest.writer().add_thread(Thread { process, tid, name: String::new() });
        self.threads.insert(global_tid, thread);
        (thread, scope)
    }

    /// The device that a process means by an ordinal, and the process's position among the users of that device.
    /// `None` when there are too many.
    ///
    /// The identity of a device is its UUID. Every process counts its devices from 0, and exports before 2024.5 do not
    /// say which GPU an ordinal means. There, when all that is ever used of a host with several GPUs is ordinal 0, each
    /// process is taken to have a GPU of its own: that is what launchers set up by giving each rank its own
    /// `CUDA_VISIBLE_DEVICES`. Which GPU that is stays unknown.
    pub(super) fn device<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        key: ProcessKey,
        context: Option<i64>,
        ordinal: i64,
    ) -> Option<(DeviceId, usize)> {
        let at = match self.by_ordinal.get(&(key, ordinal)) {
            Some(&at) => at,
            None => self.add_device(ingest, key, ordinal)?,
        };
        if let Some(context) = context
            && self.by_context.len() < MAX_CONTEXTS
        {
            self.by_context.insert((key, context), at);
        }
        self.user_of(key, at)
    }

    /// The device of a row that need not say which it is: synchronisation records have device 0 whatever their context
    /// is on. `None` where no operation of that process was seen on a device that would fit.
    pub(super) fn known_device(
        &self,
        key: ProcessKey,
        context: Option<i64>,
        ordinal: Option<i64>,
    ) -> Option<(DeviceId, usize)> {
        let by_context = context.and_then(|context| self.by_context.get(&(key, context)));
        let at = by_context.or_else(|| self.by_ordinal.get(&(key, ordinal?)))?;
        self.user_of(key, *at)
    }

    fn user_of(&self, key: ProcessKey, at: usize) -> Option<(DeviceId, usize)> {
        let device = self.devices.get(at)?;
        let user = device.users.iter().position(|&u| u == key)?;
        Some((device.id, user))
    }

    fn add_device<W: Write>(
        &mut self,
        ingest: &mut Ingest<W>,
        key: ProcessKey,
        ordinal: i64,
    ) -> Option<usize> {
        if self.by_ordinal.len() >= MAX_DEVICES {
            ingest.writer().count_loss(LossCounter::TableFull, 1);
            return None;
        }
        let (identity, gpu) = self.identity(key, ordinal);
        let process = self.process(ingest, key).0;
        let at = self.by_identity.get(&identity).copied().unwrap_or_else(|| {
            let id = ingest.writer().add_device(Device {
                source: self.source,
                kind: device_kind::GPU,
                id: identity.clone(),
                ordinal: u32::try_from(ordinal).unwrap_or(0),
                model: self.gpus.get(&gpu).map_or_else(String::new, |g| g.model.clone()),
                processes: Vec::new(),
            });
            self.devices.push(KnownDevice { id, users: Vec::new() });
            self.by_identity.insert(identity, self.devices.len() - 1);
            self.devices.len() - 1
        });
        let device = self.devices.get_mut(at)?;
        device.users.push(key);
        ingest.writer().update_device(device.id, |d| d.processes.push(process));
        self.by_ordinal.insert((key, ordinal), at);
        Some(at)
    }

    /// What a device is called, and which GPU of the export it is.
    fn identity(&self, key: ProcessKey, ordinal: i64) -> (String, i64) {
        if let Some((gpu, instance)) = self.ordinals.get(&(key.pid(), ordinal)) {
            let uuid = instance.clone().or_else(|| self.gpus.get(gpu).and_then(|g| g.uuid.clone()));
            return (uuid.unwrap_or_else(|| format!("{}-gpu{gpu}", self.file_stem)), *gpu);
        }
        if !self.ordinals_are_gpus {
            let is_first = self.by_ordinal.is_empty();
            let process = if is_first { String::new() } else { format!("-pid{}", key.pid()) };
            return (format!("{}{process}-gpu{ordinal}", self.file_stem), ordinal);
        }
        let uuid = self.gpus.get(&ordinal).and_then(|g| g.uuid.clone());
        (uuid.unwrap_or_else(|| format!("{}-gpu{ordinal}", self.file_stem)), ordinal)
    }

    /// Whether any row so far was this process's.
    pub(super) fn has_process(&self, key: ProcessKey) -> bool {
        self.processes.contains_key(&key)
    }

    /// The only process that used a device, if there is just one.
    pub(super) fn only_gpu_process(&self) -> Option<ProcessId> {
        let mut users = self.devices.iter().flat_map(|d| &d.users);
        let first = users.next()?;
        users.all(|u| u == first).then(|| self.processes.get(first).copied()).flatten()
    }

    /// Gives the processes and threads that were seen their names.
    pub(super) fn read_names<W: Write>(
        &mut self,
        database: &Database,
        names: &mut super::names::Names<'_>,
        ingest: &mut Ingest<W>,
    ) -> Result<(), ImportError> {
        if let Some(table) = database.table("PROCESSES") {
            database.scan(table, &["globalPid", "pid", "name"], |row| {
                if let (Ok(Some(global_pid)), Ok(pid), Ok(Some(name))) =
                    (integer(row, 0), integer(row, 1), text(row, 2))
                    && let Some(&id) = self.processes.get(&ProcessKey::of(global_pid))
                {
                    ingest.writer().update_process(id, |p| {
                        p.pid = pid.unwrap_or(p.pid);
                        p.name = name.into_owned();
                    });
                }
                Ok(())
            })?;
        }
        if let Some(table) = database.table("ThreadNames") {
            database.scan(table, &["globalTid", "nameId"], |row| {
                if let Ok(Some(global_tid)) = integer(row, 0)
                    && let Some(&id) = self.threads.get(&global_tid)
                    && let Ok(Some(name)) = names.cell(ingest, row, 1)
                {
                    let name = ingest.writer().tables().string(name).to_owned();
                    ingest.writer().update_thread(id, |t| t.name = name);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Changes every process of this file.
    pub(super) fn update_processes<W: Write>(&self, ingest: &mut Ingest<W>, change: impl Fn(&mut Process)) {
        for &id in self.processes.values() {
            ingest.writer().update_process(id, &change);
        }
    }
}

/// Whether any kernel ran on another device than its process's first.
fn uses_several_ordinals(database: &Database) -> bool {
    let Some(table) = database.table("CUPTI_ACTIVITY_KIND_KERNEL").filter(|t| t.has("deviceId")) else {
        return false;
    };
    let sql = format!("SELECT max(\"deviceId\") FROM \"{}\"", table.name());
    database.connection().query_row(&sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten().unwrap_or(0)
        > 0
}

/// A UUID as the driver writes it; some versions export it without the prefix.
fn full_uuid(uuid: &str) -> Option<String> {
    let uuid = uuid.trim();
    if uuid.is_empty() {
        return None;
    }
    Some(if uuid.starts_with("GPU-") || uuid.starts_with("MIG-") {
        uuid.to_owned()
    } else {
        format!("GPU-{uuid}")
    })
}
