//! Puts the Python, native and kernel parts of a stack together, for people.
//!
//! The Python part comes first, then what native code ran below the innermost Python function, then the kernel. Native
//! frames in between, those of the interpreter, say nothing that the Python frames do not say.

use crate::frame::{NativeFrame, PythonFrame};

/// Whether the outermost frame is not one in which threads begin: the stack ends early, since code on the way was
/// compiled without frame pointers, or it is deeper than what is recorded.
#[must_use]
pub fn looks_cut(frames: &[NativeFrame]) -> bool {
    !frames.last().is_some_and(|outermost| outermost.thread_entry)
}

/// The text of a whole stack, outermost first. `python` comes outermost first; `native` and `kernel` innermost first, as
/// the symboliser gives them.
#[must_use]
pub fn merge(python: &[PythonFrame<'_>], native: &[NativeFrame], kernel: &[NativeFrame]) -> Vec<String> {
    let native = if python.is_empty() { native } else { below_python(native) };
    let glue = |frame: &&NativeFrame| !python.is_empty() && is_call_glue(base(&frame.name));
    let mut text: Vec<String> = python.iter().map(PythonFrame::to_string).collect();
    text.extend(native.iter().rev().filter(|frame| !glue(frame)).map(NativeFrame::to_string));
    text.extend(kernel_part(kernel).iter().rev().map(NativeFrame::to_string));
    text
}

/// The native frames that the innermost Python function called: those inside of the innermost interpreter frame. Without
/// an interpreter frame, because the stack is cut, all that there are.
fn below_python(native: &[NativeFrame]) -> &[NativeFrame] {
    let interpreter = native.iter().position(is_interpreter);
    &native[..interpreter.unwrap_or(native.len())]
}

/// The loop that runs byte code, or what starts it: nothing outside of these belongs below a Python frame.
fn is_interpreter(frame: &NativeFrame) -> bool {
    let name = base(&frame.name);
    let starts = [
        "_PyEval_",
        "PyEval_Eval",
        // The loop of 3.14, where each instruction is a function.
        "_TAIL_CALL_",
        // The trampoline of 3.12 that gives Python functions native frames, and what its perf map calls them.
        "py::",
        "py_trampoline_evaluator",
        "Py_RunMain",
        "Py_BytesMain",
        "pymain_",
        "thread_run",
        "pythread_wrapper",
    ];
    starts.iter().any(|start| name.starts_with(start)) || frame.thread_entry
}

/// How the interpreter gets from a byte code to a C function.
fn is_call_glue(name: &str) -> bool {
    let starts = [
        "_PyFunction_",
        "_PyObject_",
        "PyObject_",
        "PyVectorcall_",
        "_PyVectorcall_",
        "cfunction_",
        "method_vectorcall",
    ];
    let others = [
        "slot_tp_call",
        "_PyCFunction_FastCallKeywords",
        "_PyMethodDef_RawFastCallKeywords",
        "type_call",
        "builtin_exec",
        "partial_vectorcall",
        "wrapperdescr_call",
        "wrap_call",
        "context_run",
    ];
    // Calls alone: PyObject_GetAttr may be where the time goes.
    let calls = name.contains("Call") || name.contains("Vectorcall") || name.contains("vectorcall");
    (calls && starts.iter().any(|start| name.starts_with(start)))
        || name.starts_with("cfunction_")
        || others.contains(&name)
}

/// The kernel's frames without the way in from user mode at the outer end, and without the scheduler and the probes at the
/// inner end: every wait ends there.
fn kernel_part(kernel: &[NativeFrame]) -> &[NativeFrame] {
    let names = |frame: &NativeFrame| base(&frame.name).to_owned();
    let begin = kernel.iter().position(|frame| !is_scheduling(&names(frame))).unwrap_or(0);
    let kernel = &kernel[begin..];
    let end = kernel.iter().rposition(|frame| !is_kernel_entry(&names(frame))).map_or(0, |last| last + 1);
    &kernel[..end]
}

fn is_scheduling(name: &str) -> bool {
    let starts = ["bpf_", "__bpf_", "__traceiter_", "trace_event_", "perf_trace_", "preempt_schedule"];
    starts.iter().any(|start| name.starts_with(start))
        || matches!(name, "schedule" | "__schedule" | "__schedule_loop" | "schedule_preempt_disabled")
}

fn is_kernel_entry(name: &str) -> bool {
    let starts = ["entry_SYSCALL", "entry_INT80", "asm_", "ret_from_fork", "do_syscall_", "el0"];
    starts.iter().any(|start| name.starts_with(start))
        || matches!(
            name,
            "x64_sys_call"
                | "ia32_sys_call"
                | "do_int80_emulation"
                | "invoke_syscall"
                | "do_el0_svc"
                | "error_entry"
        )
}

/// A name without what compilers append to the parts of a function.
fn base(name: &str) -> &str {
    // A name that begins with a dot would have no base.
    name.find('.').filter(|&at| at > 0).map_or(name, |at| &name[..at])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{looks_cut, merge};
    use crate::frame::{Missing, NativeFrame, PythonFrame};

    /// Frames from names, innermost first.
    fn frames(names: &[&str], module: &str) -> Vec<NativeFrame> {
        let module: Arc<str> = module.into();
        names.iter().map(|&name| NativeFrame::named(name, &module)).collect()
    }

    const PYTHON: [PythonFrame<'static>; 2] = [
        PythonFrame { file: "/app/train.py", line: 7, function: "<module>" },
        PythonFrame { file: "/app/data.py", line: 42, function: "Loader.read" },
    ];

    #[test]
    fn native_frames_below_python_follow_its_frames() {
        let native = frames(
            &[
                "__read",
                "_Py_read",
                "cfunction_call",
                "_PyObject_MakeTpCall",
                "_PyEval_EvalFrameDefault.cold",
                "_PyFunction_Vectorcall",
                "PyObject_Call",
                "_PyEval_EvalFrameDefault",
                "PyEval_EvalCode",
                "Py_RunMain",
                "main",
                "__libc_start_call_main",
            ],
            "libc.so.6",
        );
        let kernel = frames(
            &[
                "bpf_prog_e6f1_on_switch",
                "__traceiter_sched_switch",
                "__schedule",
                "schedule",
                "io_schedule",
                "folio_wait_bit_common",
                "vfs_read",
                "ksys_read",
                "__x64_sys_read",
                "x64_sys_call",
                "do_syscall_64",
                "entry_SYSCALL_64_after_hwframe",
            ],
            "[kernel]",
        );
        assert_eq!(
            merge(&PYTHON, &native, &kernel),
            [
                "/app/train.py(7): <module>",
                "/app/data.py(42): Loader.read",
                "_Py_read (libc.so.6)",
                "__read (libc.so.6)",
                "__x64_sys_read [kernel]",
                "ksys_read [kernel]",
                "vfs_read [kernel]",
                "folio_wait_bit_common [kernel]",
                "io_schedule [kernel]",
            ]
        );
    }

    #[test]
    fn without_python_everything_is_kept() {
        let native = frames(&["work", "PyObject_Call", "main", "_start"], "job");
        assert_eq!(
            merge(&[], &native, &[]),
            ["_start (job)", "main (job)", "PyObject_Call (job)", "work (job)"]
        );
        assert!(merge(&[], &[], &[]).is_empty());
    }

    #[test]
    fn a_cut_stack_gives_its_leaf() {
        let native = frames(&["__memcpy_avx", "at::native::copy", "PyObject_Call"], "libtorch_cpu.so");
        assert_eq!(
            merge(&PYTHON, &native, &[])[2..],
            ["at::native::copy (libtorch_cpu.so)", "__memcpy_avx (libtorch_cpu.so)",]
        );
    }

    #[test]
    fn a_complete_stack_without_an_interpreter_loop_leaves_its_outer_part_out() {
        let native = frames(&["sem_wait", "Py_BytesMain", "main", "__libc_start_call_main"], "python3");
        assert_eq!(merge(&PYTHON, &native, &[])[2..], ["sem_wait (python3)"]);
    }

    #[test]
    fn pure_python_has_no_native_part() {
        let native = frames(&["_PyEval_EvalFrameDefault", "PyEval_EvalCode", "main", "_start"], "python3");
        assert_eq!(merge(&PYTHON, &native, &[]).len(), 2);
        let attribute = frames(&["PyObject_GetAttr", "_PyEval_EvalFrameDefault"], "python3");
        assert_eq!(merge(&PYTHON, &attribute, &[]).len(), 3, "a call's glue is dropped, work is not");
    }

    #[test]
    fn a_wait_in_the_scheduler_alone_keeps_a_frame() {
        let kernel = frames(&["__schedule", "schedule"], "[kernel]");
        assert_eq!(merge(&[], &[], &kernel), ["schedule [kernel]", "__schedule [kernel]"]);
        let entry = frames(&["do_syscall_64", "entry_SYSCALL_64_after_hwframe"], "[kernel]");
        assert!(merge(&[], &[], &entry).is_empty());
    }

    #[test]
    fn a_stack_is_cut_unless_a_thread_begins_in_its_outermost_frame() {
        for entry in
            ["_start", "__libc_start_main@@GLIBC_2.34", "__libc_start_main_impl", "clone3", "start_thread"]
        {
            assert!(!looks_cut(&frames(&["work", entry], "x")), "{entry}");
        }
        assert!(looks_cut(&frames(&["work", "main"], "x")));
        assert!(looks_cut(&frames(&["_start", "work"], "x")));
        assert!(looks_cut(&[]));
    }

    #[test]
    fn text_has_the_line_where_it_is_known() {
        let mut frame = frames(&["f"], "libx.so").remove(0);
        assert_eq!(frame.to_string(), "f (libx.so)");
        frame.file = Some("x.c".into());
        assert_eq!(frame.to_string(), "f (libx.so)");
        frame.line = Some(12);
        assert_eq!(frame.to_string(), "x.c(12): f");
        let module: Arc<str> = "libx.so".into();
        assert_eq!(
            NativeFrame::unnamed("0x10 in libx.so", &module, Missing::Symbol).to_string(),
            "0x10 in libx.so"
        );
    }
}
