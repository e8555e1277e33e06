//! Attributes of the activity API: sizes and numbers of device buffers, and flags that change nothing here.

use super::{INVALID_PARAMETER, PARAMETER_SIZE_NOT_SUFFICIENT, Status, enter, put};
use crate::buffers::ZEROED_BY_CLIENT;
use crate::state::{self, State, cuda, lock};

const DEVICE_BUFFER_SIZE: u32 = 0;
const DEVICE_BUFFER_POOL_LIMIT: u32 = 2;

/// Attribute, bytes of its value, default. From CUPTI's headers.
const ATTRIBUTES: [(u32, usize, u64); 7] = [
    (DEVICE_BUFFER_SIZE, 8, 3_200_000),
    (1, 8, 8_388_608),
    (DEVICE_BUFFER_POOL_LIMIT, 8, 250),
    (3, 8, 25_000),
    (4, 8, 250),
    (ZEROED_BY_CLIENT, 1, 0),
    (6, 8, 3),
];

fn known(attribute: u32) -> Result<(usize, u64), Status> {
    let found = ATTRIBUTES.iter().find(|(a, ..)| *a == attribute);
    found.map(|(_, bytes, default)| (*bytes, *default)).ok_or(INVALID_PARAMETER)
}

fn value(state: &State, attribute: u32) -> u64 {
    let default = known(attribute).map_or(0, |(_, default)| default);
    let Some(bytes) = state.attributes.get(&attribute) else { return default };
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

pub(super) fn set(attribute: u32, size: Option<&mut usize>, from: *const u8) -> Result<(), Status> {
    let size = size.ok_or(INVALID_PARAMETER)?;
    let (bytes, _) = known(attribute)?;
    if from.is_null() {
        return Err(INVALID_PARAMETER);
    }
    if *size < bytes {
        return Err(PARAMETER_SIZE_NOT_SUFFICIENT);
    }
    // SAFETY: the caller passes a value of `*size` bytes, which are at least `bytes`.
    let given = unsafe { std::slice::from_raw_parts(from, bytes) };
    let mut state = lock();
    state.attributes.insert(attribute, given.to_vec());
    let (buffer_bytes, buffers) =
        (value(&state, DEVICE_BUFFER_SIZE), value(&state, DEVICE_BUFFER_POOL_LIMIT));
    drop(state);
    if let Some(cuda) = cuda() {
        state::set_pool(cuda, buffer_bytes, buffers);
    }
    Ok(())
}

pub(super) fn get(attribute: u32, size: Option<&mut usize>, to: *mut u8) -> Result<(), Status> {
    let size = size.ok_or(INVALID_PARAMETER)?;
    let (bytes, _) = known(attribute)?;
    if to.is_null() {
        return Err(INVALID_PARAMETER);
    }
    if *size < bytes {
        return Err(PARAMETER_SIZE_NOT_SUFFICIENT);
    }
    let value = value(&lock(), attribute).to_le_bytes();
    // SAFETY: the caller gives room for `*size` bytes, which are at least `bytes`; there are eight to copy from.
    unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), to, bytes) };
    put(Some(size), bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivitySetAttribute(
    attribute: u32,
    size: Option<&mut usize>,
    value: *const u8,
) -> Status {
    enter("cuptiActivitySetAttribute", &format!("attribute {attribute}"), || set(attribute, size, value))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetAttribute(attribute: u32, size: Option<&mut usize>, value: *mut u8) -> Status {
    enter("cuptiActivityGetAttribute", "", || get(attribute, size, value))
}
