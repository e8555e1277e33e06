//! The settings that libcuda asks for on every call, as numbers.

use std::collections::BTreeMap;

use stallscope_double_shared::settings::Settings;

/// Settings of this library; `docs/double.md` lists them with their units.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    pub(crate) kernel_default_ns: u64,
    pub(crate) kernel_latency_ns: u64,
    pub(crate) kernel_gap_ns: u64,
    pub(crate) graph_gap_ns: u64,
    pub(crate) queue_depth: usize,
    pub(crate) pinned_gbps: f64,
    pub(crate) pageable_gbps: f64,
    pub(crate) device_gbps: f64,
    pub(crate) copy_latency_ns: u64,
    pub(crate) alloc_ns: u64,
    pub(crate) alloc_syncs: bool,
    pub(crate) free_syncs: bool,
    pub(crate) pin_ns: u64,
    pub(crate) spins: bool,
    pub(crate) nested: bool,
    pub(crate) call_ns: u64,
    pub(crate) memory_mib: u64,
    slow: f64,
    slow_by_gpu: BTreeMap<u32, f64>,
    kernel_ns: BTreeMap<String, u64>,
    hang: BTreeMap<String, u64>,
}

impl Tuning {
    pub(crate) fn of(settings: &Settings) -> Self {
        let by_name = |prefix: &'static str| {
            let pairs = settings.under(prefix).filter_map(|(k, v)| Some((k.to_owned(), v.parse().ok()?)));
            pairs.collect::<BTreeMap<String, u64>>()
        };
        let slow_by_gpu = settings
            .under("gpu.")
            .filter_map(|(k, v)| Some((k.strip_suffix(".slow")?.parse().ok()?, v.parse().ok()?)))
            .collect();
        Self {
            kernel_default_ns: settings.number("kernel.default_ns", 10_000),
            // Launch to start on an idle H100 is some 4 us, end to start within a stream about 1 us.
            kernel_latency_ns: settings.number("kernel.latency_ns", 4_000),
            kernel_gap_ns: settings.number("kernel.gap_ns", 1_000),
            graph_gap_ns: settings.number("graph.gap_ns", 500),
            queue_depth: settings.number("queue.depth", 1_024),
            pinned_gbps: settings.number("copy.pinned_gbps", 25.0),
            pageable_gbps: settings.number("copy.pageable_gbps", 6.0),
            device_gbps: settings.number("copy.device_gbps", 1_500.0),
            copy_latency_ns: settings.number("copy.latency_ns", 1_500),
            alloc_ns: settings.number("alloc.ns", 80_000),
            alloc_syncs: settings.is_on("alloc.syncs"),
            free_syncs: settings.get("free.syncs") != Some("0"),
            pin_ns: settings.number("pin.ns", 200_000),
            spins: settings.is_on("sync.spins"),
            nested: settings.is_on("cudart.nested"),
            call_ns: settings.number("cupti.call_ns", 0),
            memory_mib: settings.number("gpu.memory_mib", 81_920),
            slow: settings.number("gpu.slow", 1.0),
            slow_by_gpu,
            kernel_ns: by_name("kernel.ns."),
            hang: by_name("kernel.hang."),
        }
    }

    /// How long a kernel takes: what the settings say for its name, else what its launch says, else the default; and
    /// what a slow device adds to it.
    pub(crate) fn kernel(&self, name: &str, launch_ns: Option<u64>, gpu: u32) -> (u64, u64) {
        let plain_ns = self.kernel_ns.get(name).copied().or(launch_ns).unwrap_or(self.kernel_default_ns);
        let factor = self.slow * self.slow_by_gpu.get(&gpu).copied().unwrap_or(1.0);
        (plain_ns, scaled(plain_ns, factor - 1.0))
    }

    /// Does the `count`-th launch of a kernel of this name hang?
    pub(crate) fn hangs(&self, name: &str, count: impl FnOnce() -> u64) -> bool {
        self.hang.get(name).is_some_and(|from| count() >= *from)
    }

    /// How long a copy takes.
    pub(crate) fn copy_ns(&self, bytes: u64, gbps: f64) -> u64 {
        self.copy_latency_ns + scaled(bytes, 1.0 / gbps.max(1e-6))
    }
}

/// `number * factor`, rounded; 0 for negative factors.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "durations and sizes are below 2^53"
)]
fn scaled(number: u64, factor: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "durations and sizes are below 2^53")]
    let exact = number as f64 * factor;
    exact.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_of_a_name_wins_over_the_launch_and_a_slow_device_adds() {
        let settings = Settings::parse(&["kernel.ns.gemm=500; gpu.slow=1.5; gpu.1.slow=2"]).unwrap();
        let tuning = Tuning::of(&settings);
        assert_eq!(tuning.kernel("gemm", Some(7), 0), (500, 250));
        assert_eq!(tuning.kernel("gemm", None, 1), (500, 1_000));
        assert_eq!(tuning.kernel("relu", Some(8), 0), (8, 4));
    }

    #[test]
    fn a_copy_takes_its_latency_and_its_bytes() {
        let tuning = Tuning::of(&Settings::parse(&["copy.latency_ns=100; copy.pinned_gbps=4"]).unwrap());
        assert_eq!(tuning.copy_ns(4_000, tuning.pinned_gbps), 1_100);
    }
}
