//! Starting a job under the recorder.
//!
//! The command waits at a pipe until the probes are on: what it does from its first instruction on is seen. The recorder
//! alone holds the other end: where it ends before, however it ends, the command does not begin. A CUDA driver that it
//! loads takes the agent in by itself (CUDA_INJECTION64_PATH), so that nothing has to be put in.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use stallscope_agents::{cupti_for_launch, everything};

use crate::agent_file;
use crate::failure::Failure;

/// Where programs are looked for when nothing says where.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that waits to begin, or has begun.
pub(crate) struct Launched {
    child: Child,
    /// Our end of the pipe, for as long as the command has not begun.
    go: Option<PipeWriter>,
    /// What the user should know about how it was started.
    pub(crate) note: Option<String>,
}

impl Launched {
    /// Starts a command up to its own first instruction. `agent` is what the CUDA driver is to take in.
    pub(crate) fn hold(command: &[OsString], agent: Option<&[u8]>) -> Result<Self, Failure> {
        let failed = |source| Failure::Start { source };
        if let Some(program) = command.first() {
            find(program)?;
        }
        let (waits, go) = io::pipe().map_err(failed)?;
        // The one descriptor that the shell gets besides the usual three. It knows numbers of one digit.
        let inherited = fcntl_dupfd_cloexec(&waits, 3).map_err(|error| failed(error.into()))?;
        fcntl_setfd(&inherited, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        let number = inherited.as_raw_fd();
        if number > 9 {
            return Err(failed(io::Error::other("the descriptors 3 to 9 are all open: close one")));
        }
        // Waits for a line, then becomes the command, which has no part of the pipe. Without a line nobody records: then
        // it does not begin.
        let script = format!("read -r go <&{number} || exit 125; exec \"$@\" {number}<&-");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script, "sh"]).args(command);
        let mut note = None;
        match agent.map(agent_file::keep) {
            Some(Ok(path)) => {
                shell.env("CUDA_INJECTION64_PATH", path);
                // What docs/agent.md says of these.
                shell.env("STALLSCOPE_KINDS", everything().kinds.to_string());
                if let Some(cupti) = cupti_for_launch() {
                    shell.env("STALLSCOPE_CUPTI", &cupti);
                    // Ranges that the program marks reach CUPTI only where NVTX was told so at its start.
                    shell.env("NVTX_INJECTION64_PATH", cupti);
                }
            }
            Some(Err(why)) => {
                note = Some(format!(
                    "there is no safe place for the agent's file, so that CUDA does not load it by itself: it is put in \
                     later, and the first operations are not seen ({why})"
                ));
            }
            None => {}
        }
        let child = shell.spawn().map_err(failed)?;
        Ok(Self { child, go: Some(go), note })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin; only the first time counts.
    pub(crate) fn go(&mut self) {
        if let Some(mut pipe) = self.go.take() {
            // The pipe has a reader or the command is gone: either way there is nothing to be done about an error.
            let _ = pipe.write_all(b"go\n");
        }
    }

    /// Whether it was let go.
    pub(crate) fn begun(&self) -> bool {
        self.go.is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        // One that was not let go ends by itself: nobody has our end of the pipe any more.
        drop(self.go.take());
        self.child.wait()
    }
}

/// The exit code of a command as a shell gives it.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// What `ps` calls a command once it runs: a Python script or module by its own name, all else by the program's.
pub(crate) fn name(command: &[OsString]) -> String {
    let base = |word: &OsStr| {
        let path = Path::new(word);
        path.file_name().unwrap_or(word).to_string_lossy().into_owned()
    };
    let program = command.first().map(|word| base(word)).unwrap_or_default();
    let python = program.starts_with("python") || program.starts_with("pypy");
    let runs = if python { python_runs(&command[1..]) } else { None };
    match runs {
        Some((true, module)) => module.to_string_lossy().into_owned(),
        Some((false, script)) => base(&script),
        None => program,
    }
}

/// The module (`true`) or script that Python is called with, behind its own options.
fn python_runs(arguments: &[OsString]) -> Option<(bool, OsString)> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(options) = argument.as_bytes().strip_prefix(b"-") else {
            return Some((false, argument.clone()));
        };
        // `-` is standard input; letters may be joined, the last with its value behind it: -um a.b, -Xdev.
        let takes = options.iter().position(|letter| b"cmXW".contains(letter));
        match takes.and_then(|at| options.split_at_checked(at + 1)) {
            _ if options.is_empty() => return None,
            _ if options == b"-check-hash-based-pycs" => drop(arguments.next()),
            _ if options.starts_with(b"-") => {}
            Some((letters, value)) => match (letters.last(), value) {
                (Some(b'c'), _) => return None,
                (Some(b'm'), []) => return arguments.next().map(|module| (true, module.clone())),
                (Some(b'm'), module) => return Some((true, OsStr::from_bytes(module).to_owned())),
                (_, []) => drop(arguments.next()),
                _ => {}
            },
            None => {}
        }
    }
    None
}

/// Looks whether a command could begin, in the way of a shell, before anything is attached for it.
fn find(program: &OsStr) -> Result<(), Failure> {
    let name = program.to_string_lossy().into_owned();
    let absent = |why: String| Failure::NoCommand { name: name.clone(), why };
    let mut refused = None;
    let candidates: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&path).map(|folder| folder.join(program)).collect()
    };
    for candidate in candidates.iter().filter(|_| !program.is_empty()) {
        match std::fs::metadata(candidate) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused = Some(error.to_string())
            }
            Err(_) => {}
            Ok(found) if found.is_dir() => {
                refused = refused.or_else(|| Some(format!("{} is a folder", candidate.display())));
            }
            Ok(_) => match accessat(CWD, candidate, Access::EXEC_OK, AtFlags::EACCESS) {
                Ok(()) => {
                    return match interpreter(candidate).filter(|path| !path.exists()) {
                        None => Ok(()),
                        Some(path) => Err(absent(format!(
                            "the first line of {} names {}, which is not there",
                            candidate.display(),
                            path.display().to_string().escape_debug()
                        ))),
                    };
                }
                Err(_) => refused = Some(format!("{} is not executable", candidate.display())),
            },
        }
    }
    Err(match refused {
        Some(why) => Failure::NotExecutable { name, why },
        None if program.as_bytes().contains(&b'/') => absent("there is no such file".to_owned()),
        None => absent("there is no program of that name in PATH".to_owned()),
    })
}

/// The program that a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    // As far as the kernel reads. A program that cannot be read can be run.
    File::open(script).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
    words.next().map(|word| OsStr::from_bytes(word).into())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    #[test]
    fn a_command_is_called_what_ps_calls_it() {
        for (command, name) in [
            ("/usr/bin/sleep 5", "sleep"),
            ("torchrun --nproc-per-node 4 train.py", "torchrun"),
            ("python3 train.py -m x", "train.py"),
            ("/v/bin/python -u -X faulthandler -W ignore /a/train.py", "train.py"),
            ("python3.12 -um torch.distributed.run x.py", "torch.distributed.run"),
            ("python -mtorch.distributed.run", "torch.distributed.run"),
            ("python -Xdev -Wd -m a.b", "a.b"),
            ("python --check-hash-based-pycs always y.py", "y.py"),
            ("python -c train.py", "python"),
            ("python - train.py", "python"),
            ("python", "python"),
            ("..", ".."),
        ] {
            let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            assert_eq!(super::name(&words), name, "{command}");
        }
    }
}
