//! Finding CUPTI in the process.
//!
//! A process has one driver, and its CUPTI must be one too: where one is mapped, that is it, whoever brought it. Only where
//! there is none the one that the daemon brought is loaded. Nothing is ever unloaded.

use core::ffi::{CStr, c_char, c_int, c_void};

use stallscope_cupti_abi::Functions;
use stallscope_cupti_wire::{CUPTI_PATH_BYTES, Reason};

use crate::Refusal;
use crate::driver::Driver;
use crate::exit;
use crate::sys;
use crate::text::{STRNLEN, StrnLen, Texts};

/// Where the state machine gets its functions from; tests have another.
pub(crate) trait Library {
    /// CUPTI's functions, or why there are none. Asked again until there are.
    fn functions(&mut self) -> Result<Functions, Refusal>;

    /// A CUPTI to load where there is no other: a path that ends with a zero, or nothing but zeros.
    fn offer(&mut self, path: [u8; CUPTI_PATH_BYTES]);

    /// How texts are measured.
    fn texts(&self) -> Texts;

    /// The driver's functions about devices, where it has them.
    fn driver(&self) -> Option<Driver>;

    /// Sees to it that the end of the job is noticed. Asked once CUPTI has been set up.
    fn watch_exit(&self);
}

type DlOpen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type DlSym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

const RTLD_NOW: c_int = 2;
const RTLD_NOLOAD: c_int = 4;

/// The names under which the loader knows CUPTI.
const NAMES: [&CStr; 4] = [c"libcupti.so.13", c"libcupti.so.12", c"libcupti.so.11.8", c"libcupti.so"];

/// What a path of CUPTI has in it, whatever it is called otherwise.
const PATH_PART: &[u8] = b"/libcupti.so";

/// Bytes of a line of /proc/self/maps at most: a path is 4096.
const LINE_BYTES: usize = 4608;

/// A CUPTI to load where there is none.
#[derive(Debug)]
pub(crate) enum Brought {
    None,
    /// By a descriptor of this process, as a path.
    Descriptor([u8; 32]),
    /// By its path.
    Path(&'static CStr),
}

impl Brought {
    /// The library behind a descriptor; none where that is negative.
    pub(crate) fn by_descriptor(fd: i32) -> Self {
        u32::try_from(fd).map_or(Self::None, |fd| Self::Descriptor(descriptor_path(fd)))
    }

    fn path(&self) -> Option<&CStr> {
        match self {
            Self::None => None,
            Self::Descriptor(path) => CStr::from_bytes_until_nul(path).ok(),
            Self::Path(path) => Some(path),
        }
    }
}

/// The process's own loader.
#[derive(Debug)]
pub(crate) struct Loader {
    dlopen: DlOpen,
    dlsym: DlSym,
    brought: Brought,
    offered: [u8; CUPTI_PATH_BYTES],
    cupti: Option<Functions>,
    texts: Texts,
}

impl Loader {
    /// None where an address is 0.
    ///
    /// # Safety
    /// The addresses are 0 or those of `dlopen` and `dlsym` of the process's C library.
    pub(crate) unsafe fn new(dlopen: u64, dlsym: u64, brought: Brought) -> Option<Self> {
        let address = |address: u64| usize::try_from(address).ok().filter(|address| *address != 0);
        let dlopen: *const c_void = core::ptr::with_exposed_provenance(address(dlopen)?);
        let dlsym: *const c_void = core::ptr::with_exposed_provenance(address(dlsym)?);
        // SAFETY: by the caller's word that is what lies there.
        let dlopen = unsafe { core::mem::transmute::<*const c_void, DlOpen>(dlopen) };
        // SAFETY: as above.
        let dlsym = unsafe { core::mem::transmute::<*const c_void, DlSym>(dlsym) };
        let mut loader = Self {
            dlopen,
            dlsym,
            brought,
            offered: [0; CUPTI_PATH_BYTES],
            cupti: None,
            texts: Texts::default(),
        };
        let strnlen = loader.symbol(core::ptr::null_mut(), STRNLEN);
        // SAFETY: null is none; else it is the C library's function of that name.
        loader.texts.strnlen = unsafe { core::mem::transmute::<*mut c_void, Option<StrnLen>>(strnlen) };
        Some(loader)
    }

    /// The library of that name, if it is loaded.
    fn loaded(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: a name that ends with a zero; nothing is loaded.
        let handle = unsafe { (self.dlopen)(name.as_ptr(), RTLD_NOW | RTLD_NOLOAD) };
        (!handle.is_null()).then_some(handle)
    }

    fn symbol(&self, handle: *mut c_void, name: &CStr) -> *mut c_void {
        // SAFETY: null (search everywhere) or a handle of `dlopen`; a name that ends with a zero.
        unsafe { (self.dlsym)(handle, name.as_ptr()) }
    }

    fn cupti(&self) -> Option<*mut c_void> {
        let load = |path: &CStr| {
            // SAFETY: loads a library that the daemon chose, on the agent's own thread.
            let handle = unsafe { (self.dlopen)(path.as_ptr(), RTLD_NOW) };
            (!handle.is_null()).then_some(handle)
        };
        let offered = || CStr::from_bytes_until_nul(&self.offered).ok().filter(|path| !path.is_empty());
        let there = NAMES.iter().find_map(|name| self.loaded(name)).or_else(|| self.mapped());
        there.or_else(|| self.brought.path().and_then(load)).or_else(|| offered().and_then(load))
    }

    /// A CUPTI that was loaded from a path under another name.
    fn mapped(&self) -> Option<*mut c_void> {
        let file = sys::open(c"/proc/self/maps").ok()?;
        let found = find_line(
            |room| sys::read(file, room).map_or(0, <[u8]>::len),
            |line| path_of_cupti(line).and_then(|path| self.loaded(path)),
        );
        sys::close(file);
        found
    }
}

/// What `look` finds in the first line in which it finds something. `read` fills room and returns how much, 0 at the end.
/// Lines end with a zero in place of their newline; one that is longer than [`LINE_BYTES`] ends the search.
pub(crate) fn find_line<T>(
    mut read: impl FnMut(&mut [u8]) -> usize,
    mut look: impl FnMut(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut buffer = [0; LINE_BYTES];
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty())?;
        match read(room) {
            0 => return None,
            bytes => filled = (filled + bytes).min(LINE_BYTES),
        }
        let mut begin = 0;
        while let Some(length) = buffer.get(begin..filled)?.iter().position(|byte| *byte == b'\n') {
            *buffer.get_mut(begin + length)? = 0;
            if let Some(found) = buffer.get(begin..=begin + length).and_then(&mut look) {
                return Some(found);
            }
            begin += length + 1;
        }
        // What is left of the last line to the front. (`copy_within` has checks that the optimiser keeps.)
        for (to, from) in (begin..filled).enumerate() {
            let byte = *buffer.get(from)?;
            *buffer.get_mut(to)? = byte;
        }
        filled -= begin;
    }
}

/// The path in a line of /proc/self/maps, with its end, if it looks like CUPTI's.
pub(crate) fn path_of_cupti(line: &[u8]) -> Option<&CStr> {
    let path = line.get(line.iter().position(|byte| *byte == b'/')?..)?;
    path.windows(PATH_PART.len()).any(|part| part == PATH_PART).then_some(())?;
    CStr::from_bytes_until_nul(path).ok()
}

/// `/proc/self/fd/N`.
pub(crate) fn descriptor_path(fd: u32) -> [u8; 32] {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    let mut digits = [0; 10];
    let mut rest = fd;
    let mut count = 0;
    for digit in &mut digits {
        // A remainder of ten is a byte.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let mut path = [0; 32];
    let text = PREFIX.iter().chain(digits.iter().take(count).rev());
    for (to, from) in path.iter_mut().zip(text) {
        *to = *from;
    }
    path
}

impl Library for Loader {
    fn functions(&mut self) -> Result<Functions, Refusal> {
        if let Some(functions) = self.cupti {
            return Ok(functions);
        }
        self.loaded(c"libcuda.so.1").ok_or(Refusal::new(Reason::NoCuda, 0))?;
        let handle = self.cupti().ok_or(Refusal::new(Reason::NoCupti, 0))?;
        // SAFETY: the addresses are those of functions of these names in CUPTI, which is never unloaded.
        let functions = unsafe { Functions::load(|name| self.symbol(handle, name)) };
        let functions = functions.map_err(|_| Refusal::new(Reason::CuptiTooOld, 0))?;
        self.cupti = Some(functions);
        Ok(functions)
    }

    fn offer(&mut self, path: [u8; CUPTI_PATH_BYTES]) {
        self.offered = path;
    }

    fn texts(&self) -> Texts {
        self.texts
    }

    fn driver(&self) -> Option<Driver> {
        let handle = self.loaded(c"libcuda.so.1")?;
        // SAFETY: the addresses are those of functions of these names in the driver, which is never unloaded.
        unsafe { Driver::load(|name| self.symbol(handle, name)) }
    }

    fn watch_exit(&self) {
        let register = self.symbol(core::ptr::null_mut(), exit::REGISTER);
        // SAFETY: null is none; else it is the C library's function of that name.
        let register = unsafe { core::mem::transmute::<*mut c_void, Option<exit::Register>>(register) };
        if let Some(register) = register {
            exit::register(register);
        }
    }
}
