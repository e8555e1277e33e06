//! What starts ranks, told by arguments.

use crate::process::{Process, base_name};

/// A program that starts ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LauncherKind {
    /// torchrun, `python -m torch.distributed.run` or `.launch`.
    Torchrun,
    /// DeepSpeed's runner or its per-node launcher.
    DeepSpeed,
    /// `accelerate launch`.
    Accelerate,
    /// mpirun, mpiexec, prterun and their daemons on other nodes.
    Mpirun,
    /// srun, or the slurmstepd that runs a step's tasks on a node.
    Srun,
    /// A Python program that starts its ranks itself (torch.multiprocessing.spawn, subprocess).
    Python,
}

impl LauncherKind {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchrun => "torchrun",
            Self::DeepSpeed => "deepspeed",
            Self::Accelerate => "accelerate",
            Self::Mpirun => "mpirun",
            Self::Srun => "srun",
            Self::Python => "python",
        }
    }
}

/// Programs, also as scripts that Python runs.
const PROGRAMS: &[(&str, LauncherKind)] = &[
    ("torchrun", LauncherKind::Torchrun),
    ("deepspeed", LauncherKind::DeepSpeed),
    ("ds", LauncherKind::DeepSpeed),
    ("accelerate", LauncherKind::Accelerate),
    ("accelerate-launch", LauncherKind::Accelerate),
    ("mpirun", LauncherKind::Mpirun),
    ("mpiexec", LauncherKind::Mpirun),
    ("mpiexec.hydra", LauncherKind::Mpirun),
    ("hydra_pmi_proxy", LauncherKind::Mpirun),
    ("hydra_bstrap_proxy", LauncherKind::Mpirun),
    ("mpirun_rsh", LauncherKind::Mpirun),
    ("mpispawn", LauncherKind::Mpirun),
    ("orterun", LauncherKind::Mpirun),
    ("orted", LauncherKind::Mpirun),
    ("prterun", LauncherKind::Mpirun),
    ("prun", LauncherKind::Mpirun),
    ("prte", LauncherKind::Mpirun),
    ("prted", LauncherKind::Mpirun),
    ("srun", LauncherKind::Srun),
    ("slurmstepd", LauncherKind::Srun),
];

/// Modules that Python runs with -m.
const MODULES: &[(&str, LauncherKind)] = &[
    ("torch.distributed.run", LauncherKind::Torchrun),
    ("torch.distributed.launch", LauncherKind::Torchrun),
    ("deepspeed.launcher.launch", LauncherKind::DeepSpeed),
    ("deepspeed.launcher.runner", LauncherKind::DeepSpeed),
    ("accelerate.commands.launch", LauncherKind::Accelerate),
    ("accelerate.commands.accelerate_cli", LauncherKind::Accelerate),
];

/// Programs that run another and wait for it. A rank's variables may be set at them, the work is below.
const WRAPPERS: &[&str] = &[
    "bash",
    "sh",
    "dash",
    "zsh",
    "ksh",
    "csh",
    "tcsh",
    "fish",
    "busybox",
    "sudo",
    "su",
    "runuser",
    "timeout",
    "time",
    "nohup",
    "env",
    "conda",
    "mamba",
    "micromamba",
    "uv",
    "poetry",
    "pipenv",
    "nsys",
    "ncu",
    "perf",
    "strace",
    "ltrace",
    "gdb",
    "catchsegv",
    "dumb-init",
    "tini",
    "catatonit",
    "docker-init",
    "s6-svscan",
    "numactl",
    "taskset",
    "script",
    "apptainer",
    "singularity",
    "Apptainer runtime parent",
    "enroot",
    "xvfb-run",
];

/// Which launcher a process is, if any.
pub(crate) fn launcher(process: &Process) -> Option<LauncherKind> {
    // srun's daemon rewrites its arguments: `slurmstepd: [4242.0]`.
    if process.comm == "slurmstepd" {
        return Some(LauncherKind::Srun);
    }
    let program = process.program();
    if let Some(kind) = find(PROGRAMS, program) {
        return Some(kind);
    }
    if !process.is_python() {
        return None;
    }
    match python_runs(&process.cmdline)? {
        PythonRuns::Module(module) => find(MODULES, module),
        PythonRuns::Script(path) => find(PROGRAMS, base_name(path)),
        PythonRuns::Text => None,
    }
}

/// Whether a process only runs others.
pub(crate) fn is_wrapper(process: &Process) -> bool {
    let program = process.program();
    // A login shell's first argument begins with a dash.
    WRAPPERS.contains(&program.strip_prefix('-').unwrap_or(program)) && !process.is_python()
}

fn find(table: &[(&str, LauncherKind)], name: &str) -> Option<LauncherKind> {
    table.iter().find(|(row, _)| *row == name).map(|(_, kind)| *kind)
}

/// What a Python command line runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PythonRuns<'a> {
    Module(&'a str),
    Script(&'a str),
    /// `-c`, or standard input.
    Text,
}

/// Finds the script or the module behind the interpreter's own options.
pub(crate) fn python_runs(cmdline: &[String]) -> Option<PythonRuns<'_>> {
    let mut arguments = cmdline.iter().skip(1).map(String::as_str);
    while let Some(argument) = arguments.next() {
        let Some(options) = argument.strip_prefix('-').filter(|o| !o.is_empty()) else {
            return Some(if argument == "-" { PythonRuns::Text } else { PythonRuns::Script(argument) });
        };
        if options == "-check-hash-based-pycs" {
            arguments.next();
            continue;
        }
        if options.starts_with('-') {
            continue;
        }
        // Letters may be joined, the last may have its value behind it: -um torch.distributed.run, -Xfaulthandler.
        for (at, letter) in options.char_indices() {
            let value = options.get(at + letter.len_utf8()..).filter(|v| !v.is_empty());
            match letter {
                'c' => return Some(PythonRuns::Text),
                'm' => return value.or_else(|| arguments.next()).map(PythonRuns::Module),
                'X' | 'W' => {
                    if value.is_none() {
                        arguments.next();
                    }
                    break;
                }
                _ => {}
            }
        }
    }
    None
}

/// What a process runs, for people: a script, a module, or its program.
pub(crate) fn work_name(process: &Process) -> String {
    if process.is_python() {
        match python_runs(&process.cmdline) {
            Some(PythonRuns::Module(module)) => return module.to_owned(),
            Some(PythonRuns::Script(path)) => return base_name(path).to_owned(),
            Some(PythonRuns::Text) | None => {}
        }
    }
    process.program().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{PythonRuns, python_runs};

    fn line(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_interpreters_options_are_stepped_over() {
        for (text, expected) in [
            ("python train.py -m x", PythonRuns::Script("train.py")),
            ("python -u -X faulthandler -W ignore /a/torchrun x.py", PythonRuns::Script("/a/torchrun")),
            ("python -um torch.distributed.run x.py", PythonRuns::Module("torch.distributed.run")),
            ("python -mtorch.distributed.run", PythonRuns::Module("torch.distributed.run")),
            ("python -Xdev -Wd -m a.b", PythonRuns::Module("a.b")),
            ("python -c torchrun", PythonRuns::Text),
            ("python - torchrun", PythonRuns::Text),
            ("python --check-hash-based-pycs always y.py", PythonRuns::Script("y.py")),
        ] {
            assert_eq!(python_runs(&line(text)), Some(expected), "{text}");
        }
        for text in ["python", "python -m", "python -X", "python -u"] {
            assert_eq!(python_runs(&line(text)), None, "{text}");
        }
    }
}
