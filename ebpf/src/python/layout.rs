//! Where the fields lie that frames, threads and code objects are found by.
//!
//! 3.10, 3.11 and 3.12 have tables: the offsets that a C program compiled against each version's own headers
//! (`internal/pycore_*.h`, x86-64, release build) prints with `offsetof`. CPython keeps these structures within a minor
//! version. 3.13 and 3.14 describe themselves: `_PyRuntime` begins with `_Py_DebugOffsets`, whose order of fields is
//! again one per minor version.

use std::fmt;

use super::NotPython;
use super::memory::Memory;

/// A version of CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 3.
    pub major: u8,
    /// 10 to 14.
    pub minor: u8,
    /// Patch level, where it is known.
    pub micro: Option<u8>,
    /// Whether it is an alpha or a beta, whose structures still change.
    pub unfinished: bool,
}

impl Version {
    /// From `PY_VERSION_HEX`: major, minor, micro, and in the last byte level and serial.
    pub(crate) fn from_hex(hex: u64) -> Option<Self> {
        let [level, micro, minor, major, 0, 0, 0, 0] = hex.to_le_bytes() else { return None };
        // 0xa alpha, 0xb beta, 0xc candidate, 0xf final.
        (matches!(major, 2..=4) && level >> 4 >= 0xa).then_some(Self {
            major,
            minor,
            micro: Some(micro),
            unfinished: level >> 4 < 0xc,
        })
    }

    /// From digits in a file's name: `3.10`.
    pub(crate) fn from_name(minor: u8) -> Self {
        Self { major: 3, minor, micro: None, unfinished: false }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if let Some(micro) = self.micro {
            write!(f, ".{micro}")?;
        }
        f.write_str(if self.unfinished { " (pre-release)" } else { "" })
    }
}

/// Offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `_PyRuntimeState.interpreters.head`.
    pub(crate) interpreters: u32,
    /// `PyInterpreterState.next` and its first thread.
    pub(crate) interpreter_next: u32,
    pub(crate) interpreter_threads: u32,
    /// `PyThreadState`.
    pub(crate) thread_next: u32,
    pub(crate) thread_interpreter: u32,
    pub(crate) thread_id: u32,
    /// Its innermost frame (3.10: `frame`; from 3.13: `current_frame`), or its `cframe`, which has it.
    pub(crate) thread_frame: u32,
    /// `_PyCFrame.current_frame` of 3.11 and 3.12.
    pub(crate) cframe_frame: Option<u32>,
    pub(crate) frame: FrameLayout,
    pub(crate) code: CodeLayout,
    /// `sizeof(PyASCIIObject)` and `sizeof(PyCompactUnicodeObject)`: where the characters begin.
    pub(crate) ascii_size: u32,
    pub(crate) compact_size: u32,
}

/// `PyFrameObject` of 3.10, `_PyInterpreterFrame` afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameLayout {
    pub(crate) previous: u32,
    pub(crate) code: u32,
    /// 3.10: `f_lasti`, an index; afterwards an address.
    pub(crate) instruction: u32,
    pub(crate) instruction_is_index: bool,
    /// Who owns the frame, and from which value on it is none of Python's but a mark of the interpreter.
    pub(crate) owner: Option<(u32, u8)>,
}

/// `PyCodeObject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodeLayout {
    pub(crate) size: u32,
    pub(crate) filename: u32,
    pub(crate) name: u32,
    pub(crate) qualified_name: Option<u32>,
    pub(crate) line_table: u32,
    pub(crate) first_line: u32,
    /// First instruction; 3.10 has them in an object by itself.
    pub(crate) instructions: Option<u32>,
}

/// The same in all versions: `PyObject.ob_type`, `PyTypeObject.tp_name`, `PyVarObject.ob_size`, `PyBytesObject.ob_sval`,
/// `PyASCIIObject.length` and `.state`.
pub(crate) const OBJECT_TYPE: u32 = 8;
pub(crate) const TYPE_NAME: u32 = 24;
pub(crate) const VAR_SIZE: u32 = 16;
pub(crate) const BYTES_DATA: u32 = 32;
pub(crate) const TEXT_LENGTH: u32 = 16;
pub(crate) const TEXT_STATE: u32 = 32;

/// Bytes of a frame that the kernel half reads at most.
pub(crate) const FRAME_BYTES: u32 = 120;

impl Layout {
    /// The layout of a version, which from 3.13 on the interpreter itself describes.
    pub(crate) fn of(version: Version, debug: Option<&DebugOffsets>) -> Result<Self, NotPython> {
        let unsupported = || NotPython::UnsupportedVersion { version: version.to_string() };
        if version.major != 3 || version.unfinished {
            return Err(unsupported());
        }
        match (version.minor, debug) {
            (10, None) => Some(layout_3_10()),
            (11, None) => Some(layout_3_11()),
            (12, None) => Some(layout_3_12()),
            (13 | 14, Some(debug)) if debug.word(2) != Some(0) => {
                return Err(NotPython::FreeThreaded { version });
            }
            (13, Some(debug)) => debug.layout_3_13(),
            (14, Some(debug)) => debug.layout_3_14(),
            _ => return Err(unsupported()),
        }
        .ok_or(NotPython::UnknownLayout { version, what: "_Py_DebugOffsets" })
    }
}

/// Headers of 3.10.13.
fn layout_3_10() -> Layout {
    Layout {
        interpreters: 32,
        interpreter_next: 0,
        interpreter_threads: 8,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 176,
        thread_frame: 24,
        cframe_frame: None,
        frame: FrameLayout {
            previous: 24,
            code: 32,
            instruction: 96,
            instruction_is_index: true,
            owner: None,
        },
        code: CodeLayout {
            size: 176,
            filename: 104,
            name: 112,
            qualified_name: None,
            line_table: 120,
            first_line: 40,
            instructions: None,
        },
        ascii_size: 48,
        compact_size: 72,
    }
}

/// Headers of 3.11.2 and 3.11.7.
fn layout_3_11() -> Layout {
    Layout {
        interpreters: 40,
        interpreter_next: 0,
        interpreter_threads: 16,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 152,
        thread_frame: 56,
        cframe_frame: Some(8),
        // Owned by a thread, a generator or a frame object: all of them are Python's.
        frame: FrameLayout {
            previous: 48,
            code: 32,
            instruction: 56,
            instruction_is_index: false,
            owner: None,
        },
        code: CodeLayout {
            size: 192,
            filename: 112,
            name: 120,
            qualified_name: Some(128),
            line_table: 136,
            first_line: 72,
            instructions: Some(184),
        },
        ascii_size: 48,
        compact_size: 72,
    }
}

/// Headers of 3.12.1.
fn layout_3_12() -> Layout {
    Layout {
        interpreters: 40,
        interpreter_next: 0,
        interpreter_threads: 72,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 136,
        thread_frame: 56,
        cframe_frame: Some(0),
        frame: FrameLayout {
            previous: 8,
            code: 0,
            instruction: 56,
            instruction_is_index: false,
            owner: Some((70, OWNED_BY_INTERPRETER)),
        },
        code: CodeLayout {
            size: 200,
            filename: 112,
            name: 120,
            qualified_name: Some(128),
            line_table: 136,
            first_line: 68,
            instructions: Some(192),
        },
        ascii_size: 40,
        compact_size: 56,
    }
}

/// `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13, `FRAME_OWNED_BY_INTERPRETER` of 3.14 (where the other follows it).
const OWNED_BY_INTERPRETER: u8 = 3;

/// `_Py_DebugOffsets`, as words.
#[derive(Clone, Debug)]
pub(crate) struct DebugOffsets {
    words: Vec<u64>,
}

const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");
/// Words that are needed of 3.14's, the longer one.
const DEBUG_WORDS: usize = 81;

impl DebugOffsets {
    /// What `_PyRuntime` begins with, if it begins with that.
    pub(crate) fn read(memory: &Memory, runtime: u64) -> Option<Self> {
        let mut bytes = vec![0; DEBUG_WORDS * 8];
        memory.read(runtime, &mut bytes)?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        (words.first() == Some(&COOKIE)).then_some(Self { words })
    }

    pub(crate) fn version(&self) -> u64 {
        self.word(1).unwrap_or(0)
    }

    fn word(&self, at: usize) -> Option<u64> {
        self.words.get(at).copied()
    }

    /// An offset that is a multiple of four and less than `below`.
    fn offset(&self, at: usize, below: u32) -> Option<u32> {
        let offset = u32::try_from(self.word(at)?).ok()?;
        (offset < below && offset % 4 == 0).then_some(offset)
    }

    fn layout_3_13(&self) -> Option<Layout> {
        self.layout(&Places { thread: 19, frame: 28, code: 34, instructions: 43, ascii_size: 70 })
    }

    fn layout_3_14(&self) -> Option<Layout> {
        self.layout(&Places { thread: 22, frame: 31, code: 39, instructions: 48, ascii_size: 80 })
    }

    fn layout(&self, places: &Places) -> Option<Layout> {
        let Places { thread, frame, code, instructions, ascii_size } = *places;
        // Sizes of the structures today: _PyRuntime 310 KB, an interpreter 290 KB, a thread 700 bytes, code 220.
        const STATE: u32 = 1 << 24;
        const THREAD: u32 = 1 << 14;
        const CODE: u32 = 1 << 10;
        let owner = u32::try_from(self.word(frame + 5)?).ok().filter(|at| *at < FRAME_BYTES)?;
        Some(Layout {
            interpreters: self.offset(5, STATE)?,
            interpreter_next: self.offset(8, STATE)?,
            interpreter_threads: self.offset(9, STATE)?,
            thread_next: self.offset(thread + 2, THREAD)?,
            thread_interpreter: self.offset(thread + 3, THREAD)?,
            thread_frame: self.offset(thread + 4, THREAD)?,
            thread_id: self.offset(thread + 5, THREAD)?,
            cframe_frame: None,
            frame: FrameLayout {
                previous: self.offset(frame + 1, FRAME_BYTES - 7)?,
                code: self.offset(frame + 2, FRAME_BYTES - 7)?,
                instruction: self.offset(frame + 3, FRAME_BYTES - 7)?,
                instruction_is_index: false,
                owner: Some((owner, OWNED_BY_INTERPRETER)),
            },
            code: CodeLayout {
                size: self.offset(code, CODE)?,
                filename: self.offset(code + 1, CODE)?,
                name: self.offset(code + 2, CODE)?,
                qualified_name: Some(self.offset(code + 3, CODE)?),
                line_table: self.offset(code + 4, CODE)?,
                first_line: self.offset(code + 5, CODE)?,
                instructions: Some(self.offset(instructions, CODE)?),
            },
            ascii_size: self.offset(ascii_size, CODE)?,
            // Not told before 3.15; the same since 3.12.
            compact_size: 56,
        })
    }
}

/// Where in `_Py_DebugOffsets` the groups begin, and two fields that lie late in theirs; in words.
struct Places {
    thread: usize,
    frame: usize,
    code: usize,
    instructions: usize,
    ascii_size: usize,
}

#[cfg(test)]
mod tests {
    use super::{COOKIE, DebugOffsets, Layout, Version};
    use crate::python::NotPython;

    fn version(hex: u64) -> Version {
        Version::from_hex(hex).unwrap()
    }

    /// `_Py_DebugOffsets` of 3.14.10, as far as it is read; the other words are 7, which no field is at.
    fn debug_3_14() -> Vec<u64> {
        let mut words = vec![7; 81];
        let known = [
            (0, COOKIE),
            (1, 0x030e_0af0),
            (2, 0),
            (5, 808),
            (8, 7272),
            (9, 7344),
            (24, 8),
            (25, 16),
            (26, 72),
            (27, 152),
            (32, 8),
            (33, 0),
            (34, 56),
            (36, 74),
            (39, 216),
            (40, 112),
            (41, 120),
            (42, 128),
            (43, 136),
            (44, 68),
            (48, 208),
            (80, 40),
        ];
        for (at, value) in known {
            words[at] = value;
        }
        words
    }

    fn read(words: &[u64]) -> DebugOffsets {
        DebugOffsets::parse(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn versions_are_read_and_unknown_ones_refused_by_name() {
        assert_eq!(version(0x030b_07f0).to_string(), "3.11.7");
        assert_eq!(version(0x030e_00b3).to_string(), "3.14.0 (pre-release)");
        assert!(!version(0x030e_00c1).unfinished, "candidates are as the final version");
        assert_eq!((Version::from_hex(0), Version::from_hex(u64::MAX)), (None, None));
        for (hex, debug) in
            [(0x0309_12f0, None), (0x030f_02f0, Some(read(&debug_3_14()))), (0x030d_00f0, None)]
        {
            let refused = Layout::of(version(hex), debug.as_ref());
            assert!(matches!(refused, Err(NotPython::UnsupportedVersion { .. })), "{hex:#x}: {refused:?}");
        }
        let beta = Layout::of(version(0x030e_00b3), Some(&read(&debug_3_14())));
        assert_eq!(beta, Err(NotPython::UnsupportedVersion { version: "3.14.0 (pre-release)".to_owned() }));
    }

    #[test]
    fn free_threaded_builds_are_refused_by_name() {
        let mut words = debug_3_14();
        words[2] = 1;
        let refused = Layout::of(version(0x030e_0af0), Some(&read(&words)));
        assert_eq!(refused, Err(NotPython::FreeThreaded { version: version(0x030e_0af0) }));
    }

    #[test]
    fn an_offset_out_of_reach_is_an_unknown_layout() {
        let of = |words: &[u64]| Layout::of(version(0x030e_0af0), Some(&read(words)));
        assert!(of(&debug_3_14()).is_ok());
        for at in [5, 8, 9, 24, 25, 26, 27, 32, 33, 34, 36, 39, 40, 41, 42, 43, 44, 48, 80] {
            for wrong in [u64::MAX, 1 << 32, 1 << 30] {
                let mut words = debug_3_14();
                words[at] = wrong;
                assert!(
                    matches!(of(&words), Err(NotPython::UnknownLayout { .. })),
                    "word {at} is {wrong:#x}"
                );
            }
        }
    }
}
