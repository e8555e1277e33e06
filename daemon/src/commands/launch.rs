//! Starting a job under the recorder.
//!
//! The command waits behind a named pipe until the probes are on: what it does from its first instruction on is seen. A
//! CUDA driver that it loads takes the agent in by itself (CUDA_INJECTION64_PATH), so that nothing has to be put in. The
//! agent's file stays until the command has ended: a driver that does not find it there refuses to start.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use rustix::fs::{CWD, Mode, mkfifoat};
use stallscope_agents::{cupti_for_launch, everything};

use crate::failure::Failure;

/// Waits for a line from the pipe, then becomes the command. Without a line nobody records: then it does not begin.
const HOLD: &str = r#"read -r go <"$0" || exit 125; exec "$@""#;

/// A command that waits to begin, or has begun.
pub(crate) struct Launched {
    child: Child,
    /// Both ends of the pipe, for as long as the command has not begun.
    go: Option<File>,
    // Last: it is removed when everything else is gone.
    _folder: tempfile::TempDir,
}

impl Launched {
    /// Starts a command up to its own first instruction. `agent` is what the CUDA driver is to take in.
    pub(crate) fn hold(command: &[OsString], agent: Option<&[u8]>) -> Result<Self, Failure> {
        let failed = |path: PathBuf| move |source| Failure::Spool { folder: path, source };
        let folder = tempfile::Builder::new().prefix("stallscope-").tempdir();
        let folder = folder.map_err(failed(std::env::temp_dir()))?;
        let here = || folder.path().to_owned();
        let pipe = folder.path().join("go");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).map_err(|e| failed(here())(e.into()))?;
        let go = OpenOptions::new().read(true).write(true).open(&pipe).map_err(failed(here()))?;
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(HOLD).arg(&pipe).args(command);
        if let Some(agent) = agent {
            let path = folder.path().join("libstallscope_agent.so");
            std::fs::write(&path, agent).map_err(failed(here()))?;
            // Whoever runs the job may be another user than this one.
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folder.path(), readable).map_err(failed(here()))?;
            shell.env("CUDA_INJECTION64_PATH", path);
            // What docs/agent.md says of these.
            shell.env("STALLSCOPE_KINDS", everything().kinds.to_string());
            if let Some(cupti) = cupti_for_launch() {
                shell.env("STALLSCOPE_CUPTI", &cupti);
                // Ranges that the program marks reach CUPTI only where NVTX was told so at its start.
                shell.env("NVTX_INJECTION64_PATH", cupti);
            }
        }
        let child = shell.spawn().map_err(|source| Failure::Start { source })?;
        Ok(Self { child, go: Some(go), _folder: folder })
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

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> std::io::Result<ExitStatus> {
        // One that was not let go ends by itself: nobody has the pipe any more.
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
