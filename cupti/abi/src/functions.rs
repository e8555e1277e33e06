//! CUPTI's functions, found by name in a library that is loaded at run time.
//!
//! Only the functions that every version has (the "V1" ones) are used: a V2 subscriber of ours would leave a later
//! profiler of the user without records. A function that later versions have and earlier ones lack is an `Option`.

use core::ffi::{CStr, c_void};

use crate::result::CuptiResult;

/// `CUPTI_API_VERSION` of 11.8 (and 12.0): the oldest whose records are known here.
pub const VERSION_11_8: u32 = 18;

/// `CUPTI_API_VERSION` of 12.6: the first in which `cuptiFinalize` is safe in jobs with CUDA graphs.
pub const VERSION_12_6: u32 = 24;

/// What 14.0 would say (from 13.0 on a version is major × 10000 + minor × 100): records of such a version are unknown.
pub const VERSION_14_0: u32 = 140_000;

/// Domains of callbacks (`CUPTI_CB_DOMAIN_…`).
pub mod domain {
    /// Calls of the driver API.
    pub const DRIVER_API: u32 = 1;
    /// Calls of the runtime API.
    pub const RUNTIME_API: u32 = 2;
}

/// Where in a call a callback is (`CUPTI_API_…`).
pub mod site {
    /// Before it.
    pub const ENTER: u32 = 0;
    /// After it.
    pub const EXIT: u32 = 1;
}

/// Flags of `cuptiActivityFlushAll`.
pub mod flush {
    /// Only what is complete.
    pub const COMPLETE: u32 = 0;
    /// Everything: what runs still is returned without an end, and never again.
    pub const FORCED: u32 = 1;
}

/// What records call a thread (`CUPTI_ACTIVITY_THREAD_ID_TYPE_…`).
pub mod thread_id {
    /// `gettid`; the default is the lower half of `pthread_self`, which says nothing outside the process.
    pub const SYSTEM: u32 = 1;
}

/// A subscription, or null.
pub type Subscriber = *mut c_void;

/// CUPTI asks for a buffer; null declines.
pub type BufferRequested =
    unsafe extern "C" fn(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize);

/// CUPTI gives a buffer back with records in its first `valid` bytes.
pub type BufferCompleted =
    unsafe extern "C" fn(context: *mut c_void, stream: u32, buffer: *mut u8, size: usize, valid: usize);

/// CUPTI reports a call of the job, on the job's thread.
pub type CallbackFunction =
    unsafe extern "C" fn(user: *mut c_void, domain: u32, callback: u32, data: *const CallbackData);

/// The beginning of `CUpti_CallbackData`, which is what callbacks of the API domains get; all versions share it.
#[derive(Debug)]
#[repr(C)]
pub struct CallbackData {
    /// [`site`].
    pub site: u32,
    /// Name of the function.
    pub function_name: *const core::ffi::c_char,
    /// Its arguments.
    pub function_params: *const c_void,
    /// What it returned, at the exit.
    pub function_result: *mut c_void,
    /// Mangled name of the kernel of a launch.
    pub symbol_name: *const core::ffi::c_char,
    /// The context.
    pub context: *mut c_void,
    /// Its number.
    pub context_id: u32,
    /// A word that the entry may leave for the exit.
    pub correlation_data: *mut u64,
    /// What the records of this call carry.
    pub correlation: u32,
}

macro_rules! functions {
    (
        required { $($field:ident: $symbol:literal = fn($($argument:ty),*);)* }
        optional { $($ofield:ident: $osymbol:literal = fn($($oargument:ty),*);)* }
    ) => {
        /// The functions of a CUPTI that is loaded. All return a [`CuptiResult`].
        #[derive(Clone, Copy, Debug)]
        pub struct Functions {
            $(#[doc = $symbol] pub $field: unsafe extern "C" fn($($argument),*) -> CuptiResult,)*
            $(#[doc = $osymbol] pub $ofield: Option<unsafe extern "C" fn($($oargument),*) -> CuptiResult>,)*
        }

        impl Functions {
            /// Names of the functions without which there is nothing.
            pub const REQUIRED: &'static [&'static str] = &[$($symbol),*];
            /// Names of those that not every version has.
            pub const OPTIONAL: &'static [&'static str] = &[$($osymbol),*];

            /// Finds all functions; fails with the name of the first that is needed and missing.
            ///
            /// # Safety
            /// `lookup` returns null or the address of CUPTI's function of that name, and the library stays loaded.
            #[expect(unsafe_code, reason = "addresses become functions here")]
            pub unsafe fn load(mut lookup: impl FnMut(&CStr) -> *mut c_void) -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        let address = lookup(const { c_name(concat!($symbol, "\0")) });
                        if address.is_null() {
                            return Err($symbol);
                        }
                        // SAFETY: not null, and by the caller's word the function that the headers declare so.
                        unsafe {
                            core::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> CuptiResult>(address)
                        }
                    },)*
                    $($ofield: {
                        let address = lookup(const { c_name(concat!($osymbol, "\0")) });
                        // SAFETY: null becomes none; else, by the caller's word, the function that the headers declare so.
                        unsafe {
                            core::mem::transmute::<
                                *mut c_void,
                                Option<unsafe extern "C" fn($($oargument),*) -> CuptiResult>,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

/// A literal of the table below, with its end; evaluated when this is compiled.
const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a name has a zero in it"),
    }
}

functions! {
    required {
        get_version: "cuptiGetVersion" = fn(*mut u32);
        get_timestamp: "cuptiGetTimestamp" = fn(*mut u64);
        subscribe: "cuptiSubscribe" = fn(*mut Subscriber, CallbackFunction, *mut c_void);
        unsubscribe: "cuptiUnsubscribe" = fn(Subscriber);
        enable_callback: "cuptiEnableCallback" = fn(u32, Subscriber, u32, u32);
        enable_domain: "cuptiEnableDomain" = fn(u32, Subscriber, u32);
        register_callbacks: "cuptiActivityRegisterCallbacks" = fn(BufferRequested, BufferCompleted);
        enable: "cuptiActivityEnable" = fn(u32);
        enable_and_dump: "cuptiActivityEnableAndDump" = fn(u32);
        disable: "cuptiActivityDisable" = fn(u32);
        flush_all: "cuptiActivityFlushAll" = fn(u32);
        next_record: "cuptiActivityGetNextRecord" = fn(*mut u8, usize, *mut *mut u8);
        dropped_records: "cuptiActivityGetNumDroppedRecords" = fn(*mut c_void, u32, *mut usize);
        get_thread_id_type: "cuptiGetThreadIdType" = fn(*mut u32);
        set_thread_id_type: "cuptiSetThreadIdType" = fn(u32);
        finalize: "cuptiFinalize" = fn();
    }
    optional {
        enable_driver_api: "cuptiActivityEnableDriverApi" = fn(u32, u8);
        enable_runtime_api: "cuptiActivityEnableRuntimeApi" = fn(u32, u8);
    }
}
