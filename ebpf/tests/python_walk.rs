//! The Python frames of a recording are those of the program: as it says itself, and as py-spy says.
//!
//! Needs root, and interpreters: python3.10 … python3.14 on PATH, in ~/.pyenv/versions, or in STALLSCOPE_PYTHONS
//! (separated by colons). STALLSCOPE_PYSPY names the py-spy executable (PyPI: py-spy, 0.4.3 or newer). What is not there
//! is skipped, with the reason printed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use stallscope_ebpf::event::StackFrames;
use stallscope_ebpf::python::{CodeReader, NotPython, PythonFrame, PythonProcess, detect};
use stallscope_ebpf::{Event, Kernel, Session, Settings};
use stallscope_schemas::wire::{MAX_FRAMES, stack_flag};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_walk.py");
/// Threads that announce themselves before anything is forked.
const THREADS: usize = 6;
/// select and pselect6 (3.10: by C library), clock_nanosleep (afterwards).
const SLEEPS: [i32; 3] = [23, 270, 230];
const PATIENCE: Duration = Duration::from_secs(30);

/// A frame as the program says it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    function: String,
    file: String,
    line: u32,
    first_line: u32,
}

impl From<&PythonFrame> for Place {
    fn from(frame: &PythonFrame) -> Self {
        Self {
            name: frame.name.to_string(),
            function: frame.function.to_string(),
            file: frame.file.to_string(),
            line: frame.line,
            first_line: frame.first_line,
        }
    }
}

/// What a thread says of itself.
#[derive(Debug)]
struct Announced {
    name: String,
    pid: u32,
    tid: u32,
    frames: Vec<Place>,
}

fn announced(line: &str) -> Announced {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let place = |f: &Value| Place {
        name: text(&f[0]),
        function: text(&f[1]),
        file: text(&f[2]),
        line: number(&f[3]),
        first_line: number(&f[4]),
    };
    let frames = value["frames"].as_array().unwrap().iter().map(place).collect();
    Announced { name: text(&value["name"]), pid: number(&value["pid"]), tid: number(&value["tid"]), frames }
}

/// The program, ended with the test.
struct Target {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Target {
    fn start(python: &Path) -> Self {
        let mut command = Command::new(python);
        let command = command.args(["-W", "ignore", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { input: child.stdin.take().unwrap(), child, lines }
    }

    fn announcement(&self) -> Announced {
        announced(&self.lines.recv_timeout(PATIENCE).expect("the program announces its threads"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Seen {
    tids: HashMap<u32, u32>,
    stacks: HashMap<u64, StackFrames>,
    /// The stacks of waits by task, in order.
    waits: HashMap<u32, Vec<u64>>,
}

impl Seen {
    fn add(&mut self, event: Event) {
        match event {
            Event::Task(task) => drop(self.tids.insert(task.head.task, task.tid)),
            Event::Stack(stack) => drop(self.stacks.insert(stack.id, stack)),
            // A thread also waits elsewhere, for the interpreter's lock.
            Event::Wait(wait) if wait.stack != 0 && SLEEPS.contains(&wait.call) => {
                self.waits.entry(wait.head.task).or_default().push(wait.stack);
            }
            _ => {}
        }
    }
}

#[test]
fn the_frames_of_every_interpreter_are_what_the_program_and_py_spy_say() {
    let kernel = Kernel::detect();
    if !kernel.privileged {
        println!("skipped: needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE)");
        return;
    }
    let found = interpreters();
    for minor in 10..=14 {
        if !found.iter().any(|(version, _)| version.starts_with(&format!("3.{minor}."))) {
            println!("skipped: Python 3.{minor} is not installed");
        }
    }
    for (version, python) in &found {
        println!("Python {version}, {}", python.display());
        check(&kernel, version, python);
    }
}

fn check(kernel: &Kernel, version: &str, python: &Path) {
    let mut target = Target::start(python);
    let pid = target.child.id();
    let mut threads: Vec<Announced> = (0..THREADS).map(|_| target.announcement()).collect();
    let process = match detect(pid) {
        Err(NotPython::FreeThreaded { .. }) => {
            println!("skipped: a free-threaded build, refused by name");
            return;
        }
        found => found.unwrap_or_else(|refused| panic!("{refused}")),
    };
    assert_eq!((process.version.major, process.pid), (3, pid));
    let (major_minor, _) = version.rsplit_once('.').unwrap();
    let known = process.version.to_string();
    assert!(known == version || known == major_minor, "{known} is not {version}");

    let mut session = Session::load(kernel, Settings::default()).unwrap();
    session.set_python(pid, &process).unwrap();
    let seen = std::cell::RefCell::new(Seen::default());
    let reader = session.reader(|event| seen.borrow_mut().add(event.unwrap())).unwrap();
    session.attach(&[pid]).unwrap();
    let poll = |until: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !until() {
            assert!(Instant::now() < end, "what was waited for has not come");
            reader.poll(Duration::from_millis(20)).unwrap();
        }
    };
    let enough = |tid: u32| {
        let seen = seen.borrow();
        let tasks = seen.tids.iter().filter(|(_, of)| **of == tid);
        tasks.filter_map(|(task, _)| seen.waits.get(task)).map(Vec::len).sum::<usize>() >= 20
    };
    poll(&|| threads.iter().all(|thread| enough(thread.tid)));
    writeln!(target.input, "fork").unwrap();
    threads.push(target.announcement());
    let forked = threads[THREADS].tid;
    poll(&|| enough(forked));
    let walked = compare(&seen.borrow(), &process, &threads);
    compare_with_py_spy(&process, &threads, &walked);
    session.detach().unwrap();
}

/// Resolves the frames of every wait of the announced threads, and compares. Returns the frames by thread.
fn compare(seen: &Seen, process: &PythonProcess, threads: &[Announced]) -> BTreeMap<u32, Vec<Place>> {
    let mut code = CodeReader::new();
    code.add(process).unwrap();
    let mut walked = BTreeMap::new();
    for thread in threads {
        let Announced { name, pid, tid, frames } = thread;
        let expected = &frames[..frames.len().min(MAX_FRAMES)];
        let stacks =
            seen.tids.iter().filter(|(_, of)| *of == tid).filter_map(|(task, _)| seen.waits.get(task));
        let (mut met, mut early) = (0, 0);
        for id in stacks.flatten() {
            let stack = &seen.stacks[id];
            let resolve = |(at, offset): &(u64, u64)| {
                let frame = code.resolve(*pid, *at, *offset);
                Place::from(&frame.unwrap_or_else(|| panic!("{name}: no code object at {at:#x}+{offset}")))
            };
            let got: Vec<Place> = stack.python.iter().map(resolve).collect();
            // The child announces itself after its first waits, and of the others the wait during which the probes are
            // attached may be completed by their next call.
            if met == 0 && got != expected && (name == "forked" || early == 0) {
                early += 1;
                continue;
            }
            if got != expected {
                let differs = got.iter().zip(expected).find(|(got, expected)| got != expected);
                panic!("thread {name}: {} frames instead of {}, {differs:?}", got.len(), expected.len());
            }
            let cut = stack.flags & stack_flag::STACK_PYTHON_CUT != 0;
            assert_eq!(cut, frames.len() > MAX_FRAMES, "thread {name} of {} frames", frames.len());
            met += 1;
            walked.insert(*tid, got);
        }
        assert!(met >= 10, "thread {name}: {met} stacks");
        println!("  {name}: {met} stacks of {} frames", expected.len());
    }
    walked
}

/// Compares with what py-spy reads from outside, of the threads of one process.
///
/// Of 3.10 py-spy (0.4.3) gives a neighbouring line in a function whose table has entries without a line. The frames have
/// been compared with what the interpreter itself says, line by line, so there only such a difference is let pass.
fn compare_with_py_spy(process: &PythonProcess, threads: &[Announced], walked: &BTreeMap<u32, Vec<Place>>) {
    let pid = process.pid;
    let wrong_lines = process.version.minor == 10;
    let Some(py_spy) = std::env::var_os("STALLSCOPE_PYSPY") else {
        println!("  skipped: comparison with py-spy (STALLSCOPE_PYSPY is not set)");
        return;
    };
    let output =
        Command::new(py_spy).args(["dump", "--json", "--pid"]).arg(pid.to_string()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "py-spy: {error}");
    let dump: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of_frame = |frame: &Value| {
        let text = |key: &str| frame[key].as_str().unwrap().to_owned();
        (text("name"), text("filename"), frame["line"].as_u64().unwrap())
    };
    let mut compared = BTreeSet::new();
    for thread in dump.as_array().unwrap() {
        let theirs: Vec<_> = thread["frames"].as_array().unwrap().iter().map(of_frame).collect();
        let theirs = &theirs[..theirs.len().min(MAX_FRAMES)];
        let ours = |tid: u32| -> Option<Vec<_>> {
            let frames = walked.get(&tid)?.iter();
            Some(frames.map(|f| (f.function.clone(), f.file.clone(), u64::from(f.line))).collect())
        };
        // Of 3.10 it may not know which thread is which: then one of ours must be the same.
        let tid = match thread["os_thread_id"].as_u64() {
            Some(tid) => u32::try_from(tid).unwrap(),
            None => {
                threads.iter().map(|t| t.tid).find(|tid| ours(*tid).as_deref() == Some(theirs)).unwrap_or(0)
            }
        };
        let Some(ours) = ours(tid) else { continue };
        compared.insert(tid);
        assert_eq!(ours.len(), theirs.len(), "thread {tid}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            if wrong_lines && (&ours.0, &ours.1) == (&theirs.0, &theirs.1) && ours.2 != theirs.2 {
                println!("  py-spy has line {} instead of {} of {}", theirs.2, ours.2, ours.0);
                continue;
            }
            assert_eq!(ours, theirs, "thread {tid}, py-spy on the right");
        }
    }
    let all: BTreeSet<u32> = threads.iter().filter(|t| t.pid == pid).map(|t| t.tid).collect();
    assert_eq!(compared, all, "py-spy sees the same threads");
    println!("  py-spy: the same {} threads, frame by frame", compared.len());
}

/// Version and path of every interpreter from 3.10 to 3.14 that runs here; each file once.
fn interpreters() -> Vec<(String, PathBuf)> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut names: Vec<PathBuf> = std::env::split_paths(&folders)
        .flat_map(|folder| (10..=14).map(move |minor| folder.join(format!("python3.{minor}"))))
        .collect();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let installed = std::fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten();
    names.extend(installed.flatten().map(|entry| entry.path().join("bin/python3")));
    let more = std::env::var_os("STALLSCOPE_PYTHONS").unwrap_or_default();
    let more: Vec<PathBuf> = std::env::split_paths(&more).collect();
    names.extend(more.iter().cloned());
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| name.is_file()) {
        let asked = "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.executable)";
        let Ok(output) = Command::new(name).args(["-c", asked]).output() else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some((version, path)) = text.trim().split_once(' ') else { continue };
        let minor = version.split('.').nth(1).and_then(|n| n.parse::<u32>().ok());
        if !version.starts_with("3.") || !matches!(minor, Some(10..=14)) {
            continue;
        }
        // A wrapper has to be started as such; a shim stands for the interpreter that it starts.
        let path = if more.contains(name) { name.clone() } else { PathBuf::from(path) };
        let file = path.canonicalize().unwrap_or(path);
        found.entry(file).or_insert_with(|| version.to_owned());
    }
    found.into_iter().map(|(path, version)| (version, path)).collect()
}
