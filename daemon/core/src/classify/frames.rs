//! What a thread does, by the frames of a stack: a table over modules, functions and Python files, as data.
//!
//! Stacks are often short: without frame pointers there is the innermost native frame and what Python was at. So one frame has
//! to do, and one that belongs to the C library says nothing.

use std::sync::LazyLock;

use super::{ApiClass, api_class};

/// What a thread does where it has a stack. The later, the more a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sight {
    /// On the way to everything: the C library, the interpreter, the kernel.
    Neutral,
    /// Work of the program's own.
    Own,
    /// It gives the CPU away, or is in a function that is named after waiting for others.
    Yields,
    /// It waits for a GPU.
    Device,
    /// It is in a communication library.
    Communicates,
}

const TABLE: &str = include_str!("frames.tsv");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Module,
    Function,
    Python,
}

type Rule = (Of, &'static str, Sight);

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| TABLE.lines().filter_map(rule).collect());

fn rule(line: &'static str) -> Option<Rule> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut fields = line.split('\t');
    let of = match fields.next()? {
        "module" => Of::Module,
        "function" => Of::Function,
        "python" => Of::Python,
        _ => return None,
    };
    let pattern = fields.next()?;
    let sight = match fields.next()? {
        "communicates" => Sight::Communicates,
        "device" => Sight::Device,
        "yields" => Sight::Yields,
        "neutral" => Sight::Neutral,
        _ => return None,
    };
    Some((of, pattern, sight))
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts<'a> {
    /// `path/file.py(42): function`.
    Line { file: &'a str, function: &'a str },
    /// `function (libfoo.so)`, `0x1a2b in libfoo.so`.
    Native { function: &'a str, module: &'a str },
    /// `function [kernel]`.
    Kernel,
}

fn parts(frame: &str) -> Parts<'_> {
    if frame.ends_with(" [kernel]") || frame.ends_with(" [bpf]") {
        return Parts::Kernel;
    }
    if let Some((place, function)) = frame.split_once("): ")
        && let Some((file, _)) = place.rsplit_once('(')
    {
        return Parts::Line { file, function };
    }
    if let Some((function, module)) = frame.rsplit_once(" (") {
        return Parts::Native { function, module: module.trim_end_matches(')') };
    }
    match frame.split_once(" in ") {
        Some((function, module)) if function.starts_with("0x") => Parts::Native { function, module },
        _ => Parts::Native { function: frame, module: "" },
    }
}

/// Whether a word of a name begins so.
fn begins_a_word(name: &str, pattern: &str) -> bool {
    name.match_indices(pattern).any(|(at, _)| {
        let before = name.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

fn python_matches(pattern: &str, file: &str, function: &str) -> bool {
    let (of_file, of_function) = match pattern.split_once(": ") {
        Some((file, function)) => (file, Some(function)),
        None => (pattern, None),
    };
    (of_file == "*" || file.ends_with(of_file)) && of_function.is_none_or(|name| name == function)
}

/// The strongest rule of a frame; none where it has no rule.
fn named(frame: &str) -> Option<Sight> {
    let of_parts = parts(frame);
    let matches = |&&(of, pattern, _): &&Rule| match (of, of_parts) {
        (Of::Module, Parts::Native { module, .. }) => module.starts_with(pattern),
        (Of::Function, Parts::Native { function, .. }) => begins_a_word(function, pattern),
        // What a Python program calls its own functions says nothing.
        (Of::Function, Parts::Line { file, function }) => {
            !file.ends_with(".py") && begins_a_word(function, pattern)
        }
        (Of::Python, Parts::Line { file, function }) => python_matches(pattern, file, function),
        _ => false,
    };
    let by_table = RULES.iter().filter(matches).map(|(.., sight)| *sight).max();
    let waits = |name: &str| {
        ["cuda", "cu", "hip"].iter().any(|vendor| name.starts_with(vendor))
            && api_class(name) == ApiClass::Sync
    };
    match of_parts {
        Parts::Native { function, .. } if waits(function) => by_table.max(Some(Sight::Device)),
        _ => by_table,
    }
}

/// What one frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    named: Option<Sight>,
    is_kernel: bool,
    /// A line of a program that is interpreted.
    is_script: bool,
}

impl Frame {
    pub(crate) fn of(name: &str) -> Self {
        let (is_kernel, is_script) = match parts(name) {
            Parts::Kernel => (true, false),
            Parts::Line { file, .. } => (false, file.ends_with(".py") || file.starts_with('<')),
            Parts::Native { .. } => (false, false),
        };
        Self { named: named(name), is_kernel, is_script }
    }
}

/// What a thread with this stack does; frames come from the outermost on.
pub(crate) fn sight(frames: impl DoubleEndedIterator<Item = Frame> + Clone) -> Sight {
    let strongest = frames.clone().filter_map(|frame| frame.named).max().unwrap_or(Sight::Neutral);
    if strongest > Sight::Own {
        return strongest;
    }
    // Whose work it is says the innermost frame outside of the kernel.
    match frames.rev().find(|frame| !frame.is_kernel) {
        Some(frame) if frame.named.is_none() && !frame.is_script => Sight::Own,
        _ => Sight::Neutral,
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Sight, TABLE, rule, sight};

    fn of(frames: &[&str]) -> Sight {
        sight(frames.iter().map(|frame| Frame::of(frame)))
    }

    #[test]
    fn every_line_of_the_table_is_a_rule_or_a_comment() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            assert!(rule(line).is_some(), "{line:?}");
        }
    }

    #[test]
    fn communication_is_told_by_module_function_and_python_file() {
        for frame in [
            "opal_progress (libopen-pal.so.80)",
            "0x2607a0 in libmpi.so.40",
            "PMPI_Allreduce (a.out)",
            "void gloo::allreduce<float> (libtorch_cpu.so)",
            "c10d::ProcessGroupGloo::AsyncWork::wait (libtorch_cpu.so)",
            "ncclGroupEnd (libtorch_cuda.so)",
            "/opt/site-packages/torch/distributed/distributed_c10d.py(2000): barrier",
        ] {
            assert_eq!(of(&["/job/train.py(12): main", frame]), Sight::Communicates, "{frame}");
        }
    }

    #[test]
    fn waits_for_devices_and_yields_are_weaker() {
        let line = "/job/train.py(12): main";
        assert_eq!(of(&[line, "cudaStreamSynchronize (libcudart.so.12)"]), Sight::Device);
        assert_eq!(of(&[line, "cuStreamSynchronize (a.out)"]), Sight::Device);
        assert_eq!(of(&[line, "0x1234 in libcuda.so.1"]), Sight::Device);
        assert_eq!(of(&[line, "__GI_sched_yield (libc.so.6)", "do_sched_yield [kernel]"]), Sight::Yields);
        assert_eq!(of(&["/job/sync.py(3): all_reduce", "memcpy (libc.so.6)"]), Sight::Yields);
    }

    #[test]
    fn what_names_nobody_is_the_programs_own_or_says_nothing() {
        let line = "/job/train.py(12): main";
        assert_eq!(of(&[line, "dgemm_kernel (libopenblas.so.0)"]), Sight::Own);
        assert_eq!(of(&[line, "solve (a.out)", "schedule [kernel]"]), Sight::Own);
        assert_eq!(of(&["mpi_main (a.out)", "RAMPI_work (a.out)"]), Sight::Own);
        assert_eq!(of(&["solver.cpp(80): step"]), Sight::Own);
        assert_eq!(of(&["/job/train.py(12): nccl_warm_up", "dgemm_kernel (libopenblas.so.0)"]), Sight::Own);
        assert_eq!(of(&[line, "memcpy (libc.so.6)"]), Sight::Neutral);
        assert_eq!(of(&[line, "_PyEval_EvalFrameDefault (python3.13)"]), Sight::Neutral);
        assert_eq!(of(&[line]), Sight::Neutral);
        assert_eq!(of(&["schedule [kernel]"]), Sight::Neutral);
        assert_eq!(of(&[]), Sight::Neutral);
    }
}
