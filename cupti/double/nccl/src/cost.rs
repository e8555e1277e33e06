//! Functions, data types, and how long moving the bytes takes.

use std::sync::{Mutex, PoisonError};

use stallscope_double_shared::settings::{self, Settings};
use stallscope_double_shared::sys;

/// What the settings say about transfers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    gbps: f64,
    latency_ns: u64,
    slow: f64,
}

impl Tuning {
    fn of(settings: &Settings) -> Self {
        Self {
            gbps: settings.number("nccl.gbps", 100.0),
            latency_ns: settings.number("nccl.latency_ns", 12_000),
            slow: settings.number("nccl.slow", 1.0),
        }
    }

    /// As the settings are now. They are read again only when they have changed: this is asked for with each collective.
    pub(crate) fn now() -> Self {
        static KNOWN: Mutex<Option<(u64, Tuning)>> = Mutex::new(None);
        let now_ns = sys::monotonic_ns();
        settings::keep_fresh(now_ns);
        let generation = settings::generation();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((of, tuning)) if of == generation => tuning,
            _ => known.insert((generation, Self::of(&settings::current(now_ns)))).1,
        }
    }
}

/// What a kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    AllReduce,
    AllGather,
    ReduceScatter,
    Broadcast,
    Reduce,
    SendRecv,
}

impl Function {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "AllReduce",
            Self::AllGather => "AllGather",
            Self::ReduceScatter => "ReduceScatter",
            Self::Broadcast => "Broadcast",
            Self::Reduce => "Reduce",
            Self::SendRecv => "SendRecv",
        }
    }

    /// The kernel's name as CUPTI has it: mangled, with the parameter of NCCL 2.22 and later.
    pub(crate) fn kernel(self, data: Data, reduction: u32) -> String {
        let name = match self {
            Self::SendRecv => "ncclDevKernel_SendRecv".to_owned(),
            // These move bytes and know no types.
            Self::AllGather | Self::Broadcast => format!("ncclDevKernel_{}_RING_LL", self.name()),
            _ => format!("ncclDevKernel_{}_{}_{}_RING_LL", self.name(), reduction_name(reduction), data.name),
        };
        format!("_Z{}{name}24ncclDevKernelArgsStorageILm4096EE", name.len())
    }

    /// Bytes that pass each rank's link, with the ring algorithm; `bytes` is what NCCL is told for one rank.
    fn wire_bytes(self, bytes: u64, world: u64) -> u64 {
        let others = world.saturating_sub(1);
        match self {
            Self::AllReduce => 2 * bytes * others / world.max(1),
            Self::AllGather | Self::ReduceScatter => bytes * others,
            Self::Broadcast | Self::Reduce | Self::SendRecv => bytes * others.min(1),
        }
    }

    /// Transfer time, and the part of it that `nccl.slow` adds.
    pub(crate) fn transfer_ns(self, bytes: u64, world: u32, tuning: Tuning) -> (u64, u64) {
        let Tuning { gbps, latency_ns, slow } = tuning;
        let plain_ns = latency_ns + scaled(self.wire_bytes(bytes, world.into()), 1.0 / gbps.max(1e-6));
        let slowed_ns = scaled(plain_ns, slow - 1.0);
        (plain_ns + slowed_ns, slowed_ns)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times and sizes are below 2^53"
)]
fn scaled(number: u64, factor: f64) -> u64 {
    (number as f64 * factor).max(0.0).round() as u64
}

/// A data type: bytes, and its name in kernels' names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data {
    pub(crate) bytes: u64,
    name: &'static str,
}

/// ncclDataType_t, by number.
pub(crate) fn data(number: u32) -> Option<Data> {
    let (bytes, name) = match number {
        0 => (1, "i8"),
        1 => (1, "u8"),
        2 => (4, "i32"),
        3 => (4, "u32"),
        4 => (8, "i64"),
        5 => (8, "u64"),
        6 => (2, "f16"),
        7 => (4, "f32"),
        8 => (8, "f64"),
        9 => (2, "bf16"),
        _ => return None,
    };
    Some(Data { bytes, name })
}

/// ncclRedOp_t, by number.
fn reduction_name(number: u32) -> &'static str {
    match number {
        0 => "Sum",
        1 => "Prod",
        2 | 3 => "MinMax",
        4 => "SumPostDiv",
        _ => "PreMulSum",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_all_reduce_sends_nearly_twice_its_bytes_over_each_link() {
        let settings = Settings::parse(&["nccl.gbps=1; nccl.latency_ns=100; nccl.slow=1.5"]).unwrap();
        assert_eq!(Function::AllReduce.transfer_ns(4_000, 4, Tuning::of(&settings)), (9_150, 3_050));
        let settings = Settings::parse(&["nccl.gbps=1; nccl.latency_ns=0"]).unwrap();
        assert_eq!(Function::AllGather.transfer_ns(1_000, 4, Tuning::of(&settings)), (3_000, 0));
        assert_eq!(Function::SendRecv.transfer_ns(1_000, 8, Tuning::of(&settings)), (1_000, 0));
        assert_eq!(Function::AllReduce.transfer_ns(4_000, 1, Tuning::of(&settings)), (0, 0));
    }

    #[test]
    fn kernels_have_nccls_names() {
        let name = Function::AllReduce.kernel(data(7).unwrap(), 0);
        assert_eq!(name, "_Z39ncclDevKernel_AllReduce_Sum_f32_RING_LL24ncclDevKernelArgsStorageILm4096EE");
        let name = Function::AllGather.kernel(data(6).unwrap(), 0);
        assert_eq!(name, "_Z31ncclDevKernel_AllGather_RING_LL24ncclDevKernelArgsStorageILm4096EE");
    }
}
