//! Programs that are built, run and recorded by the tests of collective calls.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use stallscope_ebpf::probes::collectives::{Decoded, DecodedCall, Decoder, Rescan};
use stallscope_ebpf::session::Reader;
use stallscope_ebpf::{Event, Kernel, ProbeId, Session, Settings};
use stallscope_schemas::loss::LossCounter;

const PATIENCE: Duration = Duration::from_secs(60);

/// Why a test cannot run here.
pub(crate) fn unable(tools: &[&str]) -> Option<String> {
    if !Kernel::detect().privileged {
        return Some("needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE)".to_owned());
    }
    let missing = tools.iter().find(|tool| Command::new(tool).arg("--version").output().is_err())?;
    Some(format!("{missing} is not installed"))
}

/// Skips a test with its reason.
#[macro_export]
macro_rules! needs {
    ($($tool:literal),*) => {
        if let Some(why) = collectives_support::unable(&[$($tool),*]) {
            println!("skipped: {why}");
            return;
        }
    };
}

/// A folder that is removed at the end.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Compiles a source into `name`: a library if that ends like one.
    pub(crate) fn build(&self, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
        let cpp = source.contains("namespace");
        let file = self.path(&format!("{name}.{}", if cpp { "cc" } else { "c" }));
        std::fs::write(&file, source).expect("the source is written");
        let out = self.path(name);
        let mut command = Command::new(if cpp { "g++" } else { "gcc" });
        command.args(["-O2", "-g0", "-pthread", "-w", "-o"]).arg(&out).arg(&file);
        if name.contains(".so") {
            command.args(["-shared", "-fPIC"]);
        }
        command.current_dir(self.0.path()).args(arguments);
        let done = command.output().expect("the compiler runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        out
    }
}

/// A program that says lines and waits for one.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(program).args(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, input, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn go(&mut self) {
        self.input.write_all(b"go\n").expect("it listens");
    }

    /// Lines up to this one, which is left out.
    pub(crate) fn until(&mut self, last: &str) -> Vec<String> {
        self.until_while(last, || {})
    }

    fn until_while(&mut self, last: &str, mut meanwhile: impl FnMut()) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while Instant::now() < end {
            meanwhile();
            match self.lines.recv_timeout(Duration::from_millis(10)) {
                Ok(line) if line == last => return lines,
                Ok(line) => lines.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("it ended ({:?}) after {lines:?}", self.child.wait())
                }
            }
        }
        panic!("it did not say {last}, but {lines:?}")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// It ends by itself, and well.
    pub(crate) fn end(mut self) {
        drop(self.input);
        let status = self.child.wait().expect("reaped");
        assert!(status.success(), "the program was harmed: {status}");
    }
}

/// A recording that goes on.
pub(crate) struct Live {
    session: Session,
    reader: Reader<'static>,
    events: Rc<RefCell<Vec<Event>>>,
    pub(crate) found: Rescan,
    /// How long the first look took.
    pub(crate) look: Duration,
}

/// What came of it.
pub(crate) struct Recorded {
    /// By process, in the order of their begins.
    pub(crate) calls: Vec<(u32, DecodedCall)>,
    pub(crate) found: Rescan,
    pub(crate) losses: HashMap<LossCounter, u64>,
}

impl Live {
    pub(crate) fn attach(pids: &[u32]) -> Self {
        Self::attach_as(&Kernel::detect(), pids)
    }

    pub(crate) fn attach_as(kernel: &Kernel, pids: &[u32]) -> Self {
        let settings = Settings { probes: vec![ProbeId::Sched, ProbeId::Collectives], ..Settings::default() };
        let mut session = Session::load(kernel, settings).expect("loaded");
        let events = Rc::new(RefCell::new(Vec::new()));
        let to = Rc::clone(&events);
        let reader =
            session.reader(move |event| to.borrow_mut().push(event.expect("a record"))).expect("a reader");
        session.attach(pids).expect("attached");
        let standing = session.standings().iter().find(|(id, _)| *id == ProbeId::Collectives);
        assert!(standing.is_some_and(|(_, standing)| standing.usable()), "{standing:?}");
        let mut live = Self { session, reader, events, found: Rescan::default(), look: Duration::ZERO };
        let begin = Instant::now();
        live.rescan(pids);
        live.look = begin.elapsed();
        live
    }

    /// As the recorder does every second.
    pub(crate) fn rescan(&mut self, pids: &[u32]) {
        let found = self.session.rescan_collectives(pids).expect("looked at");
        self.found.attached.extend(found.attached);
        self.found.notes.extend(found.notes);
        self.found.handles.extend(found.handles);
    }

    /// Lets a program go on until it says a line.
    pub(crate) fn run(&mut self, program: &mut Program, last: &str) -> Vec<String> {
        program.go();
        program.until_while(last, || self.reader.poll(Duration::ZERO).expect("read"))
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        self.reader.poll(Duration::ZERO).expect("read");
    }

    pub(crate) fn finish(mut self) -> Recorded {
        self.session.detach().expect("detached");
        self.reader.poll(Duration::ZERO).expect("read");
        let mut decoder = Decoder::default();
        for handles in &self.found.handles {
            decoder.learn(handles.clone());
        }
        // Each CPU's records are in order; between them it is not known which was first, until all are there.
        let (mut pids, mut records) = (HashMap::new(), Vec::new());
        for event in self.events.borrow().iter() {
            match event {
                Event::Task(task) => {
                    pids.insert(task.head.task, task.pid);
                }
                Event::Call(call) => records.push(call.clone()),
                _ => {}
            }
        }
        records.sort_by_key(|call| call.start_ns + call.duration_ns);
        let mut calls = Vec::new();
        for call in &records {
            let pid = pids.get(&call.head.task).copied().expect("a known thread");
            match decoder.decode(pid, call) {
                Decoded::Call(call) => calls.push((pid, *call)),
                Decoded::Learnt => {}
                Decoded::Unknown => panic!("not in the table: {call:?}"),
            }
        }
        calls.sort_by_key(|(pid, call)| (*pid, call.start_ns));
        Recorded { calls, found: self.found, losses: self.session.losses().into_iter().collect() }
    }
}

impl Recorded {
    /// The calls of one function.
    pub(crate) fn of(&self, name: &str) -> Vec<&DecodedCall> {
        self.calls.iter().map(|(_, call)| call).filter(|call| call.name == name).collect()
    }
}

/// Checks that calls lie where the program says: lines `name before after` in the order of the calls.
pub(crate) fn within(lines: &[String], calls: &[&DecodedCall], name: &str) {
    let truth: Vec<(u64, u64)> = lines
        .iter()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [of, before, after] = words[..] else { return None };
            (of == name).then(|| (before.parse().expect("a time"), after.parse().expect("a time")))
        })
        .collect();
    assert_eq!(truth.len(), calls.len(), "calls of {name}");
    for ((before, after), call) in truth.iter().zip(calls) {
        let end = call.start_ns + call.duration_ns;
        assert!(*before <= call.start_ns && end <= *after, "{before}..{after} does not hold {call:?}");
    }
}

/// What every program begins with.
pub(crate) const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <time.h>
#include <unistd.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void nap(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
	nanosleep(&t, 0);
}
static void gate(const char *line)
{
	char b[64];
	puts(line);
	fflush(stdout);
	if (!fgets(b, sizeof(b), stdin))
		exit(0);
}
#define TIMED(name, call) do { long long t_ = now(); call; printf("%s %lld %lld\n", name, t_, now()); } while (0)
"#;
