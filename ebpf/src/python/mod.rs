//! CPython 3.10 to 3.14 in another process: where its interpreter lies, what the kernel half must know to walk its
//! frames, and what the code objects that it sends stand for.
//!
//! - [`detect`] looks at a process once and gives a [`PythonProcess`], or says by name why not.
//! - [`Session::set_python`](crate::Session::set_python) hands it to the kernel half (`bpf/python.bpf.h`), which sends
//!   pairs of code object and instruction offset with each stack.
//! - [`CodeReader`] turns such a pair into function, file and line while the process lives.
//!
//! What always holds: the process is only read, never stopped; all that is read is checked (lengths are capped, offsets
//! are bounded); an interpreter of another make is refused and never guessed at.

mod code;
mod elf;
mod layout;
mod linetable;
mod maps;
mod memory;
mod settings;
mod text;

use std::fmt;
use std::path::PathBuf;

pub use code::{CodeReader, PythonFrame};
pub use layout::{Layout, Version};
pub(crate) use settings::Entry;

use layout::DebugOffsets;
use maps::{Candidate, Maps};
use memory::Memory;

/// An interpreter in a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonProcess {
    /// The process.
    pub pid: u32,
    /// CPython's version.
    pub version: Version,
    /// Address of `_PyRuntime`.
    pub runtime: u64,
    /// The file that it was found in, as the process names it.
    pub file: PathBuf,
    /// Where the fields are that frames are found by.
    pub layout: Layout,
}

/// Why the Python frames of a process cannot be walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPython {
    /// It has no interpreter: the usual case, and no loss.
    #[error("no Python interpreter is mapped")]
    NoInterpreter,
    /// It is gone, or may not be looked at.
    #[error("cannot read {what}: {reason}")]
    Unreadable {
        /// What was tried.
        what: String,
        /// What the kernel says.
        reason: String,
    },
    /// Another implementation of the language.
    #[error("{name} is not CPython")]
    OtherImplementation {
        /// Its name.
        name: String,
    },
    /// A CPython whose structures are not known.
    #[error("Python {version} is not supported (3.10 to 3.14 are)")]
    UnsupportedVersion {
        /// Its version, as far as it says.
        version: String,
    },
    /// A build without the global interpreter lock, whose frames are laid out otherwise.
    #[error("Python {version} is a free-threaded build, which is not supported")]
    FreeThreaded {
        /// Its version.
        version: Version,
    },
    /// The file has neither the symbol nor the section.
    #[error("_PyRuntime is not found in {file}")]
    NoRuntime {
        /// The file.
        file: String,
    },
    /// The interpreter has not made its first thread yet, or has ended it: to be asked again.
    #[error("the interpreter is starting or ending")]
    NotRunning,
    /// What is there does not look like that version: a build with changed structures.
    #[error("the structures of Python {version} are not where they should be: {what}")]
    UnknownLayout {
        /// Its version.
        version: Version,
        /// What was wrong.
        what: &'static str,
    },
}

impl NotPython {
    /// Whether the process has an interpreter all the same, so that frames are missing that a user expects.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(self, Self::NoInterpreter)
    }
}

/// Looks for a CPython interpreter in a running process.
///
/// # Errors
/// [`NotPython`] says why there is none, or why its frames cannot be walked.
pub fn detect(pid: u32) -> Result<PythonProcess, NotPython> {
    let maps = Maps::read(pid)?;
    let candidates = maps.candidates();
    let mut refused = NotPython::NoInterpreter;
    for candidate in &candidates {
        match detect_in(pid, &maps, candidate) {
            Ok(found) => return Ok(found),
            // The executable of a dynamic build is a candidate too, and says less than the library does.
            Err(error) => {
                let better = matches!(refused, NotPython::NoInterpreter | NotPython::NoRuntime { .. });
                if better && error != NotPython::NoInterpreter {
                    refused = error;
                }
            }
        }
    }
    match (&refused, maps.other_implementation()) {
        (NotPython::NoInterpreter | NotPython::NoRuntime { .. }, Some(name)) => {
            Err(NotPython::OtherImplementation { name })
        }
        _ => Err(refused),
    }
}

fn detect_in(pid: u32, maps: &Maps, candidate: &Candidate) -> Result<PythonProcess, NotPython> {
    let unnamed = || {
        // Any executable may embed an interpreter; one that is not called so and has none is no loss.
        if candidate.named_python {
            NotPython::NoRuntime { file: candidate.path.clone() }
        } else {
            NotPython::NoInterpreter
        }
    };
    let file = maps.open(candidate).map_err(|reason| {
        if candidate.named_python {
            NotPython::Unreadable { what: candidate.path.clone(), reason: reason.to_string() }
        } else {
            NotPython::NoInterpreter
        }
    })?;
    let image = elf::look(file, candidate.named_python).ok_or_else(unnamed)?;
    let bias = image.bias(candidate.start, candidate.offset).ok_or_else(unnamed)?;
    let runtime = bias.wrapping_add(image.runtime.ok_or_else(unnamed)?);
    let memory = Memory::open(pid)?;
    let debug = DebugOffsets::read(&memory, runtime);
    let hex = match (&debug, image.version) {
        (Some(debug), _) => Some(debug.version()),
        (None, Some(at)) => memory.word(bias.wrapping_add(at)),
        (None, None) => None,
    };
    let named = || maps.named_version(candidate);
    let version = hex
        .and_then(Version::from_hex)
        .or_else(named)
        .ok_or_else(|| NotPython::UnsupportedVersion { version: "of unknown version".to_owned() })?;
    let layout = Layout::of(version, debug.as_ref())?;
    let found = PythonProcess { pid, version, runtime, file: PathBuf::from(&candidate.path), layout };
    found.check(&memory)?;
    Ok(found)
}

/// Threads that are looked at before a layout is believed or not.
const THREADS_CHECKED: usize = 64;

impl PythonProcess {
    /// Whether interpreter and threads lead to each other as this version's do.
    ///
    /// A thread's id is what `pthread_self` gives: the address of its control block, whose first word is that address.
    fn check(&self, memory: &Memory) -> Result<(), NotPython> {
        let unknown = |what| NotPython::UnknownLayout { version: self.version, what };
        let at = |base: u64, offset: u32| memory.word(base.wrapping_add(u64::from(offset)));
        let layout = &self.layout;
        let interpreter = at(self.runtime, layout.interpreters).ok_or_else(|| unknown("_PyRuntime"))?;
        if interpreter == 0 {
            return Err(NotPython::NotRunning);
        }
        let mut thread =
            at(interpreter, layout.interpreter_threads).ok_or_else(|| unknown("the interpreter"))?;
        if thread == 0 {
            return Err(NotPython::NotRunning);
        }
        for _ in 0..THREADS_CHECKED {
            let owner = at(thread, layout.thread_interpreter);
            if owner != Some(interpreter) {
                return Err(unknown("a thread that is not its interpreter's"));
            }
            let id = at(thread, layout.thread_id).unwrap_or(0);
            if id != 0 && memory.word(id) == Some(id) {
                return Ok(());
            }
            thread = at(thread, layout.thread_next).unwrap_or(0);
            if thread == 0 {
                break;
            }
        }
        Err(unknown("no thread has the id of a thread"))
    }
}

impl fmt::Display for PythonProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Python {} in {}", self.version, self.file.display())
    }
}
