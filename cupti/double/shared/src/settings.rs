//! What a test wants of the stand-ins: `key = value` pairs from the environment and from a file.
//!
//! `STALLSCOPE_DOUBLE` holds pairs separated by `;`. `STALLSCOPE_DOUBLE_FILE` names a file with a pair a line (`#`
//! begins a comment); it wins over the environment and is read again when it changes, so a test can change a running
//! job. A key that no stand-in knows ends the process at start: a fault that was misspelt would be a fault that was
//! never injected.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use crate::sys;

/// Every key with its unit and meaning. A `*` stands for one part between dots, or for all that follows at the end.
pub const KEYS: &[(&str, &str)] = &[
    ("gpus", "number of GPUs of the machine; default 1"),
    ("gpu.name", "name of every GPU"),
    ("gpu.memory_mib", "memory of every GPU, MiB"),
    ("gpu.slow", "factor on every kernel's duration"),
    ("gpu.*.slow", "factor on kernels' durations on one GPU (index on the machine)"),
    ("gpu.*.mig", "number of MIG instances that a GPU is divided into; default 0"),
    ("kernel.default_ns", "duration of a kernel whose launch names none"),
    ("kernel.ns.*", "duration of the kernels of one name, whatever their launch says"),
    ("kernel.hang.*", "a kernel of this name never ends from its N-th launch on (1 is the first)"),
    ("kernel.latency_ns", "from the entry of a launch to the earliest start on an idle device"),
    ("kernel.gap_ns", "from the end of an operation to the start of the next in its stream"),
    ("graph.gap_ns", "the same inside a graph"),
    ("queue.depth", "operations that a stream holds before a launch blocks"),
    ("copy.pinned_gbps", "bandwidth of copies from and to pinned memory, GB/s"),
    ("copy.pageable_gbps", "bandwidth of copies from and to pageable memory, GB/s"),
    ("copy.device_gbps", "bandwidth of copies and memsets within the device, GB/s"),
    ("copy.latency_ns", "duration of a copy of no bytes"),
    ("alloc.ns", "how long cuMemAlloc holds its caller"),
    ("alloc.syncs", "1: cuMemAlloc also waits for the device"),
    ("free.syncs", "0: cuMemFree does not wait for the device"),
    ("pin.ns", "how long cuMemHostAlloc holds its caller"),
    ("sync.spins", "1: waits for the device burn CPU time, as CUDA's default does"),
    ("cuda.version", "what cuDriverGetVersion says, e.g. 12080"),
    ("cudart.nested", "1: driver calls made by the runtime are reported too"),
    ("nccl.version", "what ncclGetVersion says, e.g. 22703"),
    ("nccl.address", "address on which ranks meet; default 127.0.0.1"),
    ("nccl.gbps", "bandwidth between ranks, GB/s"),
    ("nccl.latency_ns", "transfer time of a collective of no bytes"),
    ("nccl.memory", "0: ranks tell each other by TCP alone, as those of several machines do"),
    ("nccl.slow", "factor on transfer times; the largest of the ranks counts"),
    ("cupti.version", "11.8, 12.4, 12.8, 13.0 or 13.3; default: that of the folder"),
    ("cupti.clock", "realtime, monotonic, fast (REALTIME at a rate of 1.0001) or jumpy (+-1 ms at random)"),
    ("cupti.device_skew_ns", "added to device times, as an error of CUPTI's clock conversion would be"),
    (
        "cupti.device_drift_ppm",
        "what device times gain, parts in a million, from when they are first asked for",
    ),
    ("cupti.call_ns", "host time that each CUDA call takes more while CUPTI is attached"),
    ("cupti.taken", "1: somebody else holds the subscriber"),
    ("cupti.absent", "1: calls fail as they do where there is no driver"),
    ("cupti.forced", "end0 (default) or skip: what a forced flush does with a kernel that runs"),
    ("fault.end_zero", "N: each N-th device record has end = 0"),
    ("fault.end_before_start", "N: each N-th device record ends before it starts"),
    ("fault.drop", "N: each N-th device record is dropped and counted"),
    ("fault.drop_uncounted", "N: each N-th device record is dropped and not counted"),
    ("fault.code.*", "CUPTI function by name: it returns this code and does nothing"),
    ("fault.delay_ms.*", "CUPTI function by name: it takes so much longer"),
    ("nvml.*", "see docs/double.md"),
];

/// The pairs, later ones winning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pairs: BTreeMap<String, String>,
}

impl Settings {
    /// Read pairs from texts; later texts win.
    ///
    /// # Errors
    /// A line without `=`, or a key that is not in [`KEYS`].
    pub fn parse(texts: &[&str]) -> Result<Self, String> {
        let mut pairs = BTreeMap::new();
        for line in texts.iter().flat_map(|t| t.split(['\n', ';'])) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| format!("no '=' in \"{line}\""))?;
            let key = key.trim();
            if !KEYS.iter().any(|(pattern, _)| matches(pattern, key)) {
                return Err(format!("unknown key \"{key}\""));
            }
            pairs.insert(key.to_owned(), value.trim().to_owned());
        }
        Ok(Self { pairs })
    }

    /// The text of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// The number of a key; `otherwise` where it is absent or no number.
    #[must_use]
    pub fn number<N: FromStr>(&self, key: &str, otherwise: N) -> N {
        self.get(key).and_then(|v| v.parse().ok()).unwrap_or(otherwise)
    }

    /// Is the key 1?
    #[must_use]
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }

    /// All pairs whose key begins with `prefix`, which is cut off.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let from = self.pairs.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map_while(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())))
    }

    /// One line with everything, for the truth log.
    #[must_use]
    pub fn line(&self) -> String {
        self.pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(";")
    }
}

fn matches(pattern: &str, key: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return key.len() > prefix.len() && key.starts_with(prefix);
    }
    let (mut wanted, mut parts) = (pattern.split('.'), key.split('.'));
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some(w), Some(p)) if w == "*" || w == p => {}
            _ => return false,
        }
    }
}

/// The file is looked at this often at most.
const LOOK_EVERY_NS: u64 = 5_000_000;

struct Live {
    settings: RwLock<Option<Arc<Settings>>>,
    looked_ns: AtomicU64,
    changed: Mutex<Option<SystemTime>>,
}

static LIVE: Live =
    Live { settings: RwLock::new(None), looked_ns: AtomicU64::new(0), changed: Mutex::new(None) };

/// Look at the file if that is due. Cheap if it is not: callers on hot paths do this and keep what they derived from the
/// settings until [`generation`] changes.
pub fn keep_fresh(now_ns: u64) {
    let looked_ns = LIVE.looked_ns.load(Ordering::Relaxed);
    if looked_ns == 0 || now_ns.saturating_sub(looked_ns) >= LOOK_EVERY_NS {
        look(now_ns);
    }
}

/// The settings as they are at `now_ns` (CLOCK_MONOTONIC).
pub fn current(now_ns: u64) -> Arc<Settings> {
    keep_fresh(now_ns);
    let known = LIVE.settings.read().ok().and_then(|s| s.clone());
    known.unwrap_or_else(|| look(now_ns))
}

/// A number that changes when the settings do.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Is any fault asked for?
pub fn has_faults() -> bool {
    HAS_FAULTS.load(Ordering::Acquire)
}

static GENERATION: AtomicU64 = AtomicU64::new(0);
static HAS_FAULTS: AtomicBool = AtomicBool::new(false);

/// Read the settings anew if the file has changed.
///
/// # Panics
/// Ends the process where the settings make no sense at start.
fn look(now_ns: u64) -> Arc<Settings> {
    let mut changed = LIVE.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    LIVE.looked_ns.store(now_ns, Ordering::Relaxed);
    let path = std::env::var_os("STALLSCOPE_DOUBLE_FILE");
    let modified = path.as_ref().and_then(|p| std::fs::metadata(p).ok()?.modified().ok());
    let known = LIVE.settings.read().ok().and_then(|s| s.clone());
    if let Some(settings) = &known
        && *changed == modified
    {
        return Arc::clone(settings);
    }
    *changed = modified;
    let environment = std::env::var("STALLSCOPE_DOUBLE").unwrap_or_default();
    let file = path.and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default();
    let settings = match (Settings::parse(&[&environment, &file]), known) {
        (Ok(settings), _) => Arc::new(settings),
        // The file may be half written: what was true stays true until it makes sense again.
        (Err(error), Some(known)) => {
            eprintln!("stallscope double: {error}; the settings stay as they were");
            known
        }
        (Err(error), None) => {
            eprintln!("stallscope double: {error}");
            std::process::abort();
        }
    };
    HAS_FAULTS.store(settings.under("fault.").next().is_some(), Ordering::Release);
    if let Ok(mut slot) = LIVE.settings.write() {
        *slot = Some(Arc::clone(&settings));
    }
    GENERATION.fetch_add(1, Ordering::Release);
    settings
}

/// The settings now.
#[must_use]
pub fn now() -> Arc<Settings> {
    current(sys::monotonic_ns())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_texts_win_and_comments_are_left_out() {
        let settings = Settings::parse(&["gpus=2; gpu.slow = 1.5", "gpus = 4 # four\n\n# none\n"]).unwrap();
        assert_eq!(settings.number("gpus", 1), 4);
        assert!((settings.number("gpu.slow", 1.0) - 1.5_f64).abs() < 1e-9);
        assert_eq!(settings.line(), "gpu.slow=1.5;gpus=4");
    }

    #[test]
    fn the_manual_has_every_key() {
        let manual = include_str!("../../../../docs/double.md");
        for (key, meaning) in KEYS.iter().filter(|(key, _)| *key != "nvml.*") {
            assert!(manual.contains(&format!("| `{key}` | {meaning} |")), "{key}");
        }
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(Settings::parse(&["gpu.1.slow=2"]).is_ok());
        assert!(Settings::parse(&["gpu.1.slwo=2"]).is_err());
        assert!(Settings::parse(&["kernel.ns.forward=2;kernel.ns.a.b=3"]).is_ok());
        assert!(Settings::parse(&["kernel.ns.=2"]).is_err());
        assert!(Settings::parse(&["gpus"]).is_err());
    }
}
