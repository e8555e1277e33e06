//! What a look at the counters yields, and what gathers it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use stallscope_schemas::units::TimeNs;

use crate::nvml::Code;
use crate::totals::Totals;

/// What a value is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    /// This host.
    Host,
    /// A GPU or a MIG instance, by its UUID as `nvidia-smi -L` writes it.
    Gpu(Arc<str>),
    /// A port of an InfiniBand or RoCE adapter: `mlx5_0/1`.
    Port(Arc<str>),
    /// A cgroup, by its path.
    Cgroup(Arc<str>),
}

/// A counter's name with its unit: `sm clock (MHz)`. docs/counters.md lists them; they are stable.
pub type Name = Cow<'static, str>;

/// A value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What it is about.
    pub of: Of,
    /// Which counter.
    pub name: Name,
    /// The value, in the unit of the name.
    pub value: u64,
    /// 0: the value at the moment of the sample. Else by how much a count has grown in so many ns that ended then.
    pub over_ns: u64,
}

/// A value that was asked for and is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// What it would be about.
    pub of: Of,
    /// Which counter.
    pub name: Name,
    /// Why.
    pub why: Why,
}

/// Why a value is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// NVML said so.
    Code(Code),
    /// The answer cannot be what it should be: a negative temperature, a layout that no version of NVML has.
    Unclear,
}

impl From<Code> for Why {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Unclear => f.write_str("the answer makes no sense"),
        }
    }
}

/// A process that computes on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    /// UUID of the GPU or of the MIG instance.
    pub gpu: Arc<str>,
    /// Its pid, as the driver numbers processes: those of the host.
    pub pid: u32,
    /// Device memory that it holds, bytes, where the driver says.
    pub memory_bytes: Option<u64>,
}

/// A critical error that the driver has reported since the sample before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xid {
    /// UUID of the GPU; of the MIG instance where the driver blames one that is known.
    pub gpu: Arc<str>,
    /// NVIDIA's number of the error; 999 where the driver does not know it.
    pub number: u64,
}

/// A GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuIdentity {
    /// UUID as `nvidia-smi -L` writes it.
    pub uuid: Arc<str>,
    /// Model, or the instance's profile; empty where NVML has no name.
    pub name: String,
    /// NVML's index of the GPU, which is not CUDA's.
    pub index: u32,
    /// Where it is a MIG instance.
    pub mig: Option<Mig>,
}

/// Which instance of which GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mig {
    /// UUID of the GPU that is divided. Clocks, power, links and errors are its values, not the instance's.
    pub parent: Arc<str>,
    /// The GPU instance, where NVML says.
    pub gpu_instance: Option<u32>,
    /// The compute instance in it, where NVML says.
    pub compute_instance: Option<u32>,
}

/// All that one look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, in the caller's clock.
    pub at: TimeNs,
    /// Values.
    pub values: Vec<Value>,
    /// Processes on the GPUs.
    pub processes: Vec<GpuProcess>,
    /// Errors since the sample before.
    pub events: Vec<Xid>,
    /// What NVML did not say, and why: never a value of 0.
    pub absent: Vec<Absent>,
}

/// Gathers a sample.
#[derive(Debug)]
pub(crate) struct Gather<'t> {
    pub(crate) sample: Sample,
    totals: &'t mut Totals,
}

impl<'t> Gather<'t> {
    pub(crate) fn new(at: TimeNs, totals: &'t mut Totals) -> Self {
        Self { sample: Sample { at, ..Sample::default() }, totals }
    }

    /// Notes the value of this moment.
    pub(crate) fn value(&mut self, of: &Of, name: impl Into<Name>, value: u64) {
        let value = Value { of: of.clone(), name: name.into(), value, over_ns: 0 };
        self.sample.values.push(value);
    }

    /// Notes by how much `total` has grown since it was last seen, in units of `unit`. The first look yields nothing,
    /// and so does one that finds less than there was.
    pub(crate) fn growth(&mut self, of: &Of, name: impl Into<Name>, total: u64, unit: u64) {
        let name = name.into();
        if let Some((grown, over_ns)) = self.totals.growth(of, &name, total, self.sample.at) {
            let value = Value { of: of.clone(), name, value: grown.saturating_mul(unit), over_ns };
            self.sample.values.push(value);
        }
    }

    /// Notes that a value is not known.
    pub(crate) fn absent(&mut self, of: &Of, name: impl Into<Name>, why: impl Into<Why>) {
        self.sample.absent.push(Absent { of: of.clone(), name: name.into(), why: why.into() });
    }

    /// Notes the value of this moment, or why there is none.
    pub(crate) fn answer<W: Into<Why>>(
        &mut self,
        of: &Of,
        name: impl Into<Name>,
        answer: Result<impl Into<u64>, W>,
    ) {
        match answer {
            Ok(value) => self.value(of, name, value.into()),
            Err(why) => self.absent(of, name, why),
        }
    }

    /// Ends the sample: totals that were not seen in it are forgotten.
    pub(crate) fn finish(self) -> Sample {
        self.totals.end_round();
        self.sample
    }
}
