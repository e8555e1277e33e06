//! Programs to inject into, what is injected, and talk with both.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use stallscope_cupti_inject::{Injected, Options, Payload, Refusal, Step, inject};
use stallscope_cupti_wire::{HEADER_BYTES, Header, MAGIC, State, VERSION};

/// Nothing that a test waits for takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) const RING_BYTES: u64 = HEADER_BYTES as u64 + 256 * 64;

/// The test's agent stays until it is told to leave.
pub(crate) const STAY: u64 = 1 << 8;

/// Whether the tests of this file can run at all.
pub(crate) fn can_run() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capable = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let is_root = u64::from_str_radix(capable.trim(), 16).unwrap() & CAP_SYS_ADMIN != 0;
    if !is_root {
        eprintln!("skipped: injection needs root");
    }
    let has_compiler = Command::new("cc").arg("--version").output().is_ok();
    if !has_compiler {
        eprintln!("skipped: there is no C compiler");
    }
    is_root && has_compiler
}

/// Where programs are built. Examples have no folder of their own.
pub(crate) fn temporary() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Compiles a file of `tests/targets`, once per arguments.
pub(crate) fn compile(source: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets");
    let folder = temporary().join("inject");
    std::fs::create_dir_all(&folder).unwrap();
    let output = folder.join(format!("{name}-{}", std::process::id()));
    // Tests run at once, in one process and in several.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = LOCK.lock().unwrap();
    if !output.exists() {
        let compiled = Command::new("cc")
            .args(["-O1", "-g", "-pthread", "-o"])
            .arg(&output)
            .arg(sources.join(source))
            .args(arguments)
            .args(["-ldl", "-lm"])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
    output
}

/// The test's agent.
pub(crate) fn agent() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let define = |name: &str, value: usize| format!("-D{name}={value}");
        let defines = [
            define("RING_BYTES", usize::try_from(RING_BYTES).unwrap()),
            define("PID", offset_of!(Header, pid)),
            define("TID", offset_of!(Header, tid)),
            define("STATE", offset_of!(Header, state)),
            define("COMMAND", offset_of!(Header, command)),
            define("AGENT_VERSION", offset_of!(Header, agent_version)),
            define("CUPTI_VERSION", offset_of!(Header, cupti_version)),
        ];
        let mut arguments = vec!["-shared", "-fPIC"];
        arguments.extend(defines.iter().map(String::as_str));
        std::fs::read(compile("agent.c", "agent.so", &arguments)).unwrap()
    })
}

/// What is injected, with these flags.
pub(crate) fn payload(flags: u64) -> Payload<'static> {
    Payload { image: agent(), ring_bytes: RING_BYTES, prepare: &prepare, cupti: None, flags, unload: true }
}

fn prepare(ring: &OwnedFd) -> io::Result<()> {
    let ring = File::from(ring.try_clone()?);
    ring.write_all_at(&VERSION.to_ne_bytes(), offset_of!(Header, version) as u64)?;
    ring.write_all_at(&MAGIC.to_ne_bytes(), offset_of!(Header, magic) as u64)
}

/// The ring as a file.
pub(crate) struct Ring(File);

impl Ring {
    pub(crate) fn new(ring: impl AsFd) -> Self {
        Self(File::from(ring.as_fd().try_clone_to_owned().unwrap()))
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, at as u64).unwrap();
        u32::from_ne_bytes(bytes)
    }

    pub(crate) fn leave(&self) {
        const LEAVE: u32 = 2;
        self.0.write_all_at(&LEAVE.to_ne_bytes(), offset_of!(Header, command) as u64).unwrap();
    }

    pub(crate) fn wait_for(&self, state: State) {
        eventually("the agent's state", || self.word(offset_of!(Header, state)) == state.id());
    }
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Injects an agent that leaves at once, and waits until nothing of it is left but what stays.
pub(crate) fn inject_and_leave(target: &Target) -> Result<Injected, Refusal> {
    let injected = inject(target.pid(), &payload(0), Options::default())?;
    Ring::new(&injected.ring).wait_for(State::Gone);
    let tid = injected.tid;
    eventually("the agent's thread ends", || !target.has_thread(tid));
    Ok(injected)
}

/// A running program of `tests/targets`.
pub(crate) struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Its pid, where it is not that of the child.
    pid: Option<i32>,
}

impl Target {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        let target = Self { child, stdin, lines, pid: None };
        assert_eq!(target.line(), "ready");
        target
    }

    /// A `waiting` program, once it waits.
    pub(crate) fn waiting(arguments: &[&str]) -> Self {
        let target = Self::start(Command::new(compile("waiting.c", "waiting", &[])).args(arguments));
        target.settle();
        target
    }

    /// Until its main thread sleeps, if it does.
    pub(crate) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(20));
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.unwrap_or_else(|| self.child.id().try_into().unwrap())
    }

    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = Some(pid);
    }

    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid()))
    }

    pub(crate) fn has_thread(&self, tid: i32) -> bool {
        self.proc(&format!("task/{tid}")).exists()
    }

    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(self.proc("task")).map_or(0, Iterator::count)
    }

    /// What would show that an injection left something: threads, descriptors, mappings.
    pub(crate) fn belongings(&self) -> (usize, usize, usize) {
        let descriptors = std::fs::read_dir(self.proc("fd")).map_or(0, Iterator::count);
        let maps = std::fs::read_to_string(self.proc("maps")).unwrap_or_default();
        (self.threads(), descriptors, maps.lines().count())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> String {
        match self.lines.recv_timeout(LONG) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the target hangs"),
            Err(RecvTimeoutError::Disconnected) => "(it ended)".to_owned(),
        }
    }

    /// The next line that it prints from now on.
    pub(crate) fn fresh_line(&self) -> String {
        while self.lines.try_recv().is_ok() {}
        // One may be on its way.
        self.line();
        self.line()
    }

    /// A byte that ends its wait; then it must say that all is well.
    pub(crate) fn wake(&mut self) {
        self.write(b"x");
        assert_eq!(self.line(), "ok");
    }

    /// It leaves of itself, with nothing to complain about.
    pub(crate) fn quit(mut self) {
        self.write(b"q");
        drop(self.stdin.take());
        assert!(self.wait().success(), "{}", self.line());
    }

    /// Ends its standard input, upon which it leaves with nothing to complain about.
    pub(crate) fn close(mut self) {
        drop(self.stdin.take());
        assert!(self.wait().success(), "{}", self.line());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < LONG, "the target does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The steps of an injection, as they were taken.
pub(crate) fn steps(target: &Target, payload: &Payload<'_>) -> (Result<Injected, Refusal>, Vec<Step>) {
    let mut steps = Vec::new();
    let mut observe = |step| steps.push(step);
    let options = Options { observe: Some(&mut observe), ..Options::default() };
    let result = inject(target.pid(), payload, options);
    (result, steps)
}
