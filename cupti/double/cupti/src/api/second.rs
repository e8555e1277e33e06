//! Functions of 13.2 on, which name the subscriber: each has kinds and buffers of its own.

use super::{INVALID_PARAMETER, Status, activity, attribute, enter, put};
use crate::buffers::{CompleteInfo, Completed, Requested};
use crate::state::lock;

/// Choosing fields of records is not supported: a configuration must be NULL.
fn no_choice(configuration: usize) -> Result<(), Status> {
    if configuration == 0 { Ok(()) } else { Err(INVALID_PARAMETER) }
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnable_v2(subscriber: usize, kind: u32, configuration: usize) -> Status {
    enter("cuptiActivityEnable_v2", &format!("kind {kind}"), || {
        no_choice(configuration)?;
        activity::enable(subscriber, kind, true)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableAndDump_v2(subscriber: usize, kind: u32, configuration: usize) -> Status {
    enter("cuptiActivityEnableAndDump_v2", &format!("kind {kind}"), || {
        no_choice(configuration)?;
        activity::enable_and_dump(subscriber, kind)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityDisable_v2(subscriber: usize, kind: u32, configuration: usize) -> Status {
    enter("cuptiActivityDisable_v2", &format!("kind {kind}"), || {
        no_choice(configuration)?;
        activity::enable(subscriber, kind, false)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableDriverApi_v2(subscriber: usize, cbid: u32, on: u8) -> Status {
    let detail = format!("cbid {cbid} {on}");
    enter("cuptiActivityEnableDriverApi_v2", &detail, || activity::choose(subscriber, cbid, on, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityEnableRuntimeApi_v2(subscriber: usize, cbid: u32, on: u8) -> Status {
    let detail = format!("cbid {cbid} {on}");
    enter("cuptiActivityEnableRuntimeApi_v2", &detail, || activity::choose(subscriber, cbid, on, false))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityRegisterCallbacks_v2(
    subscriber: usize,
    requested: Option<Requested>,
    completed: Option<extern "C" fn(usize, usize, usize, &CompleteInfo)>,
) -> Status {
    enter("cuptiActivityRegisterCallbacks_v2", "register", || {
        activity::register(subscriber, requested, completed.map(Completed::Second))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNextRecord_v2(
    _subscriber: usize,
    buffer: usize,
    valid: usize,
    record: Option<&mut usize>,
) -> Status {
    activity::next(buffer, valid, record).err().unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetNumDroppedRecords_v2(
    subscriber: usize,
    _context: usize,
    _stream: u32,
    dropped: Option<&mut usize>,
) -> Status {
    enter("cuptiActivityGetNumDroppedRecords_v2", "", || {
        let dropped = dropped.ok_or(INVALID_PARAMETER)?;
        let mut state = lock();
        put(Some(dropped), state.client(subscriber).ok_or(INVALID_PARAMETER)?.buffers.take_dropped())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivitySetAttribute_v2(
    _subscriber: usize,
    attribute: u32,
    size: Option<&mut usize>,
    value: *const u8,
) -> Status {
    let detail = format!("attribute {attribute}");
    enter("cuptiActivitySetAttribute_v2", &detail, || attribute::set(attribute, size, value))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiActivityGetAttribute_v2(
    _subscriber: usize,
    attribute: u32,
    size: Option<&mut usize>,
    value: *mut u8,
) -> Status {
    enter("cuptiActivityGetAttribute_v2", "", || attribute::get(attribute, size, value))
}
