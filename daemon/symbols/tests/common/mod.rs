//! Programs that are compiled for a test and run under it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use stallscope_symbols::{Limits, NativeFrame, Symbolizer};
use tempfile::TempDir;

/// A symboliser that looks at mappings again as often as it wants.
pub(crate) fn symbolizer() -> Symbolizer {
    Symbolizer::new(Limits { reread_pause: std::time::Duration::ZERO, ..Limits::default() })
}

pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// The number of the line of stack.c with this mark.
pub(crate) fn line(mark: &str) -> u32 {
    let text = fs::read_to_string(source("stack.c")).unwrap();
    let at = text.lines().position(|line| line.ends_with(&format!("// line: {mark}"))).unwrap();
    u32::try_from(at).unwrap() + 1
}

/// Runs a tool to its end.
pub(crate) fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles stack.c with frame pointers.
pub(crate) fn compile(directory: &TempDir, name: &str, flags: &[&str]) -> PathBuf {
    let program = directory.path().join(name);
    let source = source("stack.c");
    let mut all =
        vec!["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-Wl,--build-id"];
    all.extend(flags);
    all.extend(["-o", program.to_str().unwrap(), source.to_str().unwrap(), "-ldl"]);
    tool("gcc", &all);
    program
}

/// A process of ours; killed when dropped.
pub(crate) struct Target {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Target {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The addresses of the next line that it prints.
    pub(crate) fn addresses(&mut self) -> Vec<u64> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        line.split_whitespace().map(number).collect()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn end(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn names(frames: &[NativeFrame]) -> Vec<&str> {
    frames.iter().map(|frame| &*frame.name).collect()
}

/// Whether this test may make namespaces; says so where not.
pub(crate) fn is_root() -> bool {
    let root = fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0\t");
    if !root {
        eprintln!("skipped: needs root to make a mount namespace");
    }
    root
}
