//! What kernels and host calls are for: two tables of rules, as data.
//!
//! A kernel's name is the weakest evidence of what it is. What a trace's metadata says and what the launching thread was
//! doing come first (see [`op_class`]); the table of names decides the rest. What host threads wait for has a table of its
//! own in [`waits`], what the frames of a stack say one in [`frames`].

pub mod copies;
pub mod frames;
pub mod waits;

use std::sync::LazyLock;

use stallscope_schemas::record::{OpKind, op_flags};

/// What a device operation counts as in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpClass {
    /// A kernel that computes, and fills.
    Compute,
    /// A kernel of a collective or of point-to-point communication.
    Comm,
    /// A copy.
    Copy,
}

/// What a host call into CUDA or HIP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiClass {
    /// Puts one operation on a stream.
    Launch,
    /// Puts a whole graph of operations on a stream.
    GraphLaunch,
    /// Puts a copy or fill on a stream; may block the caller.
    Copy,
    /// Waits for the device.
    Sync,
    /// Work of the driver itself: allocation, module loading, graph instantiation.
    Driver,
    /// A short query or setting.
    Host,
    /// No rule names it.
    Unknown,
}

impl ApiClass {
    /// Whether an operation on the device may carry the call's correlation id.
    #[must_use]
    pub fn may_launch(self) -> bool {
        matches!(self, Self::Launch | Self::GraphLaunch | Self::Copy | Self::Unknown)
    }
}

#[derive(Clone, Copy, Debug)]
enum Match {
    Exact,
    Prefix,
    Contains,
}

#[derive(Debug)]
struct Rule<C> {
    how: Match,
    pattern: String,
    class: C,
    note: String,
}

impl<C> Rule<C> {
    fn matches(&self, lower: &str) -> bool {
        match self.how {
            Match::Exact => lower == self.pattern,
            Match::Prefix => lower.starts_with(&self.pattern),
            Match::Contains => lower.contains(&self.pattern),
        }
    }
}

/// Parses a table; lines that are not rules are skipped here and refused by a test.
fn rules<C>(table: &str, class: impl Fn(&str) -> Option<C>) -> Vec<Rule<C>> {
    table.lines().filter_map(|line| rule(line, &class)).collect()
}

fn rule<C>(line: &str, class: impl Fn(&str) -> Option<C>) -> Option<Rule<C>> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut fields = line.split('\t');
    let how = match fields.next()? {
        "exact" => Match::Exact,
        "prefix" => Match::Prefix,
        "contains" => Match::Contains,
        _ => return None,
    };
    let pattern = fields.next()?.to_ascii_lowercase();
    let class = class(fields.next()?)?;
    Some(Rule { how, pattern, class, note: fields.next().unwrap_or_default().to_owned() })
}

const KERNELS: &str = include_str!("kernels.tsv");
const API_CALLS: &str = include_str!("api_calls.tsv");

fn kernel_class_named(name: &str) -> Option<OpClass> {
    match name {
        "comm" => Some(OpClass::Comm),
        "compute" => Some(OpClass::Compute),
        _ => None,
    }
}

fn api_class_named(name: &str) -> Option<ApiClass> {
    match name {
        "launch" => Some(ApiClass::Launch),
        "graph-launch" => Some(ApiClass::GraphLaunch),
        "copy" => Some(ApiClass::Copy),
        "sync" => Some(ApiClass::Sync),
        "driver" => Some(ApiClass::Driver),
        "host" => Some(ApiClass::Host),
        _ => None,
    }
}

static KERNEL_RULES: LazyLock<Vec<Rule<OpClass>>> = LazyLock::new(|| rules(KERNELS, kernel_class_named));
static API_RULES: LazyLock<Vec<Rule<ApiClass>>> = LazyLock::new(|| rules(API_CALLS, api_class_named));

/// The class of a kernel by its name alone.
#[must_use]
pub fn kernel_class(name: &str) -> OpClass {
    let lower = name.to_ascii_lowercase();
    KERNEL_RULES.iter().find(|r| r.matches(&lower)).map_or(OpClass::Compute, |r| r.class)
}

/// The communication library whose kernel this is, by its name.
#[must_use]
pub fn communication_library(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    KERNEL_RULES
        .iter()
        .find(|r| r.matches(&lower))
        .filter(|r| r.class == OpClass::Comm)
        .map(|r| r.note.as_str())
}

/// The class of an operation: its kind, then the trace's metadata, then the launching range, then the kernel's name.
///
/// Copies stay copies even inside a collective: the ledger tells a copy engine's work from a kernel's.
#[must_use]
pub fn op_class(kind: OpKind, flags: u64, name_class: OpClass) -> OpClass {
    match kind {
        OpKind::Memcpy => OpClass::Copy,
        OpKind::Memset => OpClass::Compute,
        OpKind::Kernel | OpKind::Other => {
            if flags & (op_flags::COLLECTIVE_METADATA | op_flags::COLLECTIVE_CORRELATED) != 0 {
                OpClass::Comm
            } else {
                name_class
            }
        }
    }
}

/// The class of a host call by its name.
#[must_use]
pub fn api_class(name: &str) -> ApiClass {
    let lower = base_api_name(name).to_ascii_lowercase();
    API_RULES.iter().find(|r| r.matches(&lower)).map_or(ApiClass::Unknown, |r| r.class)
}

/// A call's name without vendor prefix and version suffix: `cuMemcpyHtoDAsync_v2` → `MemcpyHtoDAsync`.
fn base_api_name(name: &str) -> &str {
    let name = ["cuda", "hip", "cu"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    let mut name = name;
    for suffix in ["_ptsz", "_ptds", "_spt"] {
        name = name.strip_suffix(suffix).unwrap_or(name);
    }
    match name.rsplit_once("_v") {
        Some((base, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => name,
    }
}

/// Whether a host range belongs to a collective library: what it launches communicates.
#[must_use]
pub fn is_collective_range(name: &str) -> bool {
    name.starts_with("nccl:")
        || name.starts_with("c10d::")
        || name == "record_param_comms"
        || (name.starts_with("nccl") && name[4..].starts_with(|c: char| c.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::{
        API_CALLS, ApiClass, KERNELS, OpClass, api_class, api_class_named, is_collective_range, kernel_class,
        kernel_class_named, rule,
    };

    #[test]
    fn every_line_of_the_tables_is_a_rule_or_a_comment() {
        for line in KERNELS.lines().filter(|l| !l.starts_with('#')) {
            assert!(rule(line, kernel_class_named).is_some(), "{line:?}");
        }
        for line in API_CALLS.lines().filter(|l| !l.starts_with('#')) {
            assert!(rule(line, api_class_named).is_some(), "{line:?}");
        }
    }

    #[test]
    fn calls_of_cuda_and_hip_are_classified_across_versions() {
        for (name, class) in [
            ("cudaLaunchKernel", ApiClass::Launch),
            ("cudaLaunchKernel_v7000", ApiClass::Launch),
            ("cuLaunchKernelEx", ApiClass::Launch),
            ("hipExtModuleLaunchKernel", ApiClass::Launch),
            ("cudaGraphLaunch_v10000", ApiClass::GraphLaunch),
            ("cudaMemcpyAsync_v3020", ApiClass::Copy),
            ("cuMemcpyHtoDAsync_v2", ApiClass::Copy),
            ("hipMemcpyWithStream", ApiClass::Copy),
            ("cudaStreamSynchronize", ApiClass::Sync),
            ("hipDeviceSynchronize", ApiClass::Sync),
            ("cuMemAlloc_v2", ApiClass::Driver),
            ("cudaMalloc", ApiClass::Driver),
            ("cuModuleLoadData", ApiClass::Driver),
            ("cudaStreamWaitEvent_v3020", ApiClass::Host),
            ("cudaEventQuery", ApiClass::Host),
            ("somethingNew", ApiClass::Unknown),
        ] {
            assert_eq!(api_class(name), class, "{name}");
        }
    }

    #[test]
    fn kernels_of_several_libraries_communicate() {
        for name in [
            "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
            "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long)",
            "ncclDevFunc_AllGather",
            "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>",
            "void deep_ep::internode::dispatch<true>",
            "nvshmemi_barrier_kernel",
        ] {
            assert_eq!(kernel_class(name), OpClass::Comm, "{name}");
        }
        assert_eq!(kernel_class("void at::native::reduce_kernel<512, 1>"), OpClass::Compute);
        assert_eq!(kernel_class("ampere_bf16_s16816gemm"), OpClass::Compute);
    }

    #[test]
    fn collective_ranges_are_told_from_others() {
        assert!(is_collective_range("nccl:all_reduce"));
        assert!(is_collective_range("ncclAllReduce"));
        assert!(is_collective_range("record_param_comms"));
        assert!(!is_collective_range("aten::add"));
        assert!(!is_collective_range("ncclient"));
    }
}
