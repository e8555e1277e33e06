//! Names from the running processes: symbols of their files, code objects of their interpreters, the host's devices.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use stallscope_ebpf::event::StackFrames;
use stallscope_ebpf::object::{ObjectText, describe};
use stallscope_ebpf::probes::collectives::{Decoded, Decoder, ProcessHandles};
use stallscope_ebpf::python::{CodeReader, PythonFrame as Code};
use stallscope_jobs::Door;
use stallscope_schemas::wire::{self, stack_flag};
use stallscope_symbols::{Limits, Missing, NativeFrame, PythonFrame, Symbolizer, looks_cut, merge};

use crate::assemble::{NamedStack, Naming};
use crate::run::PATIENCE;

/// How long a process's files are kept after its end: its last stacks come out of the rings within two looks at them.
const LINGER: Duration = Duration::from_secs(3);
/// No process has this pid: its frames have no names.
const NOBODY: u32 = 0;
/// How long it is believed that a process answers: many stacks of one process come together.
const BELIEVED: Duration = Duration::from_millis(50);

/// Looks names up in processes, files and tables.
pub(crate) struct Names {
    symbolizer: Symbolizer,
    code: CodeReader,
    calls: Decoder,
    gone: Vec<(Instant, u32)>,
    door: Door,
    /// Processes that did not answer when they were to be looked at.
    unseen: HashSet<u32>,
    /// When a process was last found to answer, or not to.
    answered: HashMap<u32, (Instant, bool)>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            symbolizer: Symbolizer::new(Limits::default()),
            code: CodeReader::new(),
            calls: Decoder::default(),
            gone: Vec::new(),
            door: Door::new("/proc".as_ref(), PATIENCE),
            unseen: HashSet::new(),
            answered: HashMap::new(),
        }
    }

    /// Whether looking at a process comes back. Of one that hangs in the kernel nothing new is named.
    fn answers(&mut self, pid: u32) -> bool {
        if let Some((_, answers)) = self.answered.get(&pid).filter(|(when, _)| when.elapsed() < BELIEVED) {
            return *answers;
        }
        let answers = self.door.answers(pid);
        self.answered.insert(pid, (Instant::now(), answers));
        answers
    }

    /// What a process's libraries call their predefined handles.
    pub(crate) fn learn(&mut self, handles: ProcessHandles) {
        self.calls.learn(handles);
    }

    /// A rank and the number of ranks, as its launcher told it.
    pub(crate) fn world(&mut self, pid: u32, rank: Option<u32>, size: Option<u32>) {
        if let (Some(rank), Some(size)) = (rank, size) {
            self.calls.world(pid, rank, size.into());
        }
    }
}

impl Naming for Names {
    fn process_seen(&mut self, pid: u32) {
        // A process that cannot be looked at has stacks without names, which are counted when they come.
        if self.answers(pid) {
            let _ = self.symbolizer.process_seen(pid);
        } else {
            self.unseen.insert(pid);
        }
    }

    fn process_name(&mut self, pid: u32) -> Option<String> {
        // This is answered by the kernel alone, whatever the process does.
        let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned();
        (!name.is_empty()).then_some(name)
    }

    fn process_changed(&mut self, pid: u32) {
        if self.answers(pid) {
            let _ = self.symbolizer.process_changed(pid);
        }
        self.code.forget(pid);
        self.calls.forget(pid);
    }

    fn process_gone(&mut self, pid: u32) {
        self.symbolizer.process_gone(pid);
        self.gone.push((Instant::now(), pid));
    }

    fn tidy(&mut self) {
        self.answered.retain(|_, (when, _)| when.elapsed() < BELIEVED);
        let (symbolizer, code, calls) = (&mut self.symbolizer, &mut self.code, &mut self.calls);
        let unseen = &mut self.unseen;
        self.gone.retain(|(when, pid)| {
            let keep = when.elapsed() < LINGER;
            if !keep {
                symbolizer.forget(*pid);
                code.forget(*pid);
                calls.forget(*pid);
                unseen.remove(pid);
            }
            keep
        });
    }

    fn stack(&mut self, pid: u32, user: Option<&StackFrames>, kernel: Option<&StackFrames>) -> NamedStack {
        let pid = if user.is_some() && self.answers(pid) { pid } else { NOBODY };
        if self.unseen.remove(&pid) {
            let _ = self.symbolizer.process_seen(pid);
        }
        let mut native = user.map_or_else(Vec::new, |s| self.symbolizer.user(pid, &s.native));
        // Code without frame pointers uses the register for something else: what it held is no address of code.
        while native.len() > 1 && native.last().is_some_and(|f| f.missing == Some(Missing::Mapping)) {
            native.pop();
        }
        // Beneath Python frames the native ones only have to reach the interpreter.
        let is_cut = looks_cut(&native);
        // The agent's own site: the job has nothing to do with it.
        if user.is_some_and(|s| s.flags & stack_flag::STACK_LAUNCH != 0) && !native.is_empty() {
            native.remove(0);
        }
        let kernel = kernel.map_or_else(Vec::new, |s| self.symbolizer.kernel(&s.native));
        let codes: Vec<Option<Code>> = user
            .map_or(&[][..], |s| &s.python)
            .iter()
            .rev()
            .map(|&(code, offset)| self.code.resolve(pid, code, offset))
            .collect();
        let python: Vec<PythonFrame<'_>> = codes
            .iter()
            .map(|code| match code {
                Some(code) => PythonFrame { file: &code.file, line: code.line, function: &code.function },
                None => PythonFrame { file: "?", line: 0, function: "?" },
            })
            .collect();
        let missing = |frames: &[NativeFrame]| frames.iter().filter(|f| f.missing.is_some()).count();
        let unnamed = missing(&native) + missing(&kernel) + codes.iter().filter(|c| c.is_none()).count();
        let cut = user.is_some() && python.is_empty() && is_cut;
        NamedStack { frames: merge(&python, &native, &kernel), unnamed: unnamed as u64, cut }
    }

    fn object(&mut self, object: &wire::Object) -> ObjectText {
        describe(object)
    }

    /// `/sys/dev/block/254:0` is a link to a folder of the device's name.
    fn device(&mut self, number: u32) -> String {
        let number = stallscope_ebpf::object::device(number);
        let link = std::fs::read_link(format!("/sys/dev/block/{number}"));
        let name = link.ok().and_then(|l| Some(l.file_name()?.to_string_lossy().into_owned()));
        name.unwrap_or(number)
    }

    fn call(&mut self, pid: u32, call: &wire::Call) -> Decoded {
        self.calls.decode(pid, call)
    }
}
