//! Level 0 beside the probes: what the host and its GPUs say of themselves, once a second, on a thread of its own.
//!
//! A GPU that has fallen off its bus can hold a call of NVML for seconds, so nobody waits for the thread: it is told to
//! end, given a moment for its last look, and left behind where it does not come back.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use stallscope_counters::{Options, Sample, Sampler};
use stallscope_schemas::units::TimeNs;

use crate::clock::monotonic_ns;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long the last look may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// Looks that wait to be taken: the reader takes them twenty times a second.
const WAITING: usize = 8;

/// The thread that looks.
#[derive(Debug)]
pub(crate) struct Counters {
    looks: Receiver<Look>,
    /// Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    missing: Vec<String>,
}

/// One look, and what it could not see.
type Look = (Sample, Vec<String>);

impl Counters {
    /// Begins to look. None where the thread cannot be started: the recording does without.
    pub(crate) fn start(options: Options) -> Option<Self> {
        let (to, looks) = sync_channel(WAITING);
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("counters".to_owned());
        thread.spawn(move || look_until(&stopped, options, &to)).ok()?;
        Some(Self { looks, stop: Some(stop), missing: Vec::new() })
    }

    /// The looks since the last call.
    pub(crate) fn take(&mut self, out: &mut Vec<Sample>) {
        while let Ok(look) = self.looks.try_recv() {
            self.note(look, out);
        }
    }

    /// The last look. What was not seen, and why.
    pub(crate) fn finish(mut self, out: &mut Vec<Sample>) -> Vec<String> {
        self.stop = None;
        while let Ok(look) = self.looks.recv_timeout(PATIENCE) {
            self.note(look, out);
        }
        self.missing
    }

    fn note(&mut self, (sample, missing): Look, out: &mut Vec<Sample>) {
        out.push(sample);
        self.missing = missing;
    }
}

fn look_until(stopped: &Receiver<()>, options: Options, to: &SyncSender<Look>) {
    let mut sampler = Sampler::new(options);
    loop {
        let sample = sampler.sample(TimeNs(monotonic_ns()));
        // Where nobody takes them, this one is left out: growth is told from the one before, whenever that was.
        let _ = to.try_send((sample, sampler.missing()));
        match stopped.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    let sample = sampler.sample(TimeNs(monotonic_ns()));
    let _ = to.try_send((sample, sampler.missing()));
}

/// The cgroup of a process, as the second version of cgroups has it.
pub(crate) fn cgroup(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_at_once_and_once_more_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let pressure = folder.path().join("pressure");
        std::fs::create_dir(&pressure).unwrap();
        let tell = |total: u64| {
            for what in ["cpu", "memory", "io"] {
                let line = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
                std::fs::write(pressure.join(what), line).unwrap();
            }
        };
        tell(5);
        let options = Options {
            procfs: folder.path().to_owned(),
            sysfs: folder.path().join("sys"),
            cgroups: Vec::new(),
            nvml: None,
        };
        let mut counters = Counters::start(options).unwrap();
        let mut samples = Vec::new();
        while samples.is_empty() {
            counters.take(&mut samples);
            std::thread::yield_now();
        }
        assert_eq!(samples[0].values, [], "growth is told from the second look on");
        tell(12);
        counters.finish(&mut samples);
        let last = samples.last().unwrap();
        let cpu = last.values.iter().find(|value| value.name == "cpu pressure some (us)").unwrap();
        assert_eq!(cpu.value, 7);
        assert!(cpu.over_ns > 0);
    }

    #[test]
    fn a_process_has_a_cgroup_or_none() {
        assert!(cgroup(std::process::id()).is_none_or(|path| path.starts_with('/')));
        assert_eq!(cgroup(u32::MAX), None);
    }
}
