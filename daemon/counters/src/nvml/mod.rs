//! What NVIDIA's driver says of its GPUs, through libnvidia-ml.so.1.
//!
//! | File | Holds |
//! |---|---|
//! | `api` | the library's functions, opened by name |
//! | `code` | what they return |
//! | `processes` | the one array whose layout has to be found out |
//! | `gpu` | which values are asked of a GPU and of a MIG instance |
//!
//! Devices are listed again and again: instances of a divided GPU come and go, and a handle of one that has gone means
//! nothing. GPUs are told apart by UUID; indexes and handles change their meaning.

mod api;
mod code;
mod gpu;
mod processes;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stallscope_schemas::units::TimeNs;

use self::api::{Api, Event, XID_EVENT};
pub use self::code::Code;
use self::gpu::{Gpu, Instance};
use crate::sample::{Gather, GpuIdentity, Xid};

/// GPUs of a host. Machines have up to sixteen.
const GPUS: u32 = 64;

/// How long a list of devices is good for, ns: a person who divides a GPU does not wait longer for the change to show.
const LIST_NS: u64 = 10_000_000_000;

/// Events taken in one sample: more than a GPU that dies reports in a second.
const EVENTS: usize = 256;

/// Why there is nothing from NVML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvmlError {
    /// It cannot be loaded: there is no driver, or a container lacks it.
    #[error("{error}")]
    Library {
        /// Its name.
        library: PathBuf,
        /// What the loader says, with the name.
        error: String,
    },
    /// It is too old, or something else.
    #[error("{} has no {function}", library.display())]
    Function {
        /// Its name.
        library: PathBuf,
        /// What is missing.
        function: &'static str,
    },
    /// It does not start.
    #[error("it does not start: {0}")]
    Init(Code),
}

/// The GPUs.
#[derive(Debug)]
pub(crate) struct Nvml {
    api: Api,
    driver: Option<String>,
    gpus: Vec<Gpu>,
    listed: Option<TimeNs>,
    /// GPUs whose errors we asked for.
    watched: HashSet<Arc<str>>,
    /// GPUs whose counts of bytes on PCIe are known not to wrap.
    wide_pcie: HashSet<Arc<str>>,
    /// Whose traffic on PCIe is measured next.
    turn: usize,
    /// What the last listing did not see.
    unlisted: Vec<String>,
    /// Why there may be errors that are not told.
    events: Result<(), Code>,
}

impl Nvml {
    pub(crate) fn open(library: &Path) -> Result<Self, NvmlError> {
        let api = Api::open(library)?;
        let mut nvml = Self {
            driver: api.driver_version().ok(),
            api,
            gpus: Vec::new(),
            listed: None,
            watched: HashSet::new(),
            wide_pcie: HashSet::new(),
            turn: 0,
            unlisted: Vec::new(),
            events: Ok(()),
        };
        nvml.list();
        Ok(nvml)
    }

    pub(crate) fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    pub(crate) fn devices(&self) -> Vec<GpuIdentity> {
        self.gpus.iter().flat_map(Gpu::identities).cloned().collect()
    }

    /// What is not seen, a sentence each.
    pub(crate) fn missing(&self) -> Vec<String> {
        let events = self.events.err().map(|code| format!("Xid errors: {code}"));
        self.unlisted.iter().cloned().chain(events).collect()
    }

    fn list(&mut self) {
        self.gpus.clear();
        self.unlisted.clear();
        let count = self.api.count().unwrap_or_else(|code| {
            self.unlisted.push(format!("GPUs: {code}"));
            0
        });
        for index in 0..count.min(GPUS) {
            match Gpu::find(&self.api, index) {
                Ok(gpu) => self.gpus.push(gpu),
                Err(code) => self.unlisted.push(format!("GPU {index}: {code}")),
            }
        }
        for gpu in &self.gpus {
            let uuid = &gpu.identity.uuid;
            if self.watched.contains(uuid) {
                continue;
            }
            match self.api.watch(gpu.handle) {
                Ok(()) => _ = self.watched.insert(Arc::clone(uuid)),
                Err(code) => self.unlisted.push(format!("Xid errors of {uuid}: {code}")),
            }
        }
    }

    /// Adds what all GPUs say.
    pub(crate) fn sample(&mut self, gather: &mut Gather<'_>) {
        let now = gather.sample.at;
        if now.since(*self.listed.get_or_insert(now)) >= LIST_NS {
            self.listed = Some(now);
            self.list();
        }
        for gpu in &self.gpus {
            gpu.sample(&self.api, gather);
            let uuid = &gpu.identity.uuid;
            if gpu.pcie_totals(&self.api, self.wide_pcie.contains(uuid), gather) {
                self.wide_pcie.insert(Arc::clone(uuid));
            }
        }
        self.measure_pcie(gather);
        self.events(gather);
    }

    /// Measures the traffic of one of the GPUs that do not count it: NVML takes 20 ms a direction.
    fn measure_pcie(&mut self, gather: &mut Gather<'_>) {
        let waiting: Vec<&Gpu> =
            self.gpus.iter().filter(|gpu| !self.wide_pcie.contains(&gpu.identity.uuid)).collect();
        if let Some(turn) = self.turn.checked_rem(waiting.len())
            && let Some(gpu) = waiting.get(turn)
        {
            gpu.pcie_rates(&self.api, gather);
        }
        self.turn = self.turn.wrapping_add(1);
    }

    fn events(&mut self, gather: &mut Gather<'_>) {
        // With nobody watched, why is said by GPU already.
        if self.watched.is_empty() {
            return;
        }
        self.events = Ok(());
        for _ in 0..EVENTS {
            match self.api.next_event() {
                Ok(Some(event)) if event.kind & XID_EVENT != 0 => {
                    gather.sample.events.push(Xid { gpu: self.blamed(&event), number: event.data });
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(code) => {
                    self.events = Err(code);
                    return;
                }
            }
        }
    }

    /// The instance that an event names, else its GPU.
    fn blamed(&self, event: &Event) -> Arc<str> {
        let Some(gpu) = self.gpus.iter().find(|gpu| gpu.handle == event.device) else {
            // Not in the list (any more): it has a UUID all the same.
            return self.api.uuid(event.device).unwrap_or_default().into();
        };
        let named = |instance: &&Instance| instance.is(event.gpu_instance, event.compute_instance);
        let identity = gpu.instances.iter().find(named).map_or(&gpu.identity, |i| &i.identity);
        Arc::clone(&identity.uuid)
    }
}
