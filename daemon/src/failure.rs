//! What can end a command, and the exit code of each.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 2 | the command line is wrong (clap) |
//! | 3 | an input cannot be read or understood |
//! | 4 | the output cannot be written |
//! | 5 | done, but some inputs were left out (`import` of several files) |
//! | 6 | the job cannot be recorded: it is not there, not permitted, or this host lacks what it takes |
//! | any | that of the command (`record -- COMMAND`); 128 and the signal where one ended it |
//! | 126 | the command is there and cannot be executed; nothing was recorded |
//! | 127 | the command is not there; nothing was recorded |
//! | 70 | a defect of stallscope: a ledger that does not close |

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use stallscope_core::capture::{CaptureError, WriteError};
use stallscope_core::ledger::NotConserved;
use stallscope_core::merge::Refusal;
use stallscope_core::report::text::printable;
use stallscope_ebpf::SessionError;
use stallscope_import::ImportError;
use stallscope_jobs::ResolveError;
use stallscope_recorder::RecordError;

/// How a command ended that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Written, without some of the inputs.
    Partial,
    /// The command that was recorded has ended with this code.
    Command(u8),
    /// The recording failed, which has been said, and the command that was recorded has ended.
    Failed(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Partial => Self::from(5),
            Outcome::Command(code) | Outcome::Failed(code) => Self::from(code),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// A capture that cannot be opened.
    Capture { path: PathBuf, source: CaptureError },
    /// A file of another tool that cannot be imported.
    Import(ImportError),
    /// The capture opened, and there is nothing in it to report on.
    Nothing { path: PathBuf, what: &'static str },
    /// The capture is cut or damaged, and nothing that a report could be made of is left.
    NothingLeft(PathBuf),
    /// A rank that is asked for and has no GPU in the capture; `has` are those that do, in words.
    NoRank { path: PathBuf, rank: u32, has: String },
    /// A rank is to be held against others, and there is none.
    OneRank(PathBuf),
    /// Options that do not go together.
    Options { what: &'static str, advice: &'static str },
    /// Captures that do not belong together.
    Together(Refusal),
    /// One file given as the captures of two hosts.
    Twice(PathBuf),
    /// A pipe or a device where a file is needed.
    NotAFile(PathBuf),
    /// A file that exists and that nobody would want overwritten.
    WouldOverwrite(PathBuf),
    /// An output that is an input.
    IsInput(PathBuf),
    /// The temporary file of an import on the way cannot be written.
    Spool { folder: PathBuf, source: io::Error },
    /// Output that cannot be written.
    Output { path: PathBuf, source: io::Error },
    /// A capture that cannot be written.
    Write { path: PathBuf, source: WriteError },
    /// A recording whose output refused, after it had begun: what is there opens.
    BrokeOff { path: PathBuf, source: WriteError },
    /// A pipe, a device or standard output, where what is written must stay readable at many places.
    OutputNotAFile(PathBuf),
    /// An output that another recording is writing.
    Busy(PathBuf),
    /// /proc cannot be read.
    Proc { source: io::Error },
    /// What is to be recorded was not found, or cannot be.
    Target(ResolveError),
    /// The recording could not begin or broke off.
    Record(RecordError),
    /// A command that was to be recorded cannot be started.
    Start { source: io::Error },
    /// No program is where a command says.
    NoCommand { name: String, why: String },
    /// What a command names cannot be executed.
    NotExecutable { name: String, why: String },
    /// Ctrl-C cannot be caught.
    Signals(String),
    /// The ledger does not close.
    Defect(NotConserved),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Import(source) => write!(f, "{source}"),
            Self::Nothing { path, what } => write!(f, "{} holds no {what}", path.display()),
            Self::NothingLeft(path) => {
                write!(
                    f,
                    "{} is cut short or damaged, and nothing of it can be read: no GPU operation and no record of a \
                     thread",
                    path.display()
                )
            }
            Self::NoRank { path, rank, has } => {
                write!(f, "{} has no GPU of rank {rank}: it has {has}", path.display())
            }
            Self::OneRank(path) => {
                write!(
                    f,
                    "{} has GPUs of one rank only: there is no other to hold it against",
                    path.display()
                )
            }
            Self::Options { what, .. } => write!(f, "{what}"),
            Self::Together(source) => write!(f, "{source}"),
            Self::Twice(path) => {
                write!(f, "{} is given twice: each capture is that of one host", path.display())
            }
            Self::NotAFile(path) => write!(f, "{} is not a file but a pipe or a device", path.display()),
            Self::WouldOverwrite(path) => write!(
                f,
                "{} exists and does not look like an earlier output of this command; it is left as it is",
                path.display()
            ),
            Self::IsInput(path) => write!(f, "{} is an input; it is left as it is", path.display()),
            Self::Spool { folder, source } => {
                write!(f, "cannot write a temporary file in {}: {source}", folder.display())
            }
            Self::Output { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Self::Write { path, source } => write!(f, "{}: {source}", path.display()),
            Self::BrokeOff { path, source } => write!(
                f,
                "{}: {source}; what was written until then is a whole capture that opens",
                path.display()
            ),
            Self::OutputNotAFile(path) => {
                write!(f, "cannot record to {}: it is not a file but a pipe or a device", path.display())
            }
            Self::Busy(path) => {
                write!(f, "another recording is writing {}; it is left as it is", path.display())
            }
            Self::Proc { source } => write!(f, "cannot read /proc: {source}"),
            Self::Target(source) => write!(f, "{source}"),
            Self::Record(source) => write!(f, "{source}"),
            Self::Start { source } => write!(f, "cannot start the command: {source}"),
            Self::NoCommand { name, why } | Self::NotExecutable { name, why } => {
                write!(f, "cannot start {}: {why}; nothing was recorded", printable(name))
            }
            Self::Signals(text) => write!(f, "cannot catch Ctrl-C: {text}"),
            Self::Defect(source) => write!(f, "{source}"),
        }
    }
}

impl Failure {
    /// What to do about it, where the message does not say already.
    pub(crate) fn advice(&self) -> Option<&str> {
        match self {
            Self::Nothing { what: "GPU operations", .. } => {
                Some("`stallscope info` shows what is in it; a trace without GPU activity has no GPU ledger")
            }
            Self::Nothing { .. } => Some("`stallscope info` shows what is in it"),
            Self::NothingLeft(_) => Some(
                "take an earlier copy of the file, or record or import it again; `stallscope info` shows what is lost",
            ),
            Self::NoRank { .. } => Some("`stallscope report` shows the ranks of a capture"),
            Self::OneRank(_) => {
                Some("import the traces of several ranks into one capture, or leave --against out")
            }
            Self::Options { advice, .. } => Some(advice),
            Self::NotAFile(_) => Some("store it in a file first: captures are read at many places"),
            Self::BrokeOff { .. } => Some(
                "`stallscope report` reads it; before recording again make room, or name a file on another disk with -o",
            ),
            Self::OutputNotAFile(_) => Some(
                "name a file with -o: a recording is written in place, so that it opens whenever it breaks off",
            ),
            Self::Busy(_) => Some("name another output with -o, or end the other recording first"),
            Self::NoCommand { .. } => Some(
                "check the name, or give the path of the program; what only a shell knows needs one: -- sh -c '…'",
            ),
            Self::NotExecutable { .. } => {
                Some("chmod +x makes a program of a file; or name what runs it: -- sh FILE, -- python3 FILE")
            }
            Self::WouldOverwrite(_) => Some("name another output, or say --force to replace it"),
            Self::IsInput(_) => Some("name another output"),
            Self::Spool { .. } => Some("set TMPDIR to a folder with room, or import to a capture first"),
            Self::Output { .. } | Self::Write { .. } => {
                Some("check that the folder exists, that you may write there and that the disk has room")
            }
            Self::Proc { .. } => Some("mount it, or run where it is mounted"),
            Self::Target(_) => Some("`stallscope ps` shows the jobs of this host"),
            Self::Record(RecordError::Session(SessionError::Unable { remedy, .. })) => Some(remedy),
            Self::Record(RecordError::Session(_)) => Some("`stallscope doctor` says what this host lacks"),
            Self::Record(RecordError::Gone { .. } | RecordError::Reused { .. }) => {
                Some("`stallscope ps` shows what runs now")
            }
            Self::Capture { .. }
            | Self::Import(_)
            | Self::Defect(_)
            | Self::Signals(_)
            | Self::Start { .. }
            | Self::Together(_)
            | Self::Twice(_)
            | Self::Record(RecordError::Write(_) | RecordError::Writer) => None,
        }
    }

    /// Tells the user.
    pub(crate) fn say(&self) {
        eprintln!("stallscope: {self}");
        if let Some(advice) = self.advice() {
            eprintln!("  {advice}");
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Capture { .. }
            | Self::Import(_)
            | Self::Nothing { .. }
            | Self::NothingLeft(_)
            | Self::NoRank { .. }
            | Self::OneRank(_)
            | Self::Together(_)
            | Self::Twice(_)
            | Self::NotAFile(_) => 3,
            Self::Options { .. } => 2,
            Self::WouldOverwrite(_)
            | Self::IsInput(_)
            | Self::Spool { .. }
            | Self::Output { .. }
            | Self::Write { .. }
            | Self::BrokeOff { .. }
            | Self::OutputNotAFile(_)
            | Self::Busy(_) => 4,
            Self::Proc { .. } | Self::Target(_) | Self::Record(_) | Self::Signals(_) | Self::Start { .. } => {
                6
            }
            Self::NotExecutable { .. } => 126,
            Self::NoCommand { .. } => 127,
            Self::Defect(_) => 70,
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::Target(error)
    }
}

impl From<NotConserved> for Failure {
    fn from(error: NotConserved) -> Self {
        Self::Defect(error)
    }
}
