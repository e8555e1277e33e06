//! Looks at all sources, again and again.

use std::path::PathBuf;
use std::sync::Arc;

use stallscope_schemas::units::TimeNs;

use crate::nvml::{Nvml, NvmlError};
use crate::sample::{Gather, GpuIdentity, Of, Sample};
use crate::totals::Totals;
use crate::{infiniband, pressure};

/// Cgroups that are looked at: a job has one a container.
const CGROUPS: usize = 256;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of sysfs: `/sys`.
    pub sysfs: PathBuf,
    /// The folder of procfs: `/proc`.
    pub procfs: PathBuf,
    /// Cgroups whose pressure is wanted, as the last field of /proc/PID/cgroup names them.
    pub cgroups: Vec<String>,
    /// NVML's name, or the path of a stand-in; none leaves it alone.
    pub nvml: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sysfs: PathBuf::from("/sys"),
            procfs: PathBuf::from("/proc"),
            cgroups: Vec::new(),
            nvml: Some(PathBuf::from("libnvidia-ml.so.1")),
        }
    }
}

/// Samples the counters of this host.
#[derive(Debug)]
pub struct Sampler {
    sysfs: PathBuf,
    procfs: PathBuf,
    cgroups: Vec<Arc<str>>,
    nvml: Option<Result<Nvml, NvmlError>>,
    totals: Totals,
    /// Why the last sample has nothing of a source of the kernel.
    unread: Vec<String>,
}

impl Sampler {
    /// Opens what there is. NVML readies each GPU, which takes seconds where no other program holds the driver.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut sampler = Self {
            sysfs: options.sysfs,
            procfs: options.procfs,
            cgroups: Vec::new(),
            nvml: options.nvml.map(|library| Nvml::open(&library)),
            totals: Totals::default(),
            unread: Vec::new(),
        };
        sampler.set_cgroups(options.cgroups);
        sampler
    }

    /// Whose pressure is wanted from now on.
    pub fn set_cgroups(&mut self, cgroups: impl IntoIterator<Item = String>) {
        self.cgroups = cgroups.into_iter().take(CGROUPS).map(Arc::from).collect();
        self.cgroups.sort_unstable();
        self.cgroups.dedup();
    }

    /// The GPUs and MIG instances that NVML shows, as of the last sample: a divided GPU stands before its instances.
    #[must_use]
    pub fn devices(&self) -> Vec<GpuIdentity> {
        self.nvml().map(Nvml::devices).unwrap_or_default()
    }

    /// Version of the driver, where NVML says.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        self.nvml().and_then(Nvml::driver)
    }

    fn nvml(&self) -> Option<&Nvml> {
        self.nvml.as_ref().and_then(|nvml| nvml.as_ref().ok())
    }

    /// What is not seen and why, a sentence each: as of the last sample.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        match &self.nvml {
            Some(Err(error)) => missing.push(format!("NVML: {error}")),
            Some(Ok(nvml)) => missing.extend(nvml.missing().iter().map(|what| format!("NVML: {what}"))),
            None => {}
        }
        missing.extend(self.unread.iter().cloned());
        missing
    }

    /// Looks at everything. `now` is the caller's time and must not go back. Values that tell growth are in it from
    /// the second sample on.
    ///
    /// The kernel's files take a millisecond or so. A GPU takes some more, and where traffic on PCIe has to be measured
    /// (docs/counters.md) NVML holds the caller for another 40 ms.
    pub fn sample(&mut self, now: TimeNs) -> Sample {
        let mut gather = Gather::new(now, &mut self.totals);
        self.unread.clear();
        // The quick ones first: `now` is their time too.
        if let Err(error) = pressure::host(&self.procfs, &mut gather) {
            self.unread.push(format!("pressure: {}: {error}", self.procfs.join("pressure").display()));
        }
        for path in &self.cgroups {
            pressure::cgroup(&self.sysfs, &Of::Cgroup(Arc::clone(path)), path, &mut gather);
        }
        if let Err(error) = infiniband::sample(&self.sysfs, &mut gather) {
            let folder = self.sysfs.join("class/infiniband");
            self.unread.push(format!("InfiniBand: {}: {error}", folder.display()));
        }
        if let Some(Ok(nvml)) = &mut self.nvml {
            nvml.sample(&mut gather);
        }
        gather.finish()
    }
}
