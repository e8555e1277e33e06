//! Frames and the text that stands for them in a capture.

use std::fmt;
use std::sync::Arc;

/// Why a frame has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// The process was never looked at, or was forgotten.
    Process,
    /// Nothing executable is mapped at the address as far as is known.
    Mapping,
    /// Code without a file and without a perf map.
    Jit,
    /// The mapped file could not be opened, or too many are open already.
    FileUnavailable,
    /// The mapped file is not an ELF file that can be read.
    FileUnreadable,
    /// The file has no symbol for the address.
    Symbol,
    /// The kernel hides its addresses (kptr_restrict), or /proc/kallsyms cannot be read.
    KernelHidden,
}

/// One frame of native or kernel code. An address yields several where functions were inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeFrame {
    /// The function, demangled, without parameters; where it is unknown, what is known instead:
    /// `0x3f20 in libfoo.so` (where the function begins, or else the address, as the file counts it), `[jit]`,
    /// `[unknown]`.
    pub name: Arc<str>,
    /// The file's last component (`libfoo.so`), or in brackets a thing that is not a file: `[vdso]`, `[jit]`, `[kernel]`,
    /// the name of a kernel module.
    pub module: Arc<str>,
    /// The source file's last component, where there is debug information.
    pub file: Option<Arc<str>>,
    /// The line in it.
    pub line: Option<u32>,
    /// The function was inlined into the next outer frame.
    pub inlined: bool,
    /// Threads of a process begin in this function: nothing lies outside of it.
    pub thread_entry: bool,
    /// Why there is no name.
    pub missing: Option<Missing>,
}

impl NativeFrame {
    pub(crate) fn named(name: impl Into<Arc<str>>, module: &Arc<str>) -> Self {
        let name = name.into();
        Self {
            thread_entry: is_thread_entry(&name),
            name,
            module: Arc::clone(module),
            file: None,
            line: None,
            inlined: false,
            missing: None,
        }
    }

    pub(crate) fn unnamed(name: impl Into<Arc<str>>, module: &Arc<str>, why: Missing) -> Self {
        Self {
            name: name.into(),
            module: Arc::clone(module),
            file: None,
            line: None,
            inlined: false,
            thread_entry: false,
            missing: Some(why),
        }
    }
}

/// Objects whose functions are on the way to everything. A line of theirs tells a user nothing, and that they are theirs
/// does.
const RUNTIME: &[&str] = &[
    "libc.",
    "libc-",
    "libpthread",
    "ld-linux",
    "ld-2",
    "ld-musl",
    "libm.",
    "libm-",
    "libdl",
    "librt",
    "libpython",
    "python3",
    "libstdc++",
    "libgcc_s",
];

/// What a capture holds: `file.c(12): function` where the line is known, else `function (libfoo.so)` or
/// `function [kernel]`. Functions of the C, C++ and Python run times are always given with their object.
impl fmt::Display for NativeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_some() {
            return f.write_str(&self.name);
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) if !RUNTIME.iter().any(|r| self.module.starts_with(r)) => {
                write!(f, "{file}({line}): {}", self.name)
            }
            _ if self.module.starts_with('[') => write!(f, "{} {}", self.name, self.module),
            _ => write!(f, "{} ({})", self.name, self.module),
        }
    }
}

/// One frame of Python code, as the walker in the kernel half found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PythonFrame<'a> {
    /// The code object's file name.
    pub file: &'a str,
    /// The line that it was at, 0 if unknown.
    pub line: u32,
    /// The function's qualified name where it has one.
    pub function: &'a str,
}

/// `path/file.py(42): function`, as PyTorch's profiler writes it.
impl fmt::Display for PythonFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.file, self.line, self.function)
    }
}

/// Functions in which a thread begins, in glibc, musl and the Rust and C++ run times' view of them.
fn is_thread_entry(name: &str) -> bool {
    // A linker may append @@VERSION, a compiler .constprop.0 and the like.
    let name = name.split(['@', '.']).next().unwrap_or(name);
    matches!(
        name,
        "_start"
            | "_start_c"
            | "__libc_start_main"
            | "__libc_start_main_impl"
            | "__libc_start_call_main"
            | "libc_start_main_stage2"
            | "generic_start_main"
            | "_dl_start_user"
            | "_dl_relocate_static_pie"
            | "start_thread"
            | "clone"
            | "__clone"
            | "clone3"
            | "__clone3"
            | "__GI___clone"
            | "__GI___clone3"
            | "thread_start"
            | "thread_entry"
    )
}
