//! The devices of the process, as the driver numbers and names them.
//!
//! CUPTI's records of devices come only to whoever enables their kind in time, and from no context that was there before.
//! The driver can be asked at any moment; none of these calls makes a context or waits for a device.

use core::ffi::{c_char, c_int, c_void};

/// CUresult of a driver that is not initialised yet.
const NOT_INITIALIZED: c_int = 3;

/// More than any process sees; a count beyond it is broken.
const MAX_DEVICES: c_int = 1024;

/// Bytes of a device's name, with the zero that ends it.
pub(crate) const NAME_BYTES: usize = 128;

pub(crate) type GetCount = unsafe extern "C" fn(*mut c_int) -> c_int;
pub(crate) type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
pub(crate) type GetUuid = unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int;
pub(crate) type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;

/// The driver's functions about devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    pub(crate) get_count: GetCount,
    pub(crate) get: Get,
    pub(crate) get_name: Option<GetName>,
    /// Of a MIG instance: the UUID of the device that it is a part of.
    pub(crate) get_uuid: Option<GetUuid>,
    /// Of a MIG instance: its own.
    pub(crate) get_uuid_v2: Option<GetUuid>,
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The process's number for it.
    pub(crate) number: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) is_mig: bool,
    /// Ends with a zero.
    pub(crate) name: [u8; NAME_BYTES],
}

/// The driver is not initialised: to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotYet;

impl Driver {
    /// The driver's functions by name; none where one that is needed is missing.
    ///
    /// # Safety
    /// `symbol` returns null or the address of the driver's function of that name, and the driver stays loaded.
    pub(crate) unsafe fn load(symbol: impl Fn(&core::ffi::CStr) -> *mut c_void) -> Option<Self> {
        // SAFETY: null is none; else it is the driver's function of that name. So for the others.
        let get_count =
            unsafe { core::mem::transmute::<*mut c_void, Option<GetCount>>(symbol(c"cuDeviceGetCount")) };
        // SAFETY: as above.
        let get = unsafe { core::mem::transmute::<*mut c_void, Option<Get>>(symbol(c"cuDeviceGet")) };
        // SAFETY: as above.
        let get_name =
            unsafe { core::mem::transmute::<*mut c_void, Option<GetName>>(symbol(c"cuDeviceGetName")) };
        let uuid = |name| {
            // SAFETY: as above.
            unsafe { core::mem::transmute::<*mut c_void, Option<GetUuid>>(symbol(name)) }
        };
        Some(Self {
            get_count: get_count?,
            get: get?,
            get_name,
            get_uuid: uuid(c"cuDeviceGetUuid"),
            get_uuid_v2: uuid(c"cuDeviceGetUuid_v2"),
        })
    }

    /// Every device of the process that has a UUID.
    pub(crate) fn devices(&self, mut each: impl FnMut(&Found)) -> Result<(), NotYet> {
        let mut count = 0;
        // SAFETY: fills the word that it is given.
        let asked = unsafe { (self.get_count)(&raw mut count) };
        if asked == NOT_INITIALIZED {
            return Err(NotYet);
        }
        if asked != 0 {
            return Ok(());
        }
        for number in 0..count.min(MAX_DEVICES) {
            if let Some(found) = self.device(number) {
                each(&found);
            }
        }
        Ok(())
    }

    /// Asks for something that the driver knows without looking, so that there is a record of a call.
    pub(crate) fn ask(&self) {
        let mut count = 0;
        // SAFETY: fills the word that it is given; what it says is of no interest.
        let _ = unsafe { (self.get_count)(&raw mut count) };
    }

    fn device(&self, number: c_int) -> Option<Found> {
        let mut device = 0;
        // SAFETY: fills the word that it is given.
        let asked = unsafe { (self.get)(&raw mut device, number) };
        if asked != 0 {
            return None;
        }
        let (whole, own) = (uuid(self.get_uuid, device), uuid(self.get_uuid_v2, device));
        let mut name = [0; NAME_BYTES];
        if let Some(get_name) = self.get_name {
            let room: *mut [u8; NAME_BYTES] = &raw mut name;
            // The last byte stays zero.
            let bytes = c_int::try_from(NAME_BYTES - 1).unwrap_or(0);
            // SAFETY: fills at most so many bytes. Where it fails, there is no name.
            let _ = unsafe { get_name(room.cast(), bytes, device) };
        }
        Some(Found {
            number: u32::try_from(number).ok()?,
            uuid: own.or(whole)?,
            is_mig: matches!((whole, own), (Some(whole), Some(own)) if whole != own),
            name,
        })
    }
}

fn uuid(get: Option<GetUuid>, device: c_int) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    // SAFETY: fills the 16 bytes that it is given.
    let asked = unsafe { (get?)(&raw mut uuid, device) };
    (asked == 0).then_some(uuid)
}
