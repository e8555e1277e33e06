//! Folders of stand-ins, small C programs, and what both of them say.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stallscope_cupti_double::folder::{self, Version};
use stallscope_cupti_double::truth::{self, Line};

/// A folder with the stand-ins in `lib`, and room for truth logs and programs.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    pub(crate) version: Version,
}

/// What a program said, and what really happened.
pub(crate) struct Outcome {
    pub(crate) output: Output,
    pub(crate) text: String,
    pub(crate) truth: Vec<Line>,
}

impl Lab {
    pub(crate) fn new(version: Version) -> Self {
        let folder = tempfile::tempdir().unwrap();
        folder::make(&folder.path().join("lib"), version).unwrap();
        Self { folder, version }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compile a program of `tests/c`, or of the folder of jobs.
    pub(crate) fn compile(&self, source: &Path) -> PathBuf {
        let program = self.path(source.file_stem().unwrap().to_str().unwrap());
        let is_c = source.extension().is_some_and(|e| e == "c");
        let mut compiler = Command::new(if is_c { "cc" } else { "c++" });
        // Functions are called through pointers without prototypes, which C23 forgot.
        compiler.args(if is_c { &["-std=gnu11", "-w"][..] } else { &["-Wall", "-Werror"] });
        compiler.args(["-O1", "-g", "-fno-omit-frame-pointer", "-pthread", "-o"]);
        let done = compiler.arg(&program).arg(source).arg("-ldl").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        program
    }

    /// The command with the stand-ins in its way and this truth log. What hangs is ended: that is a failure.
    pub(crate) fn command(&self, program: &Path, settings: &str, log: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "120"])
            .arg(program)
            .env("LD_LIBRARY_PATH", self.path("lib"))
            .env("STALLSCOPE_DOUBLE", settings)
            .env("STALLSCOPE_DOUBLE_TRUTH", self.path(log))
            .current_dir(self.folder.path());
        command
    }

    /// Run it to its end.
    pub(crate) fn finish(&self, command: &mut Command, log: &str) -> Outcome {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {text}{errors}", output.status);
        let truth = std::fs::read_to_string(self.path(log)).unwrap_or_default();
        Outcome { output, text, truth: truth::parse(&truth).unwrap() }
    }

    /// Compile a program of `tests/c` and run it with these settings.
    pub(crate) fn run(&self, source: &str, arguments: &[&str], settings: &str) -> Outcome {
        let program = self.compile(&here().join("tests/c").join(source));
        let log = format!("{source}.truth");
        let _ = std::fs::remove_file(self.path(&log));
        self.finish(self.command(&program, settings, &log).args(arguments), &log)
    }
}

pub(crate) fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Outcome {
    pub(crate) fn ops(&self) -> Vec<&truth::Op> {
        self.truth.iter().filter_map(|l| if let Line::Op(op) = l { Some(op) } else { None }).collect()
    }

    pub(crate) fn faults(&self) -> Vec<&truth::Fault> {
        self.truth.iter().filter_map(|l| if let Line::Fault(f) = l { Some(f) } else { None }).collect()
    }

    pub(crate) fn collectives(&self) -> Vec<&truth::Collective> {
        self.truth.iter().filter_map(|l| if let Line::Collective(c) = l { Some(c) } else { None }).collect()
    }

    pub(crate) fn misuses(&self) -> Vec<&str> {
        self.truth
            .iter()
            .filter_map(|l| if let Line::Misuse(m) = l { Some(m.what.as_str()) } else { None })
            .collect()
    }

    /// CLOCK_REALTIME minus CLOCK_MONOTONIC when the process started.
    pub(crate) fn offset_ns(&self) -> i64 {
        let process = self.truth.iter().find_map(|l| if let Line::Process(p) = l { Some(p) } else { None });
        process.unwrap().realtime_minus_monotonic_ns
    }

    /// The rest of each line that begins with this word.
    pub(crate) fn lines(&self, word: &str) -> Vec<&str> {
        self.text.lines().filter_map(|l| l.strip_prefix(word)?.strip_prefix(' ')).collect()
    }
}
