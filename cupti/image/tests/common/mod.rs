//! The agent in this process, or in one that the test starts, with C stand-ins for CUDA; and the daemon's side of the ring.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use stallscope_cupti_image::AGENT;
use stallscope_cupti_wire::{
    Command as Wish, ENTRY, Header, Item, Kind, NameBuffer, RING_NAME, Reader, Record, Ring, StartArguments,
    State, VERSION, ring_bytes,
};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn memfd_create(name: *const c_char, flags: u32) -> c_int;
    fn mmap(
        at: *mut c_void,
        bytes: usize,
        access: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn dup(fd: c_int) -> c_int;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

/// Compiles one of the C files beside this one; `executable` makes a program of it, else it is a library.
pub(crate) fn compile(source: &str, output: &Path, executable: bool) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common").join(source);
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]).arg(source).arg("-o").arg(output);
    if !executable {
        let name = output.file_name().expect("a file").to_str().expect("text");
        cc.args(["-shared", "-fPIC", "-fvisibility=hidden"]).arg(format!("-Wl,-soname,{name}"));
    }
    let status = cc.status().expect("a C compiler");
    assert!(status.success(), "{cc:?}");
    output.to_owned()
}

/// A library that stays loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: a handle is a number for the loader, which any thread may ask.
unsafe impl Send for Library {}

impl Library {
    pub(crate) fn open(path: &Path) -> Self {
        let path = CString::new(path.to_str().expect("text")).expect("no zero");
        // SAFETY: a path that ends with a zero, of a library of this test.
        let handle = unsafe { dlopen(path.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
        Self(NonNull::new(handle).unwrap_or_else(|| {
            // SAFETY: after a failed dlopen there is a message.
            let message = unsafe { dlerror() };
            // SAFETY: the message ends with a zero, and lives until the next call.
            panic!("{path:?}: {:?}", unsafe { CStr::from_ptr(message) })
        }))
    }

    pub(crate) fn symbol(self, name: &CStr) -> NonNull<c_void> {
        // SAFETY: a handle of `open`, a name that ends with a zero.
        NonNull::new(unsafe { dlsym(self.0.as_ptr(), name.as_ptr()) }).unwrap_or_else(|| panic!("{name:?}"))
    }
}

/// A file in memory with these bytes.
pub(crate) fn memory_file(name: &CStr, bytes: &[u8]) -> File {
    // SAFETY: a name that ends with a zero.
    let fd = unsafe { memfd_create(name.as_ptr(), 1) };
    assert!(fd >= 0);
    // SAFETY: a new descriptor, ours alone.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes).expect("memory");
    file
}

/// The daemon's side of a ring.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) header: &'static Header,
    pub(crate) reader: Reader<'static>,
    text: NameBuffer,
    pub(crate) names: Vec<(u32, String)>,
}

impl Daemon {
    /// Of a ring that `file` is; `slots` where it is to be made first.
    pub(crate) fn map(file: &File, slots: Option<u32>) -> Self {
        if let Some(slots) = slots {
            file.set_len(ring_bytes(slots) as u64).expect("memory");
        }
        let bytes = usize::try_from(file.metadata().expect("a file").len()).expect("small");
        // SAFETY: a new mapping, shared, of a file of that size.
        let base = unsafe { mmap(null_mut(), bytes, 3, 1, file.as_raw_fd(), 0) };
        let base = NonNull::new(base.cast::<u8>())
            .filter(|base| base.as_ptr().addr() != usize::MAX)
            .expect("memory");
        if let Some(slots) = slots {
            // SAFETY: mapped until the process ends, zeroed, not cut by anybody, reached by rings only.
            unsafe { Ring::create(base, bytes, slots) }.expect("a ring");
        }
        // SAFETY: as above, but for the zeros.
        let ring = unsafe { Ring::from_raw(base, bytes) }.expect("a ring");
        let reader = if slots.is_some() { Reader::new(ring) } else { Reader::from_start(ring) };
        Self { header: ring.header(), reader, text: NameBuffer::default(), names: Vec::new() }
    }

    pub(crate) fn say(&self, wish: Wish) {
        self.header.heartbeat.fetch_add(1, Relaxed);
        self.header.command.store(wish.id(), Relaxed);
        self.header.control.fetch_add(1, AcqRel);
        // The agent also looks by itself while it is on; a wake-up is for one that sleeps.
        wake(&self.header.control);
    }

    pub(crate) fn collect(&self, kinds: u64) {
        self.header.kinds.store(kinds, Relaxed);
        self.header.flush_interval_ns.store(10_000_000, Relaxed);
        self.say(Wish::Collect);
    }

    pub(crate) fn state(&self) -> State {
        State::from_id(self.header.state.load(Acquire)).expect("a state")
    }

    /// Waits for a state, and fails with what the agent says where it does not come.
    pub(crate) fn wait_for(&self, state: State) {
        let begin = Instant::now();
        while self.state() != state {
            let reason = self.header.reason.load(Relaxed);
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{:?} ({reason}), not {state:?}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything that is in the ring but names, which are kept.
    pub(crate) fn read(&mut self) -> Vec<(Kind, Record)> {
        let mut records = Vec::new();
        while let Some(item) = self.reader.next(&mut self.text) {
            match item {
                Item::Name { number, text } => {
                    self.names.push((number, String::from_utf8_lossy(text).into_owned()));
                }
                Item::Record(kind, record) => records.push((kind, record)),
            }
        }
        self.reader.release();
        records
    }

    /// Reads until there are so many of a kind.
    pub(crate) fn read_until(&mut self, kind: Kind, count: usize) -> Vec<Record> {
        let begin = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(self.read().into_iter().filter(|(got, _)| *got == kind).map(|(_, record)| record));
            assert!(begin.elapsed() < Duration::from_secs(20), "{} of {count}", found.len());
            std::thread::sleep(Duration::from_millis(1));
        }
        found
    }
}

fn wake(word: &std::sync::atomic::AtomicU32) {
    unsafe extern "C" {
        fn syscall(number: i64, ...) -> i64;
    }
    const FUTEX: i64 = 202;
    // SAFETY: a wake-up writes nothing.
    unsafe { syscall(FUTEX, std::ptr::from_ref(word), 1, i32::MAX, 0_usize, 0_usize, 0) };
}

/// The agent, loaded into this process as the injector does it, on a thread of its own.
pub(crate) fn start(cupti: Option<&File>, slots: u32) -> (Daemon, std::thread::JoinHandle<c_int>) {
    let image = memory_file(c"stallscope-agent", AGENT);
    let agent = Library::open(Path::new(&format!("/proc/self/fd/{}", image.as_raw_fd())));
    let entry = agent.symbol(ENTRY);
    // SAFETY: the agent's entry, as the crate of the wire declares it.
    let entry = unsafe {
        std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*const StartArguments) -> c_int>(entry)
    };
    let ring = memory_file(RING_NAME, b"");
    let daemon = Daemon::map(&ring, Some(slots));
    let address = |function: *const c_void| function.expose_provenance() as u64;
    let arguments = StartArguments {
        size: u32::try_from(size_of::<StartArguments>()).expect("small"),
        version: VERSION,
        dlopen: address(dlopen as *const c_void),
        dlsym: address(dlsym as *const c_void),
        dlerror: address(dlerror as *const c_void),
        // SAFETY: duplicates a descriptor; the agent closes the copy.
        ring_fd: unsafe { dup(ring.as_raw_fd()) },
        cupti_fd: cupti.map_or(-1, AsRawFd::as_raw_fd),
        flags: 0,
    };
    let thread = std::thread::spawn(move || {
        // SAFETY: arguments of this version; the thread is there for nothing else.
        unsafe { entry(&raw const arguments) }
    });
    (daemon, thread)
}

/// `fake_launch` of the stand-in.
pub(crate) type Launch = unsafe extern "C" fn(u32, *const *const c_char, u32) -> u32;

/// The job launches kernels with these names, in turn.
pub(crate) fn launch(cupti: Library, count: u32, names: &[CString]) -> u32 {
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the stand-in's function.
    let launch = unsafe { std::mem::transmute::<NonNull<c_void>, Launch>(cupti.symbol(c"fake_launch")) };
    // SAFETY: as many names as said, which the caller keeps.
    unsafe { launch(count, names.as_ptr(), u32::try_from(names.len()).expect("few")) }
}
