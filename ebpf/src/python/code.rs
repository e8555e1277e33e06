//! From a code object and an offset in it to function, file and line.
//!
//! The kernel half sends addresses; what they stand for is read here, later, from the process's memory. A code object
//! that is gone by then, or is none, gives no frame: the caller counts it as a symbol that is missing.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::{BYTES_DATA, Layout, OBJECT_TYPE, TYPE_NAME, VAR_SIZE};
use super::memory::{Memory, half_at, word_at};
use super::{NotPython, PythonProcess, detect, linetable, text};

/// Characters of a function's name, at most; longer ones are no names.
const MOST_NAME: usize = 1024;
/// Characters of a path: the kernel allows 4096 bytes.
const MOST_PATH: usize = 4096;
/// Bytes of a table of lines: that of a generated module of 100,000 lines takes about 300 KB.
const MOST_TABLE: usize = 1 << 20;
/// Processes whose memory is kept open: each is a file descriptor.
const MOST_PROCESSES: usize = 256;
/// Bytes of code objects in each of the two generations of the cache. PyTorch has about 30,000 of 300 bytes.
const GENERATION_BYTES: usize = 16 << 20;

/// Where a Python frame was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Its function, with class and outer functions where the version knows them (3.11 and later).
    pub function: Arc<str>,
    /// Its function's own name, as in a traceback.
    pub name: Arc<str>,
    /// Its file, as the interpreter names it.
    pub file: Arc<str>,
    /// Its line; 0 for instructions that no line stands for.
    pub line: u32,
    /// The first line of the function.
    pub first_line: u32,
}

/// What is kept of a code object.
#[derive(Debug)]
struct Code {
    /// The words of it by which it is known again.
    identity: Identity,
    function: Arc<str>,
    name: Arc<str>,
    file: Arc<str>,
    first_line: u32,
    line_table: Vec<u8>,
}

/// Addresses of its parts and its first line: another code object at the same address differs in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    file: u64,
    name: u64,
    line_table: u64,
    first_line: u32,
}

impl Code {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.function.len() + self.name.len() + self.file.len() + self.line_table.len()
    }
}

/// A process as the reader knows it.
#[derive(Debug)]
struct Process {
    layout: Layout,
    /// From which version on the table of lines has its newer form.
    newer_table: bool,
    memory: Memory,
    /// Address of the type of code objects, once one was met.
    code_type: u64,
    used: u64,
}

/// Reads code objects of processes, and remembers them within bounded memory.
#[derive(Debug, Default)]
pub struct CodeReader {
    processes: HashMap<u32, Process>,
    uses: u64,
    young: HashMap<(u32, u64), Arc<Code>>,
    young_bytes: usize,
    old: HashMap<(u32, u64), Arc<Code>>,
}

impl CodeReader {
    /// A reader that knows no process yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a process known. One that is not is looked at when it is first asked for.
    ///
    /// # Errors
    /// [`NotPython::Unreadable`] where its memory cannot be opened.
    pub fn add(&mut self, process: &PythonProcess) -> Result<(), NotPython> {
        let memory = Memory::open(process.pid)?;
        if self.processes.len() >= MOST_PROCESSES {
            let oldest = self.processes.iter().min_by_key(|(_, known)| known.used).map(|(pid, _)| *pid);
            oldest.and_then(|pid| self.processes.remove(&pid));
        }
        self.uses += 1;
        let known = Process {
            layout: process.layout.clone(),
            newer_table: process.version.minor >= 11,
            memory,
            code_type: 0,
            used: self.uses,
        };
        self.processes.insert(process.pid, known);
        Ok(())
    }

    /// Forgets a process: to be called when it begins another program, and when it has ended and nothing more is asked.
    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.young.retain(|(of, _), _| *of != pid);
        self.old.retain(|(of, _), _| *of != pid);
        self.young_bytes = self.young.values().map(|code| code.bytes()).sum();
    }

    /// What a frame stands for, or `None` where there is no code object at that address, now or when it was last asked.
    pub fn resolve(&mut self, pid: u32, code: u64, offset: u64) -> Option<PythonFrame> {
        self.uses += 1;
        if !self.processes.contains_key(&pid) {
            // A process that was forked by one that is known, or came back after having been forgotten.
            if let Ok(found) = detect(pid) {
                let _ = self.add(&found);
            }
        }
        let uses = self.uses;
        let cached = self.cached((pid, code));
        let newer_table = match self.processes.get_mut(&pid) {
            None => return None,
            Some(process) => {
                process.used = uses;
                let now = process.identify(code);
                // What is there now is what was meant; where nothing is, what was there last.
                let same = cached.as_ref().is_some_and(|known| now.is_none_or(|now| now == known.identity));
                if !same {
                    let read = Arc::new(process.read(code, now?)?);
                    let newer_table = process.newer_table;
                    self.keep((pid, code), Arc::clone(&read));
                    return Some(read.frame(offset, newer_table));
                }
                process.newer_table
            }
        };
        Some(cached?.frame(offset, newer_table))
    }

    /// A code object that was met; one of the older generation comes into the younger.
    fn cached(&mut self, key: (u32, u64)) -> Option<Arc<Code>> {
        if let Some(code) = self.young.get(&key) {
            return Some(Arc::clone(code));
        }
        let code = self.old.remove(&key)?;
        self.keep(key, Arc::clone(&code));
        Some(code)
    }

    /// Keeps a code object. When a generation is full, those that were not met in it are dropped.
    fn keep(&mut self, key: (u32, u64), code: Arc<Code>) {
        if self.young_bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += code.bytes();
        if let Some(before) = self.young.insert(key, code) {
            self.young_bytes -= before.bytes();
        }
    }
}

impl Process {
    /// Whether a code object is at the address, and which.
    fn identify(&mut self, address: u64) -> Option<Identity> {
        let layout = &self.layout.code;
        let bytes = self.memory.bytes(address, u64::from(layout.size), 1 << 10)?;
        let of = word_at(&bytes, OBJECT_TYPE)?;
        if of != self.code_type {
            let name = self.memory.word(of.wrapping_add(u64::from(TYPE_NAME)))?;
            let mut text = [0; 5];
            self.memory.read(name, &mut text)?;
            if text != *b"code\0" {
                return None;
            }
            self.code_type = of;
        }
        Some(Identity {
            file: word_at(&bytes, layout.filename)?,
            name: word_at(&bytes, layout.name)?,
            line_table: word_at(&bytes, layout.line_table)?,
            first_line: half_at(&bytes, layout.first_line)?,
        })
    }

    fn read(&self, address: u64, identity: Identity) -> Option<Code> {
        let text = |at: u64, most: usize| text::read(&self.memory, &self.layout, at, most);
        let name: Arc<str> = text(identity.name, MOST_NAME)?.into();
        let qualified = self.layout.code.qualified_name.and_then(|offset| {
            let at = self.memory.word(address.wrapping_add(u64::from(offset)))?;
            text(at, MOST_NAME)
        });
        let length = self.memory.word(identity.line_table.wrapping_add(u64::from(VAR_SIZE)))?;
        let data = identity.line_table.wrapping_add(u64::from(BYTES_DATA));
        Some(Code {
            identity,
            function: qualified.map_or_else(|| Arc::clone(&name), Arc::from),
            name,
            file: text(identity.file, MOST_PATH)?.into(),
            first_line: identity.first_line,
            // Without it there is still a function: its lines are 0.
            line_table: self.memory.bytes(data, length, MOST_TABLE).unwrap_or_default(),
        })
    }
}

impl Code {
    fn frame(&self, offset: u64, newer_table: bool) -> PythonFrame {
        let line = match (offset.cast_signed(), newer_table) {
            // Called and not begun.
            (..0, _) => Some(self.first_line),
            (_, true) => linetable::line_3_11(&self.line_table, self.first_line, offset),
            (_, false) => linetable::line_3_10(&self.line_table, self.first_line, offset),
        };
        PythonFrame {
            function: Arc::clone(&self.function),
            name: Arc::clone(&self.name),
            file: Arc::clone(&self.file),
            line: line.unwrap_or(0),
            first_line: self.first_line,
        }
    }
}
