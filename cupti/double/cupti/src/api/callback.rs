//! The callback API: subscribers and what they want to be called for.

use std::collections::BTreeMap;
use std::ffi::c_char;

use stallscope_double_shared::settings;

use super::{INVALID_PARAMETER, MULTIPLE_SUBSCRIBERS, Status, enter, put};
use crate::state::{Callback, Client, State, Subscriber, lock};

/// CUpti_SubscriberParams.
#[repr(C)]
struct Parameters {
    size: usize,
    name: *const c_char,
    old_name: *mut c_char,
    old_name_size: usize,
    allow_multiple: u8,
}

/// Its size where it has `allow_multiple`.
const WITH_MULTIPLE_BYTES: usize = 40;

fn subscribe(
    subscriber: Option<&mut usize>,
    callback: Option<Callback>,
    userdata: usize,
    second: bool,
) -> Result<(), Status> {
    let subscriber = subscriber.ok_or(INVALID_PARAMETER)?;
    let mut state = lock();
    let others = state.subscribers.values();
    let may_join = second && state.version.many_subscribers();
    if settings::now().is_on("cupti.taken") || others.into_iter().any(|s| !(may_join || s.second)) {
        return Err(MULTIPLE_SUBSCRIBERS);
    }
    let handle = state.handle();
    state.subscribers.insert(handle, Subscriber { callback, userdata, enabled: BTreeMap::new(), second });
    if second {
        state.clients.insert(handle, Client::default());
    }
    state.observe();
    *subscriber = handle;
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuptiSubscribe(
    subscriber: Option<&mut usize>,
    callback: Option<Callback>,
    userdata: usize,
) -> Status {
    enter("cuptiSubscribe", "subscribe", || subscribe(subscriber, callback, userdata, false))
}

#[unsafe(no_mangle)]
extern "C" fn cuptiSubscribe_v2(
    subscriber: Option<&mut usize>,
    callback: Option<Callback>,
    userdata: usize,
    parameters: Option<&Parameters>,
) -> Status {
    enter("cuptiSubscribe_v2", "subscribe", || {
        let asks = parameters.is_some_and(|p| p.size >= WITH_MULTIPLE_BYTES && p.allow_multiple == 1);
        let second = asks && lock().version.many_subscribers();
        subscribe(subscriber, callback, userdata, second)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiUnsubscribe(subscriber: usize) -> Status {
    enter("cuptiUnsubscribe", "unsubscribe", || {
        let mut state = lock();
        state.subscribers.remove(&subscriber).ok_or(INVALID_PARAMETER)?;
        state.clients.remove(&subscriber);
        state.observe();
        Ok(())
    })
}

fn of(state: &mut State, subscriber: usize) -> Result<&mut Subscriber, Status> {
    state.subscribers.get_mut(&subscriber).ok_or(INVALID_PARAMETER)
}

/// Driver, runtime, resources, synchronisation, NVTX, state.
const DOMAINS: std::ops::RangeInclusive<u32> = 1..=6;

#[unsafe(no_mangle)]
extern "C" fn cuptiEnableCallback(on: u32, subscriber: usize, domain: u32, cbid: u32) -> Status {
    enter("cuptiEnableCallback", &format!("{on} domain {domain} cbid {cbid}"), || {
        let mut state = lock();
        if !DOMAINS.contains(&domain) {
            return Err(INVALID_PARAMETER);
        }
        of(&mut state, subscriber)?.enabled.entry(domain).or_default().set(cbid, on != 0);
        state.observe();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiEnableDomain(on: u32, subscriber: usize, domain: u32) -> Status {
    enter("cuptiEnableDomain", &format!("{on} domain {domain}"), || {
        let mut state = lock();
        if !DOMAINS.contains(&domain) {
            return Err(INVALID_PARAMETER);
        }
        of(&mut state, subscriber)?.enabled.entry(domain).or_default().set_all(on != 0);
        state.observe();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiEnableAllDomains(on: u32, subscriber: usize) -> Status {
    enter("cuptiEnableAllDomains", &format!("{on}"), || {
        let mut state = lock();
        for domain in DOMAINS {
            of(&mut state, subscriber)?.enabled.entry(domain).or_default().set_all(on != 0);
        }
        state.observe();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuptiGetCallbackState(
    on: Option<&mut u32>,
    subscriber: usize,
    domain: u32,
    cbid: u32,
) -> Status {
    enter("cuptiGetCallbackState", "", || {
        let mut state = lock();
        let enabled = &of(&mut state, subscriber)?.enabled;
        put(on, u32::from(enabled.get(&domain).is_some_and(|f| f.has(cbid))))
    })
}
