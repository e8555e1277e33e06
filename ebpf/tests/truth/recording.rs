//! Starts a child, records it, and gives what the child printed and what the probes said.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use stallscope_ebpf::object::{ObjectText, describe};
use stallscope_ebpf::{Event, Kernel, Session, Settings};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::wire::{Object, Preempt, Task, WaitRecord, wait};

/// The child's program, or why there is none.
pub(crate) fn program() -> Result<&'static PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref().map_err(Clone::clone)
}

fn build() -> Result<PathBuf, String> {
    let kernel = Kernel::detect();
    if !kernel.privileged {
        return Err("not permitted to load kernel probes".to_owned());
    }
    if !kernel.btf {
        return Err("the kernel does not describe its types".to_owned());
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/truth/child.c");
    // Each test is a process and builds it for itself: the last one to be ready leaves the file.
    let fresh = folder.join(format!("truth-child.{}", std::process::id()));
    let program = folder.join("truth-child");
    let built = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&fresh).arg(source).output();
    match built {
        Ok(output) if output.status.success() => {
            std::fs::rename(&fresh, &program).map_err(|error| error.to_string())?;
            Ok(program)
        }
        Ok(output) => panic!("the child does not compile: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Err(format!("no C compiler: {error}")),
    }
}

/// What came of a recording.
pub(crate) struct Recording {
    pub(crate) events: Vec<Event>,
    pub(crate) printed: String,
    pub(crate) losses: Vec<(LossCounter, u64)>,
    objects: HashMap<u64, Object>,
}

/// A process that waits for its line.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the child starts")
}

/// The child's program with these arguments.
pub(crate) fn child(arguments: &[&str]) -> Option<Command> {
    match program() {
        Ok(program) => {
            let mut command = Command::new(program);
            command.args(arguments);
            Some(command)
        }
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Records the child from before it begins until it has ended.
pub(crate) fn record(command: &mut Command) -> Recording {
    record_while(start(command), |_| {})
}

/// Likewise; `meanwhile` is called again and again.
pub(crate) fn record_while(child: Child, meanwhile: impl FnMut(&Child)) -> Recording {
    let pid = child.id();
    record_pids(child, &[pid], meanwhile)
}

pub(crate) fn record_pids(mut child: Child, pids: &[u32], mut meanwhile: impl FnMut(&Child)) -> Recording {
    let events = Rc::new(RefCell::new(Vec::new()));
    let mut session = Session::load(&Kernel::detect(), Settings::default()).expect("the probes load");
    let into = Rc::clone(&events);
    let reader = session
        .reader(move |event| into.borrow_mut().push(event.expect("every record is well formed")))
        .expect("the rings are mapped");
    session.attach(pids).expect("the probes attach");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"go\n").expect("the child listens");
    let limit = Instant::now() + Duration::from_secs(60);
    let mut totals_at = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        assert!(Instant::now() < limit, "the child does not end");
        meanwhile(&child);
        reader.poll(Duration::from_millis(2)).expect("the rings are read");
        if totals_at.elapsed() > Duration::from_millis(100) {
            session.report_totals().expect("totals are told");
            totals_at = Instant::now();
        }
    }
    session.detach().expect("the probes detach");
    reader.poll(Duration::ZERO).expect("the rings are read");
    drop(reader);
    let mut printed = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut printed).expect("text");
    let events = Rc::try_unwrap(events).expect("the reader is gone").into_inner();
    let objects = events.iter().filter_map(|event| match event {
        Event::Object(object) => Some((object.id, **object)),
        _ => None,
    });
    Recording { objects: objects.collect(), events, printed, losses: session.losses() }
}

impl Recording {
    /// The numbers of each printed line that begins with this word.
    pub(crate) fn said(&self, word: &str) -> Vec<Vec<u64>> {
        let lines = self.printed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let lines = lines.filter(|line| line.first() == Some(&word));
        lines.map(|line| line[1..].iter().map(|n| n.parse().expect("a number")).collect()).collect()
    }

    /// The first number of the only such line.
    pub(crate) fn one(&self, word: &str) -> u64 {
        let all = self.said(word);
        assert_eq!(all.len(), 1, "{word} in {}", self.printed);
        all[0][0]
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.events.iter().filter_map(|event| match event {
            Event::Task(task) => Some(task),
            _ => None,
        })
    }

    /// The number that records give to a followed thread.
    pub(crate) fn task(&self, tid: u64) -> u32 {
        let found = self.tasks().find(|task| u64::from(task.tid) == tid && task.head.task >> 31 == 0);
        found.unwrap_or_else(|| panic!("thread {tid} was not followed")).head.task
    }

    pub(crate) fn waits(&self, task: u32) -> Vec<&WaitRecord> {
        let waits = self.events.iter().filter_map(|event| match event {
            Event::Wait(wait) if wait.head.task == task => Some(wait),
            _ => None,
        });
        waits.collect()
    }

    /// The waits of a thread in one system call.
    pub(crate) fn waits_in(&self, task: u32, call: i32) -> Vec<&WaitRecord> {
        let waits = self.waits(task).into_iter();
        waits.filter(|w| u16::from(w.kind) == wait::WAIT_SYSCALL && w.call == call).collect()
    }

    /// Stretches of a thread that are said to be unknown: the kernel leaves out a switch now and then while others
    /// attach to the scheduler's events, which tests that run side by side do.
    pub(crate) fn lost(&self, task: u32) -> Vec<(u64, u64)> {
        let lost = self.events.iter().filter_map(|event| match event {
            Event::Loss(loss) if loss.head.task == task => {
                Some((loss.start_ns, loss.start_ns + loss.duration_ns))
            }
            _ => None,
        });
        lost.collect()
    }

    pub(crate) fn preempts(&self, task: u32) -> Vec<&Preempt> {
        let all = self.events.iter().filter_map(|event| match event {
            Event::Preempt(preempt) if preempt.head.task == task => Some(preempt),
            _ => None,
        });
        all.collect()
    }

    /// What an id stands for.
    pub(crate) fn object(&self, id: u64) -> ObjectText {
        describe(self.objects.get(&id).unwrap_or_else(|| panic!("object {id} was not named")))
    }

    /// Ids of the objects with this name.
    pub(crate) fn named(&self, text: &str) -> Vec<u64> {
        self.objects.values().filter(|o| describe(o).text == text).map(|o| o.id).collect()
    }
}

/// Nanoseconds that two stretches have in common.
pub(crate) fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

pub(crate) fn span(wait: &WaitRecord) -> (u64, u64) {
    (wait.start_ns, wait.start_ns + wait.duration_ns)
}

/// Sends a signal by name.
pub(crate) fn signal(name: &str, pid: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} to {pid}");
}
