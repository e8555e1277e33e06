//! What is to be known of a machine before a number from it means anything.
//!
//! Each question has its own time limit; what cannot be found out stays empty and is shown so.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limit::printed;

/// Where a Python with PyTorch may be, in this order.
const PYTHONS: [&str; 7] = [
    "python3",
    "python",
    "/opt/conda/bin/python3",
    "/opt/venv/bin/python3",
    "/venv/bin/python3",
    "/usr/local/bin/python3",
    "/usr/bin/python3",
];
/// Only the double's libraries hold this text.
const MARK_OF_THE_DOUBLE: &[u8] = b"STALLSCOPE_DOUBLE";

/// What was found out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// When, UTC.
    pub date: String,
    /// Version of this program.
    pub version: String,
    /// What the work program says of the driver and the device; empty without a GPU.
    pub driver: BTreeMap<String, String>,
    /// The driver is the double: nothing here is a GPU's.
    pub double: bool,
    /// One line of nvidia-smi.
    pub nvidia_smi: String,
    /// The first line of /proc/driver/nvidia/version.
    pub driver_version: String,
    /// Python that runs the jobs.
    pub python: String,
    /// What it says of itself.
    pub python_says: Value,
    /// Copies of CUPTI that were found.
    pub cuptis: Vec<PathBuf>,
    /// A copy of the runtime, for jobs that would not load one.
    pub cudart: Option<PathBuf>,
    /// Kernel.
    pub kernel: String,
    /// Processor.
    pub processor: String,
    /// How many.
    pub processors: usize,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// Effective user.
    pub uid: String,
    /// Effective capabilities, as the kernel writes them.
    pub capabilities: String,
    /// kernel.yama.ptrace_scope.
    pub ptrace_scope: String,
    /// `stallscope doctor --json`.
    pub doctor: Value,
}

impl Facts {
    /// Asks everything. `pack` has the programs, `scratch` is for their output.
    #[must_use]
    pub fn gather(pack: &Path, scratch: &Path, python: Option<&str>) -> Self {
        let out = scratch.join("facts.out");
        let ask = |command: Command, seconds| printed(command, &out, Duration::from_secs(seconds));
        let mut facts = Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver_version: first_line("/proc/driver/nvidia/version"),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_kib: number(&field("/proc/meminfo", "MemTotal")),
            uid: field("/proc/self/status", "Uid").split_whitespace().nth(1).unwrap_or("").to_owned(),
            capabilities: field("/proc/self/status", "CapEff"),
            ptrace_scope: first_line("/proc/sys/kernel/yama/ptrace_scope"),
            ..Self::default()
        };
        let mut work = Command::new(pack.join("jobs/gpu_work"));
        work.arg("mode=facts");
        facts.driver = pairs(&ask(work, 15).unwrap_or_default());
        facts.double = facts.driver.get("libcuda").is_some_and(|path| is_double(Path::new(path)));
        let mut smi = Command::new("nvidia-smi");
        smi.args(["--query-gpu=name,driver_version,memory.total,mig.mode.current,compute_mode,clocks.sm"]);
        smi.arg("--format=csv,noheader");
        facts.nvidia_smi = ask(smi, 8).unwrap_or_default().trim().replace('\n', "; ");
        let mut doctor = Command::new(pack.join("stallscope"));
        doctor.args(["doctor", "--json"]);
        // Its exit code says whether recording works, its output why not.
        let _ = super::limit::run(doctor, &out, Duration::from_secs(10), &mut || {});
        facts.doctor = fs::read(&out).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        let script = pack.join("jobs/gpu_facts.py");
        let pythons: Vec<&str> = python.map_or_else(|| PYTHONS.to_vec(), |one| vec![one]);
        let mut quick: Vec<(&str, Value)> = Vec::new();
        for python in pythons {
            let mut command = Command::new(python);
            command.arg(&script).arg("quick");
            let said = ask(command, 5).and_then(|text| serde_json::from_str(&text).ok());
            quick.extend(said.map(|said| (python, said)));
        }
        let with_torch = quick.iter().position(|(_, said)| !said["torch"].is_null());
        if !quick.is_empty() {
            let (python, said) = quick.swap_remove(with_torch.unwrap_or(0));
            let mut command = Command::new(python);
            command.arg(&script);
            python.clone_into(&mut facts.python);
            // PyTorch is not used on the double, and loading it takes seconds.
            let ask = |command| if facts.double { None } else { ask(command, 30) };
            facts.python_says =
                ask(command).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(said);
        }
        facts.look_for_libraries();
        facts
    }

    fn look_for_libraries(&mut self) {
        let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default();
        folders.extend(self.python_libraries());
        for toolkit in entries(Path::new("/usr/local"), "cuda") {
            folders.push(toolkit.join("lib64"));
            folders.push(toolkit.join("extras/CUPTI/lib64"));
        }
        folders.push("/usr/lib/x86_64-linux-gnu".into());
        let all = |begin| {
            let found = folders.iter().flat_map(|folder| entries(folder, begin));
            // Links to one file are one file.
            let mut found: Vec<PathBuf> = found.filter_map(|path| path.canonicalize().ok()).collect();
            let mut seen = std::collections::BTreeSet::new();
            found.retain(|path| seen.insert(path.clone()));
            found
        };
        self.cuptis = all("libcupti.so");
        self.cudart = all("libcudart.so").into_iter().next();
    }

    /// Folders of NVIDIA's libraries in Python's packages.
    #[must_use]
    pub fn python_libraries(&self) -> Vec<PathBuf> {
        let folders = self.python_says["libraries"].as_array();
        folders.into_iter().flatten().filter_map(|f| f.as_str().map(PathBuf::from)).collect()
    }

    /// Whether there is a device to run on, the double's included.
    #[must_use]
    pub fn has_device(&self) -> bool {
        !self.driver.is_empty()
    }

    /// Why PyTorch cannot be used, if so.
    #[must_use]
    pub fn without_torch(&self) -> Option<String> {
        let says = &self.python_says;
        if self.double {
            // PyTorch needs more of CUDA than the double has.
            return Some("no torch with CUDA: the driver is the double".to_owned());
        }
        if self.python.is_empty() {
            return Some("no torch with CUDA: there is no python3".to_owned());
        }
        if says["cuda_available"] == true {
            return None;
        }
        Some(match (&says["torch"], &says["torch_error"]) {
            (Value::Null, _) => format!("no torch with CUDA: {} has no torch", self.python),
            (_, Value::String(error)) => format!("no torch with CUDA: it does not load: {error}"),
            (version, _) => format!("no torch with CUDA: torch {version} says that CUDA is not available"),
        })
    }

    /// Why `stallscope record` cannot be used, if so: then the agent alone is.
    #[must_use]
    pub fn without_recording(&self) -> Option<String> {
        match self.doctor["recording"].as_str() {
            Some("works" | "degraded") => None,
            Some(_) => Some(format!("recording does not work here: {}", text(&self.doctor["summary"]))),
            None => Some("stallscope doctor did not answer".to_owned()),
        }
    }

    /// For the report.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let driver = |key| self.driver.get(key).cloned().unwrap_or_default();
        let says = |key: &str| text(&self.python_says[key]);
        let list =
            |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        vec![
            ("date", self.date.clone()),
            ("stallscope", self.version.clone()),
            ("GPU", driver("device")),
            ("compute capability", driver("compute_capability")),
            ("memory of the GPU, bytes", driver("total_bytes")),
            ("CUDA of the driver", driver("cuda_version")),
            ("libcuda", driver("libcuda")),
            ("driver", self.driver_version.clone()),
            ("nvidia-smi", self.nvidia_smi.clone()),
            ("copies of CUPTI", list(&self.cuptis)),
            ("CUDA runtime", list(self.cudart.as_slice())),
            ("Python", format!("{} ({})", self.python, says("python"))),
            ("torch", format!("{} (CUDA {})", says("torch"), says("torch_cuda"))),
            ("NCCL of torch", says("nccl")),
            ("kernel", self.kernel.clone()),
            ("processors", format!("{} × {}", self.processors, self.processor)),
            ("memory, KiB", self.memory_kib.to_string()),
            ("user, capabilities", format!("{}, {}", self.uid, self.capabilities)),
            ("kernel.yama.ptrace_scope", self.ptrace_scope.clone()),
            ("recording", format!("{}: {}", text(&self.doctor["recording"]), text(&self.doctor["summary"]))),
        ]
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("").trim().to_owned()
}

/// The value behind `key:` in a file of such lines.
fn field(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    value.unwrap_or("").trim().to_owned()
}

fn number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Lines of a key, a space, a value.
fn pairs(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn entries(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let matches = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(begin))
    };
    let mut found: Vec<PathBuf> = all.filter(matches).collect();
    found.sort();
    found
}

/// Whether a library is a stand-in.
fn is_double(library: &Path) -> bool {
    let bytes = fs::read(library).unwrap_or_default();
    bytes.windows(MARK_OF_THE_DOUBLE.len()).any(|window| window == MARK_OF_THE_DOUBLE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Facts, is_double, pairs};

    #[test]
    fn why_torch_is_missing_is_said_by_name() {
        let facts =
            |python: &str, says| Facts { python: python.into(), python_says: says, ..Facts::default() };
        let why = |f: &Facts| f.without_torch().unwrap_or_default();
        assert!(why(&facts("", json!(null))).ends_with("there is no python3"));
        assert!(why(&facts("python3", json!({"torch": null}))).ends_with("python3 has no torch"));
        assert!(why(&facts("p", json!({"torch": "2.1", "cuda_available": false}))).contains("not available"));
        assert!(why(&facts("p", json!({"torch": "there", "torch_error": "no lib"}))).ends_with("no lib"));
        assert_eq!(facts("p", json!({"torch": "2.1", "cuda_available": true})).without_torch(), None);
    }

    #[test]
    fn stand_ins_are_told_from_drivers_by_what_they_hold() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (one, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&one, b"\x7fELF..STALLSCOPE_DOUBLE_FILE..")?;
        std::fs::write(&other, b"\x7fELF..cuInit..")?;
        assert!(is_double(&one) && !is_double(&other) && !is_double(&folder.path().join("c")));
        Ok(())
    }

    #[test]
    fn values_may_have_spaces() {
        assert_eq!(pairs("device NVIDIA H100 80GB\nx\n")["device"], "NVIDIA H100 80GB");
    }
}
