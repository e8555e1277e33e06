//! What a host stack was busy with: a table over its frames, as data.

use std::sync::LazyLock;

/// A kind of host work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostWork {
    /// Stable name: the `idle-…` rule that speaks of it.
    pub(crate) kind: &'static str,
    /// What to call it in a sentence.
    pub(crate) what: &'static str,
}

/// Frames that no rule names.
pub(super) const FRAMEWORK: HostWork = HostWork { kind: "framework", what: "Python and framework code" };
/// No frames at all.
pub(crate) const UNSEEN: HostWork =
    HostWork { kind: "host-unseen", what: "something that the trace does not show" };

/// Frames that no rule names, the innermost of which is in the kernel on behalf of the thread.
const KERNEL: HostWork = HostWork { kind: "kernel", what: "the kernel" };

/// Ends of the names of frames in the kernel.
const IN_KERNEL: &str = " [kernel]";
/// Entries of system calls into the kernel, by architecture.
const CALLS: &[&str] = &["__x64_sys_", "__arm64_sys_", "__ia32_sys_"];
/// What stands for a system call where the frame of its entry was left out.
const INSIDE_CALLS: &[&str] = &["__do_sys_", "__se_sys_", "do_sys_", "ksys_"];
/// The way into the kernel of all calls.
const WAY_IN: &[&str] =
    &["entry_", "do_syscall_", "x64_sys_call", "el0t_", "el0_svc", "do_el0_svc", "invoke_syscall"];
/// Where interrupts and switches to other threads begin.
const INTERRUPTS: &[&str] = &[
    "asm_",
    "sysvec_",
    "common_interrupt",
    "irq",
    "__irq_exit",
    "el0_irq",
    "el0_interrupt",
    "handle_softirqs",
    "__do_softirq",
    "exit_to_user_mode",
    "syscall_exit_to_user_mode",
    "schedule",
    "__schedule",
    "finish_task_switch",
    "_raw_spin_unlock",
    "ret_from_fork",
];
/// Functions that page faults go through.
const FAULTS: &[&str] = &["exc_page_fault", "do_user_addr_fault", "handle_mm_fault", "do_page_fault"];

const TABLE: &str = include_str!("host_work.tsv");

static RULES: LazyLock<Vec<(&'static str, HostWork)>> =
    LazyLock::new(|| TABLE.lines().filter(|l| !l.starts_with('#')).filter_map(parse).collect());

fn parse(line: &'static str) -> Option<(&'static str, HostWork)> {
    let mut fields = line.split('\t');
    Some((fields.next()?, HostWork { kind: fields.next()?, what: fields.next()? }))
}

/// What a stack was busy with, and the frame that says so.
#[must_use]
pub(crate) fn host_work<'a>(frames: &[&'a str]) -> (HostWork, Option<&'a str>) {
    if frames.is_empty() {
        return (UNSEEN, None);
    }
    let lower: Vec<String> = frames.iter().map(|f| f.to_ascii_lowercase()).collect();
    for (pattern, work) in RULES.iter() {
        // The innermost frame that matches is the most telling.
        if let Some(at) = lower.iter().rposition(|f| f.contains(pattern)) {
            return (*work, frames.get(at).copied());
        }
    }
    asked_of_kernel(frames).map_or((FRAMEWORK, None), |entry| (KERNEL, Some(entry)))
}

/// The frame that says what a stack that ends in the kernel asked of it.
fn asked_of_kernel<'a>(frames: &[&'a str]) -> Option<&'a str> {
    // Modules and BPF programs have names of their own in the brackets.
    frames.last().filter(|f| f.ends_with(']') && f.contains(" ["))?;
    let first = |is: fn(&str) -> bool| frames.iter().find(|f| is(f)).copied();
    let entry = frames.iter().rfind(|f| faults(f) || call_of(f, CALLS).is_some()).copied();
    // An interrupt or a switch to another thread is nothing that the code asked for: it may come anywhere.
    let beneath = || first(is_beneath_entry).filter(|f| !INTERRUPTS.iter().any(|of| f.starts_with(of)));
    entry.or_else(|| first(|f| call_of(f, INSIDE_CALLS).is_some())).or_else(beneath)
}

/// Whether a frame is in the kernel and not of the way into it, which is the same for all calls.
fn is_beneath_entry(frame: &str) -> bool {
    frame.ends_with(IN_KERNEL) && !WAY_IN.iter().any(|of| frame.starts_with(of))
}

fn faults(frame: &str) -> bool {
    frame.strip_suffix(IN_KERNEL).is_some_and(|name| FAULTS.iter().any(|fault| name.ends_with(fault)))
}

fn call_of<'a>(frame: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    let name = frame.strip_suffix(IN_KERNEL)?;
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// How to call the frame that says what a stack was busy with: `fsync()` or `page faults` of one in the kernel.
pub(super) fn seen_in(frame: &str) -> String {
    if faults(frame) {
        return "page faults".to_owned();
    }
    let call = call_of(frame, CALLS).or_else(|| call_of(frame, INSIDE_CALLS));
    call.map_or_else(|| frame.to_owned(), |call| format!("{call}()"))
}

/// What a host is busy with, after "busy".
pub(super) fn busy(what: &str) -> String {
    let preposition = if what == KERNEL.what { "in" } else { "with" };
    format!("{preposition} {what}")
}

#[cfg(test)]
mod tests {
    use super::super::rules::{RULES, rule};
    use super::{FRAMEWORK, KERNEL, TABLE, UNSEEN, busy, host_work, parse, seen_in};

    #[test]
    fn every_kind_of_the_table_has_a_rule() {
        for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
            let (pattern, work) = parse(line).unwrap_or_else(|| panic!("not a rule: {line:?}"));
            assert_eq!(pattern, pattern.to_ascii_lowercase(), "patterns are compared in lower case");
            assert_eq!(rule(&format!("idle-{}", work.kind)).category, "idle", "{}", work.kind);
        }
        assert!(RULES.iter().any(|r| r.id == format!("idle-{}", FRAMEWORK.kind)));
        assert!(RULES.iter().any(|r| r.id == format!("idle-{}", KERNEL.kind)));
        assert!(RULES.iter().any(|r| r.id == format!("idle-{}", UNSEEN.kind)));
    }

    #[test]
    fn a_data_loader_is_recognised_in_old_and_new_traces() {
        for frame in [
            "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",
            "torch/utils/data/dataloader.py(631): __next__",
        ] {
            let (work, evidence) = host_work(&["train.py(12): main", frame, "aten::stack"]);
            assert_eq!((work.kind, evidence), ("data-loading", Some(frame)));
        }
        assert_eq!(host_work(&["aten::conv2d"]).0, FRAMEWORK);
        assert_eq!(host_work(&[]).0, UNSEEN);
    }

    #[test]
    fn the_garbage_collector_is_recognised_by_its_native_frames_too() {
        for frame in [
            "gc_collect_main (libpython3.11.so.1.0)",
            "gc_collect_with_callback (python3.11)",
            "gc_collect_generations (python3.12)",
            "_Py_RunGC (python3.12)",
            "_PyGC_Collect (python3.14)",
            "_PyGC_CollectNoFail (python3.12)",
            // Where the interpreter was built without frame pointers the collector's own frame is missing.
            "visit_decref (libpython3.11.so.1.0)",
            "dict_traverse (libpython3.11.so.1.0)",
        ] {
            let (work, evidence) = host_work(&["train.py(12): main", frame, "_PyObject_IS_GC (python3)"]);
            assert_eq!((work.kind, evidence), ("garbage-collection", Some(frame)));
        }
        // Whether an object is tracked is asked by other code as well.
        assert_eq!(host_work(&["train.py(12): main", "_PyObject_IS_GC (python3)"]).0, FRAMEWORK);
    }

    #[test]
    fn what_the_kernel_does_for_a_call_or_a_fault_is_not_the_frameworks() {
        let of = |frames: &[&str]| {
            let (work, frame) = host_work(frames);
            (work.kind, frame.map(seen_in))
        };
        let kernel = |what: &str| (KERNEL.kind, Some(what.to_owned()));
        let fsync = ["train.py(7): save", "__x64_sys_fsync [kernel]", "iowrite16 [kernel]"];
        assert_eq!(of(&fsync), kernel("fsync()"));
        let fault = ["train.py(7): step", "handle_mm_fault [kernel]", "iowrite16 [kernel]"];
        assert_eq!(of(&fault), kernel("page faults"));
        let read = ["train.py(7): load", "ksys_read [kernel]", "copy_folio_to_iter [kernel]"];
        assert_eq!(of(&read), kernel("read()"));
        let mmap = ["train.py(7): load", "do_syscall_64 [kernel]", "vm_mmap_pgoff [kernel]", "down [kernel]"];
        assert_eq!(of(&mmap), kernel("vm_mmap_pgoff [kernel]"), "calls in the end of a call leave no frame");
        let probed = ["train.py(7): save", "__x64_sys_fsync [kernel]", "bpf_prog_1 [bpf]"];
        assert_eq!(of(&probed), kernel("fsync()"));
        assert_eq!(of(&["train.py(7): save", "[unknown]"]).0, FRAMEWORK.kind);
        assert_eq!(busy(KERNEL.what), "in the kernel");
        // What is known by its other frames stays that.
        let loads = ["torch/utils/data/dataloader.py(631): __next__", "ksys_read [kernel]"];
        assert_eq!(of(&loads).0, "data-loading");
        // Interrupts and switches come in between anywhere.
        for leaf in ["finish_task_switch.isra.0", "_raw_spin_unlock_irqrestore", "handle_softirqs"] {
            let stack = ["train.py(5): step", "asm_sysvec_apic_timer_interrupt [kernel]"];
            assert_eq!(of(&[stack[0], stack[1], &format!("{leaf} [kernel]")]).0, FRAMEWORK.kind);
            assert_eq!(of(&[stack[0], &format!("{leaf} [kernel]")]).0, FRAMEWORK.kind);
        }
    }
}
