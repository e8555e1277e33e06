//! Python interpreters in the followed processes: found once they have started, told to the kernel half.

use std::collections::BTreeMap;

use stallscope_ebpf::Session;
use stallscope_ebpf::python::{self, NotPython};
use stallscope_jobs::Door;

/// Those that are walked, and those that cannot be.
#[derive(Debug, Default)]
pub(crate) struct Interpreters {
    /// Still starting: asked again.
    waiting: Vec<u32>,
    /// Those whose frames cannot be walked, and why.
    refused: BTreeMap<String, Vec<u32>>,
}

impl Interpreters {
    pub(crate) fn look(&mut self, session: &Session, door: &mut Door, pids: impl Iterator<Item = u32>) {
        let all: Vec<u32> = std::mem::take(&mut self.waiting).into_iter().chain(pids).collect();
        for pid in all {
            if !door.answers(pid) {
                self.waiting.push(pid);
                continue;
            }
            match python::detect(pid) {
                Ok(found) => {
                    if let Err(error) = session.set_python(pid, &found) {
                        self.refused.entry(error.to_string()).or_default().push(pid);
                    }
                }
                Err(NotPython::NotRunning) => self.waiting.push(pid),
                Err(error) if error.is_loss() => self.refused.entry(error.to_string()).or_default().push(pid),
                Err(_) => {}
            }
        }
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.refused.iter().map(|(why, pids)| {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("no Python frames of pid {}: {why}", pids.join(", "))
        })
    }
}
