//! A made-up CUPTI: functions that keep their state in one global, and do what a test told them.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stallscope_cupti_abi::{
    ActivityKind, BufferCompleted, BufferRequested, CallbackData, CallbackFunction, CuptiResult, Functions,
    MARK_CALL, Subscriber, code, domain, site,
};
use stallscope_cupti_wire::Reason;

use crate::Refusal;
use crate::driver::Driver;
use crate::library::Library;
use crate::sys;
use crate::text::Texts;

/// What `cuptiGetTimestamp` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FakeClock {
    Real,
    /// Three units a ns.
    Counter,
    Noise,
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) version: u32,
    pub(super) clock: FakeClock,
    pub(super) has_cuda: bool,
    /// What `cuptiSubscribe` returns.
    pub(super) subscribe_result: CuptiResult,
    /// What `cuptiActivityFlushAll` returns.
    pub(super) flush_result: CuptiResult,
    pub(super) unknown_kinds: BTreeSet<u32>,
    pub(super) enabled: BTreeSet<u32>,
    pub(super) driver_calls: BTreeSet<u32>,
    /// The call of marks cannot be enabled alone.
    pub(super) refuses_mark_call: bool,
    pub(super) runtime_calls: BTreeSet<u32>,
    /// Calls can be enabled one by one.
    pub(super) has_call_filters: bool,
    pub(super) thread_ids: u32,
    pub(super) subscriber: Option<CallbackFunction>,
    pub(super) domain_enabled: bool,
    /// Calls of `cuptiFinalize`, what it returns, and how long it takes.
    pub(super) finalized: u32,
    pub(super) finalize_result: CuptiResult,
    pub(super) finalize_takes: Duration,
    /// The job makes a call into the driver as soon as somebody wants to know.
    pub(super) makes_calls: bool,
    /// Records that the next flush delivers; those for a forced one only.
    pub(super) records: Vec<Vec<u8>>,
    pub(super) unfinished: Vec<Vec<u8>>,
    pub(super) dropped: usize,
    pub(super) callbacks: Option<(BufferRequested, BufferCompleted)>,
    /// Another profiler has the callbacks: what is recorded goes to it.
    pub(super) is_taken: bool,
    /// Flushes hand out nothing: what there is goes to this address, behind so many bytes.
    pub(super) holds: Option<(usize, usize)>,
    /// Records that it got.
    pub(super) taken: Vec<Vec<u8>>,
    pub(super) flushes: Vec<u32>,
    pub(super) subscriptions: u32,
    pub(super) watches_exit: bool,
    /// UUIDs of the driver's devices: of the whole, and their own.
    pub(super) devices: Vec<([u8; 16], [u8; 16])>,
    /// What `cuDeviceGetCount` returns.
    pub(super) driver_result: i32,
    pub(super) has_uuid_v2: bool,
    /// `cuptiActivityGetNextRecord` returns the first record for ever.
    pub(super) repeats_records: bool,
}

static FAKE: Mutex<Option<Fake>> = Mutex::new(None);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Fake {
    fn new() -> Self {
        Self {
            version: 24,
            clock: FakeClock::Real,
            has_cuda: true,
            subscribe_result: code::SUCCESS,
            flush_result: code::SUCCESS,
            unknown_kinds: BTreeSet::new(),
            enabled: BTreeSet::new(),
            driver_calls: BTreeSet::new(),
            refuses_mark_call: false,
            runtime_calls: BTreeSet::new(),
            has_call_filters: true,
            thread_ids: 0,
            subscriber: None,
            domain_enabled: false,
            finalized: 0,
            finalize_result: code::SUCCESS,
            finalize_takes: Duration::ZERO,
            makes_calls: true,
            records: Vec::new(),
            unfinished: Vec::new(),
            dropped: 0,
            callbacks: None,
            is_taken: false,
            holds: None,
            taken: Vec::new(),
            flushes: Vec::new(),
            subscriptions: 0,
            watches_exit: false,
            devices: Vec::new(),
            driver_result: 0,
            has_uuid_v2: true,
            repeats_records: false,
        }
    }
}

/// A new fake, for one test at a time.
pub(super) fn begin() -> MutexGuard<'static, ()> {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    *FAKE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Fake::new());
    alone
}

/// The fake CUPTI as it is now. Not to be held while the machine is stepped.
pub(super) fn fake<T>(with: impl FnOnce(&mut Fake) -> T) -> T {
    let mut fake = FAKE.lock().unwrap_or_else(PoisonError::into_inner);
    with(fake.as_mut().expect("a test began"))
}

unsafe extern "C" fn get_version(version: *mut u32) -> CuptiResult {
    // SAFETY: the agent passes a variable of its own.
    unsafe { version.write(fake(|fake| fake.version)) };
    code::SUCCESS
}

fn time(clock: FakeClock) -> u64 {
    match clock {
        FakeClock::Real => sys::realtime_ns(),
        FakeClock::Counter => sys::monotonic_ns() * 3,
        FakeClock::Noise => sys::monotonic_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
    }
}

unsafe extern "C" fn get_timestamp(timestamp: *mut u64) -> CuptiResult {
    let now = time(fake(|fake| fake.clock));
    // SAFETY: the agent passes a variable of its own.
    unsafe { timestamp.write(now) };
    code::SUCCESS
}

unsafe extern "C" fn subscribe(
    subscriber: *mut Subscriber,
    callback: CallbackFunction,
    _: *mut c_void,
) -> CuptiResult {
    fake(|fake| {
        if fake.subscribe_result != code::SUCCESS {
            return fake.subscribe_result;
        }
        assert!(fake.subscriber.is_none(), "one subscription at a time");
        fake.subscriber = Some(callback);
        fake.subscriptions += 1;
        // SAFETY: the agent passes a variable of its own.
        unsafe { subscriber.write(std::ptr::without_provenance_mut(0x5b)) };
        code::SUCCESS
    })
}

unsafe extern "C" fn unsubscribe(subscriber: Subscriber) -> CuptiResult {
    assert_eq!(subscriber.addr(), 0x5b);
    fake(|fake| {
        assert!(fake.subscriber.take().is_some());
        fake.domain_enabled = false;
    });
    code::SUCCESS
}

unsafe extern "C" fn enable_callback(_: u32, _: Subscriber, _: u32, _: u32) -> CuptiResult {
    code::SUCCESS
}

unsafe extern "C" fn enable_domain(on: u32, _: Subscriber, which: u32) -> CuptiResult {
    assert!(matches!(which, domain::DRIVER_API | domain::RUNTIME_API));
    let calls = fake(|fake| {
        let was_enabled = std::mem::replace(&mut fake.domain_enabled, on != 0);
        fake.makes_calls && on != 0 && !was_enabled
    });
    if calls {
        // A thread of the job, which calls while the agent waits.
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(2));
            job_calls(307);
        });
    }
    code::SUCCESS
}

/// The job calls into the driver, on this thread.
pub(super) fn job_calls(call: u32) {
    let mut data = CallbackData {
        site: site::ENTER,
        function_name: std::ptr::null(),
        function_params: std::ptr::null(),
        function_result: std::ptr::null_mut(),
        symbol_name: std::ptr::null(),
        context: std::ptr::null_mut(),
        context_id: 1,
        correlation_data: std::ptr::null_mut(),
        correlation: 77,
    };
    for at in [site::ENTER, site::EXIT] {
        data.site = at;
        if let Some(callback) = fake(|fake| fake.subscriber) {
            // SAFETY: the agent's callback, with what CUPTI would pass.
            unsafe { callback(std::ptr::null_mut(), domain::DRIVER_API, call, &raw const data) };
        }
    }
}

unsafe extern "C" fn register(requested: BufferRequested, completed: BufferCompleted) -> CuptiResult {
    fake(|fake| {
        fake.callbacks = Some((requested, completed));
        fake.is_taken = false;
    });
    code::SUCCESS
}

unsafe extern "C" fn enable(kind: u32) -> CuptiResult {
    fake(|fake| {
        if fake.unknown_kinds.contains(&kind) {
            return code::INVALID_KIND;
        }
        fake.enabled.insert(kind);
        code::SUCCESS
    })
}

unsafe extern "C" fn disable(kind: u32) -> CuptiResult {
    fake(|fake| fake.enabled.remove(&kind));
    code::SUCCESS
}

unsafe extern "C" fn enable_driver_api(call: u32, on: u8) -> CuptiResult {
    fake(|fake| {
        if call > 800 || (call == MARK_CALL && fake.refuses_mark_call) {
            return code::INVALID_PARAMETER;
        }
        if on != 0 {
            fake.driver_calls.insert(call)
        } else {
            fake.driver_calls.remove(&call)
        };
        code::SUCCESS
    })
}

unsafe extern "C" fn enable_runtime_api(call: u32, on: u8) -> CuptiResult {
    fake(|fake| {
        if on != 0 {
            fake.runtime_calls.insert(call)
        } else {
            fake.runtime_calls.remove(&call)
        };
    });
    code::SUCCESS
}

unsafe extern "C" fn flush_all(flags: u32) -> CuptiResult {
    let (records, callbacks, result) = fake(|fake| {
        fake.flushes.push(flags);
        let mut records = std::mem::take(&mut fake.records);
        if flags == 1 {
            records.append(&mut fake.unfinished);
        }
        if fake.is_taken {
            fake.taken.append(&mut records);
        } else if let Some((at, used)) = &mut fake.holds {
            let bytes = std::mem::take(&mut records).concat();
            let room: *mut u8 = std::ptr::with_exposed_provenance_mut(*at + *used);
            // SAFETY: a buffer of the agent's that was asked for and not given back, with room for so many.
            let room = unsafe { std::slice::from_raw_parts_mut(room, bytes.len()) };
            room.copy_from_slice(&bytes);
            *used += bytes.len();
        }
        (records, fake.callbacks, fake.flush_result)
    });
    if !records.is_empty() {
        let (requested, completed) = callbacks.expect("callbacks are registered before anything is flushed");
        deliver(&records, requested, completed);
    }
    result
}

/// As many buffers as the records need.
pub(super) fn deliver(records: &[Vec<u8>], requested: BufferRequested, completed: BufferCompleted) {
    let mut rest = records;
    while !rest.is_empty() {
        let (mut buffer, mut size, mut most) = (std::ptr::null_mut(), 0, 1);
        // SAFETY: the agent's callback.
        unsafe { requested(&raw mut buffer, &raw mut size, &raw mut most) };
        if buffer.is_null() {
            assert_eq!(size, 0);
            fake(|fake| fake.dropped += rest.len());
            return;
        }
        assert_eq!(most, 0);
        let mut valid = 0;
        while let Some((record, others)) =
            rest.split_first().filter(|(record, _)| valid + record.len() <= size)
        {
            let begin = buffer.wrapping_add(valid);
            // SAFETY: the buffer has so much room, which nobody else uses.
            let room = unsafe { std::slice::from_raw_parts_mut(begin, record.len()) };
            room.copy_from_slice(record);
            valid += record.len();
            rest = others;
        }
        // SAFETY: the agent's callback, with a buffer of its own.
        unsafe { completed(std::ptr::null_mut(), 0, buffer, size, valid) };
    }
}

/// Bytes of a record, as 13.0 has them.
pub(super) fn record_bytes(kind: u32) -> usize {
    match ActivityKind::from_id(kind) {
        Some(ActivityKind::Kernel) => 216,
        Some(ActivityKind::Copy | ActivityKind::PeerCopy) => 96,
        Some(ActivityKind::Fill) => 88,
        Some(ActivityKind::Driver | ActivityKind::Runtime) => 40,
        Some(ActivityKind::Device) => 184,
        _ => 56,
    }
}

unsafe extern "C" fn next_record(buffer: *mut u8, valid: usize, record: *mut *mut u8) -> CuptiResult {
    // SAFETY: the agent passes a variable of its own.
    let last = unsafe { record.read() };
    let offset = if last.is_null() || fake(|fake| fake.repeats_records) {
        0
    } else {
        // SAFETY: a record that this function returned.
        last.addr() - buffer.addr() + record_bytes(unsafe { last.cast::<u32>().read_unaligned() })
    };
    if offset >= valid {
        return code::MAX_LIMIT_REACHED;
    }
    // SAFETY: as above.
    unsafe { record.write(buffer.wrapping_add(offset)) };
    code::SUCCESS
}

unsafe extern "C" fn dropped_records(_: *mut c_void, _: u32, dropped: *mut usize) -> CuptiResult {
    // SAFETY: the agent passes a variable of its own.
    unsafe { dropped.write(fake(|fake| std::mem::take(&mut fake.dropped))) };
    code::SUCCESS
}

unsafe extern "C" fn get_thread_id_type(kind: *mut u32) -> CuptiResult {
    // SAFETY: the agent passes a variable of its own.
    unsafe { kind.write(fake(|fake| fake.thread_ids)) };
    code::SUCCESS
}

unsafe extern "C" fn set_thread_id_type(kind: u32) -> CuptiResult {
    fake(|fake| fake.thread_ids = kind);
    code::SUCCESS
}

unsafe extern "C" fn finalize() -> CuptiResult {
    std::thread::sleep(fake(|fake| fake.finalize_takes));
    fake(|fake| {
        fake.finalized += 1;
        if fake.finalize_result == code::SUCCESS {
            fake.subscriber = None;
            fake.domain_enabled = false;
            fake.callbacks = None;
        }
        fake.finalize_result
    })
}

unsafe extern "C" fn device_count(count: *mut i32) -> i32 {
    // SAFETY: the agent passes a variable of its own.
    unsafe { count.write(fake(|fake| fake.devices.len() as i32)) };
    let clock = fake(|fake| fake.clock);
    fake(|fake| {
        if fake.enabled.contains(&ActivityKind::Driver.id()) || fake.driver_calls.contains(&MARK_CALL) {
            let mut mark = vec![0; record_bytes(ActivityKind::Driver.id())];
            mark[..4].copy_from_slice(&ActivityKind::Driver.id().to_ne_bytes());
            mark[4..8].copy_from_slice(&MARK_CALL.to_ne_bytes());
            mark[8..16].copy_from_slice(&time(clock).to_ne_bytes());
            mark[16..24].copy_from_slice(&time(clock).to_ne_bytes());
            // First, because some tests end with a record that is cut short.
            let at = if fake.repeats_records { fake.records.len() } else { 0 };
            fake.records.insert(at, mark);
        }
        fake.driver_result
    })
}

/// Devices have other numbers than places.
const DEVICE_BASE: i32 = 100;

unsafe extern "C" fn device_get(device: *mut i32, place: i32) -> i32 {
    // SAFETY: the agent passes a variable of its own.
    unsafe { device.write(place + DEVICE_BASE) };
    0
}

fn device_uuid(of: i32, pick: impl Fn(&([u8; 16], [u8; 16])) -> [u8; 16]) -> [u8; 16] {
    fake(|fake| pick(&fake.devices[usize::try_from(of - DEVICE_BASE).expect("a device")]))
}

unsafe extern "C" fn whole_uuid(uuid: *mut [u8; 16], of: i32) -> i32 {
    // SAFETY: the agent passes a variable of its own.
    unsafe { uuid.write(device_uuid(of, |(whole, _)| *whole)) };
    0
}

unsafe extern "C" fn own_uuid(uuid: *mut [u8; 16], of: i32) -> i32 {
    // SAFETY: the agent passes a variable of its own.
    unsafe { uuid.write(device_uuid(of, |(_, own)| *own)) };
    0
}

unsafe extern "C" fn device_name(name: *mut std::ffi::c_char, bytes: i32, of: i32) -> i32 {
    let text = format!("Device {of}");
    assert!(text.len() < bytes as usize);
    // SAFETY: the agent passes that much room.
    let room = unsafe { std::slice::from_raw_parts_mut(name.cast::<u8>(), text.len()) };
    room.copy_from_slice(text.as_bytes());
    0
}

/// A process with the fake CUPTI in it.
#[derive(Debug)]
pub(super) struct Process;

impl Library for Process {
    fn offer(&mut self, _: [u8; stallscope_cupti_wire::CUPTI_PATH_BYTES]) {}

    fn functions(&mut self) -> Result<Functions, Refusal> {
        let (has_cuda, has_call_filters) = fake(|fake| (fake.has_cuda, fake.has_call_filters));
        if !has_cuda {
            return Err(Refusal::new(Reason::NoCuda, 0));
        }
        Ok(Functions {
            get_version,
            get_timestamp,
            subscribe,
            unsubscribe,
            enable_callback,
            enable_domain,
            register_callbacks: register,
            enable,
            enable_and_dump: enable,
            disable,
            flush_all,
            next_record,
            dropped_records,
            get_thread_id_type,
            set_thread_id_type,
            finalize,
            enable_driver_api: has_call_filters.then_some(enable_driver_api as _),
            enable_runtime_api: has_call_filters.then_some(enable_runtime_api as _),
        })
    }

    fn texts(&self) -> Texts {
        Texts::default()
    }

    fn driver(&self) -> Option<Driver> {
        Some(Driver {
            get_count: device_count,
            get: device_get,
            get_name: Some(device_name),
            get_uuid: Some(whole_uuid),
            get_uuid_v2: fake(|fake| fake.has_uuid_v2).then_some(own_uuid as _),
        })
    }

    fn watch_exit(&self) {
        fake(|fake| fake.watches_exit = true);
    }
}
