//! What handles stand for: contexts, streams, events, functions, memory, graphs.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use stallscope_double_shared::devices::{self, Device};
use stallscope_double_shared::link::{self, Memory};
use stallscope_double_shared::settings::Settings;
use stallscope_double_shared::truth;

use crate::model::{Marker, Model};
use crate::tuning::Tuning;

/// Codes of CUDA's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Error {
    InvalidValue = 1,
    OutOfMemory = 2,
    NotInitialized = 3,
    NoDevice = 100,
    InvalidDevice = 101,
    InvalidContext = 201,
    InvalidHandle = 400,
    NotFound = 500,
    NotReady = 600,
}

/// What the functions of the API return: 0 or an [`Error`].
pub(crate) type Status = u32;

/// What the API passes around for contexts, streams and all the rest.
pub(crate) type Handle = usize;

/// What is remembered of an operation until it has ended.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    /// What CUPTI will be told; the times are filled in later.
    pub(crate) record: link::Op,
    /// `None`: only there to join others; nobody is told.
    pub(crate) kind: Option<truth::OpKind>,
    pub(crate) launched_ns: u64,
    pub(crate) thread: u32,
    pub(crate) slowed_ns: u64,
    /// CUPTI wants it.
    pub(crate) observed: bool,
    /// CUPTI has been told of it before its end, and is not told again.
    pub(crate) told: bool,
    /// There was no room to time it for CUPTI.
    pub(crate) untimed: bool,
    /// The launch of a graph: where its record begins.
    pub(crate) since: Option<Marker>,
    /// A meeting: whom to tell its start.
    pub(crate) meeting: Option<(extern "C" fn(u64, u64, u64), u64)>,
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: u32,
    /// CUDA's number of the device.
    pub(crate) device: u32,
    /// Handle of its null stream.
    pub(crate) null_stream: Handle,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) context: Handle,
    /// Waits for the null stream, and the null stream for it.
    pub(crate) blocking: bool,
    /// End of what was submitted last.
    pub(crate) tail: Marker,
    /// Ends of what may not have ended, oldest first: the queue whose length is bounded.
    pub(crate) queue: VecDeque<Marker>,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: u32,
    /// When it was recorded last; none if never.
    pub(crate) recorded: Option<Marker>,
}

#[derive(Debug)]
pub(crate) struct Function {
    /// Address of its name.
    pub(crate) name: usize,
    pub(crate) text: String,
    /// Launches so far.
    pub(crate) launches: u64,
}

/// A node of a graph and the nodes that it waits for, by index.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) after: Vec<usize>,
    pub(crate) work: NodeWork,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeWork {
    Kernel { function: Handle, duration_ns: Option<u64>, grid: [u32; 3], block: [u32; 3] },
    Set { bytes: u64, value: u32 },
    Empty,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) id: u32,
    pub(crate) nodes: Vec<Node>,
}

/// Room for observed operations, as CUPTI's device buffers are.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) limit: u64,
    pub(crate) bytes_each: u64,
    pub(crate) outstanding: u64,
    pub(crate) peak: u64,
}

pub(crate) struct State {
    pub(crate) tuning: Tuning,
    pub(crate) devices: Vec<Device>,
    pub(crate) primary: BTreeMap<u32, Handle>,
    pub(crate) contexts: BTreeMap<Handle, Context>,
    pub(crate) streams: HashMap<Handle, Stream>,
    pub(crate) events: HashMap<Handle, Event>,
    pub(crate) functions: HashMap<Handle, Function>,
    pub(crate) graphs: HashMap<Handle, Graph>,
    pub(crate) executables: HashMap<Handle, Graph>,
    /// Which node of which graph a handle is.
    pub(crate) nodes: HashMap<Handle, (Handle, usize)>,
    /// Memory of devices by address: bytes, device.
    pub(crate) memory: BTreeMap<u64, (u64, u32)>,
    /// Pinned host memory that was allocated here, by address: bytes.
    pub(crate) pinned: BTreeMap<u64, u64>,
    /// The same for memory of the program that it had pinned.
    pub(crate) registered: BTreeMap<u64, u64>,
    pub(crate) pool: Pool,
    pub(crate) model: Model<Box<Tag>>,
    /// Operations that have or will have a line in the truth log.
    pub(crate) ops: u64,
    /// What callers wait for of which they do not know when it comes, by a number of the wait.
    pub(crate) waiting: BTreeMap<u64, Vec<Marker>>,
    pub(crate) waits: u64,
    last_handle: Handle,
    last_context: u32,
    last_stream: u32,
    last_graph: u32,
    next_address: u64,
}

impl State {
    pub(crate) fn new(settings: &Settings) -> Self {
        let variable = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        Self {
            tuning: Tuning::of(settings),
            devices: devices::visible(settings, variable.as_deref()),
            primary: BTreeMap::new(),
            contexts: BTreeMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            nodes: HashMap::new(),
            memory: BTreeMap::new(),
            pinned: BTreeMap::new(),
            registered: BTreeMap::new(),
            pool: Pool { limit: u64::MAX, bytes_each: 0, outstanding: 0, peak: 0 },
            model: Model::default(),
            waiting: BTreeMap::new(),
            waits: 0,
            ops: 0,
            last_handle: 0x57A1_1000_0000,
            last_context: 0,
            last_stream: 6,
            last_graph: 0,
            // Above what a process can map: a program that reads device memory gets a fault.
            next_address: 0xD0B1_0000_0000,
        }
    }

    /// A new handle: unlike NULL and the two streams that have names, and not an address of anything.
    pub(crate) fn handle(&mut self) -> Handle {
        self.last_handle += 16;
        self.last_handle
    }

    /// A new number for a graph, executable or not.
    pub(crate) fn graph_id(&mut self) -> u32 {
        self.last_graph += 1;
        self.last_graph
    }

    pub(crate) fn add_context(&mut self, device: u32) -> Handle {
        let handle = self.handle();
        self.last_context += 1;
        let null_stream = self.add_stream(handle, true);
        self.contexts.insert(handle, Context { id: self.last_context, device, null_stream });
        handle
    }

    pub(crate) fn add_stream(&mut self, context: Handle, blocking: bool) -> Handle {
        let handle = self.handle();
        // CUDA's first null stream has number 7 in CUPTI's records.
        self.last_stream += 1;
        let (tail, queue) = (Marker::past(), VecDeque::new());
        self.streams.insert(handle, Stream { id: self.last_stream, context, blocking, tail, queue });
        handle
    }

    pub(crate) fn context(&self, handle: Handle) -> Result<&Context, Error> {
        self.contexts.get(&handle).ok_or(Error::InvalidContext)
    }

    /// The stream that a handle means in a context: NULL and the legacy and per-thread names are the null stream.
    pub(crate) fn stream_handle(&self, context: Handle, stream: Handle) -> Result<Handle, Error> {
        if stream <= 2 {
            return Ok(self.context(context)?.null_stream);
        }
        self.streams.contains_key(&stream).then_some(stream).ok_or(Error::InvalidHandle)
    }

    /// Ends of everything that was submitted to a context, or to all.
    pub(crate) fn tails(&self, context: Option<Handle>) -> Vec<Marker> {
        let mine = self.streams.values().filter(|s| context.is_none_or(|c| s.context == c));
        mine.map(|s| s.tail.clone()).collect()
    }

    /// What an operation submitted to a stream waits for, with the rule of the null stream.
    pub(crate) fn before(&self, stream: Handle, now_ns: u64) -> Result<Vec<Marker>, Error> {
        let this = self.streams.get(&stream).ok_or(Error::InvalidHandle)?;
        let null = self.context(this.context)?.null_stream;
        let mut before = vec![this.tail.clone()];
        if stream == null {
            let others =
                self.streams.iter().filter(|(h, s)| **h != null && s.blocking && s.context == this.context);
            before.extend(others.map(|(_, s)| s.tail.clone()).filter(|t| !t.is_past(now_ns)));
        } else if this.blocking {
            let null = self.streams.get(&null).map(|s| s.tail.clone());
            before.extend(null.filter(|t| !t.is_past(now_ns)));
        }
        Ok(before)
    }

    /// What kind of memory an address is.
    pub(crate) fn kind_of(&self, address: u64) -> Memory {
        let inside = |start: u64, bytes: u64| address < start.saturating_add(bytes);
        let pinned = |ranges: &BTreeMap<u64, u64>| {
            ranges.range(..=address).next_back().is_some_and(|(start, bytes)| inside(*start, *bytes))
        };
        if self.memory.range(..=address).next_back().is_some_and(|(start, (bytes, _))| inside(*start, *bytes))
        {
            Memory::Device
        } else if pinned(&self.pinned) || pinned(&self.registered) {
            Memory::Pinned
        } else {
            Memory::Pageable
        }
    }

    /// Device memory.
    pub(crate) fn allocate(&mut self, bytes: u64, device: u32) -> Result<u64, Error> {
        if bytes > self.free_bytes(device) {
            return Err(Error::OutOfMemory);
        }
        let address = self.next_address;
        self.next_address += bytes.next_multiple_of(512).max(512);
        self.memory.insert(address, (bytes, device));
        Ok(address)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.tuning.memory_mib << 20
    }

    /// What is not allocated, neither by the program nor by CUPTI.
    pub(crate) fn free_bytes(&self, device: u32) -> u64 {
        let used: u64 = self.memory.values().filter(|(_, d)| *d == device).map(|(bytes, _)| bytes).sum();
        let observed = self.pool.peak * self.pool.bytes_each;
        self.total_bytes().saturating_sub(used).saturating_sub(observed)
    }
}
