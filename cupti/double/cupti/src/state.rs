//! Who wants what: clients of the activity API, subscribers of the callback API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use stallscope_double_shared::link::{self, Cuda};

use crate::buffers::Buffers;
use crate::layout::{self, Version, kind};
use crate::observer;

/// A function of a subscriber: userdata, domain, cbid, data.
pub(crate) type Callback = extern "C" fn(usize, u32, u32, usize);

/// A set of numbers given as "all but" or "none but".
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    all: bool,
    except: BTreeSet<u32>,
}

impl Filter {
    pub(crate) fn set_all(&mut self, on: bool) {
        self.all = on;
        self.except.clear();
    }

    pub(crate) fn set(&mut self, number: u32, on: bool) {
        if on == self.all {
            self.except.remove(&number);
        } else {
            self.except.insert(number);
        }
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.all != self.except.contains(&number)
    }
}

/// A user of the activity API: the process as a whole, or, from 13.2 on, a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// A bit for each kind, but for calls.
    kinds: u64,
    /// Calls that are recorded: of the driver, of the runtime.
    pub(crate) driver: Filter,
    pub(crate) runtime: Filter,
    pub(crate) buffers: Buffers,
    /// It enabled something while a subscriber of the second kind was there: it gets nothing any more.
    pub(crate) starved: bool,
}

impl Client {
    pub(crate) fn enable(&mut self, kind: u32, on: bool) {
        match kind {
            kind::DRIVER => self.driver.set_all(on),
            kind::RUNTIME => self.runtime.set_all(on),
            _ if on => self.kinds |= 1 << kind,
            _ => self.kinds &= !(1 << kind),
        }
    }

    /// Is a kind enabled that is not of calls?
    pub(crate) fn has(&self, kind: u32) -> bool {
        self.kinds & (1 << kind) != 0
    }
}

/// A user of the callback API.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) callback: Option<Callback>,
    pub(crate) userdata: usize,
    /// By domain.
    pub(crate) enabled: BTreeMap<u32, Filter>,
    /// Its client, if it was made by cuptiSubscribe_v2.
    pub(crate) second: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) version: Version,
    /// By subscriber's handle; 0 is the process as a whole.
    pub(crate) clients: BTreeMap<usize, Client>,
    pub(crate) subscribers: BTreeMap<usize, Subscriber>,
    pub(crate) attributes: BTreeMap<u32, Vec<u8>>,
    /// Ids of threads are the kernel's, not pthread's.
    pub(crate) system_threads: bool,
    pub(crate) flush_period_ms: u32,
    last_handle: usize,
}

impl State {
    fn new() -> Self {
        Self {
            version: layout::in_use(),
            clients: BTreeMap::from([(0, Client::default())]),
            subscribers: BTreeMap::new(),
            attributes: BTreeMap::new(),
            system_threads: false,
            flush_period_ms: 0,
            last_handle: 0x57A1_2000_0000,
        }
    }

    pub(crate) fn handle(&mut self) -> usize {
        self.last_handle += 16;
        self.last_handle
    }

    /// Everything as before the first call; what lies in buffers is gone. Returns how many records that were.
    pub(crate) fn reset(&mut self) -> u64 {
        let held = self.clients.values().map(|c| c.buffers.held()).sum();
        let last_handle = self.last_handle;
        *self = Self { last_handle, ..Self::new() };
        ANYBODY_SUBSCRIBED.store(false, Ordering::Release);
        held
    }

    /// Tell libcuda what is wanted now. From the first call until cuptiFinalize all calls pass through CUPTI, whether
    /// anybody wants to know of them or not.
    pub(crate) fn observe(&self) {
        ANYBODY_SUBSCRIBED.store(!self.subscribers.is_empty(), Ordering::Release);
        if let Some(cuda) = cuda() {
            let kinds = self.clients.values().fold(0, |all, c| all | c.kinds);
            (cuda.observe)(&observer::OBSERVER, kinds, true);
        }
    }

    pub(crate) fn client(&mut self, subscriber: usize) -> Option<&mut Client> {
        self.clients.get_mut(&subscriber)
    }
}

/// Bytes that CUPTI's headers say a kernel takes of its device buffers: 3,200,000 for 100,000.
const POOL_BYTES_EACH: u64 = 32;

/// Set the room for operations from the attributes of buffers.
pub(crate) fn set_pool(cuda: &Cuda, buffer_bytes: u64, buffers: u64) {
    (cuda.pool)((buffer_bytes / POOL_BYTES_EACH).saturating_mul(buffers).max(1), POOL_BYTES_EACH);
}

/// Is there a subscriber? Asked on every call, so it needs no lock.
pub(crate) fn anybody_subscribed() -> bool {
    ANYBODY_SUBSCRIBED.load(Ordering::Acquire)
}

static ANYBODY_SUBSCRIBED: AtomicBool = AtomicBool::new(false);

/// The stand-in for libcuda, if it is in this process.
pub(crate) fn cuda() -> Option<&'static Cuda> {
    static KNOWN: OnceLock<&'static Cuda> = OnceLock::new();
    KNOWN.get().copied().or_else(|| link::cuda().map(|cuda| *KNOWN.get_or_init(|| cuda)))
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::new()));

pub(crate) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
