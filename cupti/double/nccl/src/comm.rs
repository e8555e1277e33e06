//! Communicators: connections of every rank with every other, and who has arrived where.
//!
//! A rank that arrives says so to all whom it meets, so each finds out by itself when a meeting is complete, and all
//! come to the same result. A rank that goes away after its arrival is not missed.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stallscope_double_shared::truth::{self, Line, Why};
use stallscope_double_shared::{link, sys};

use crate::launch::Launch;
use crate::message::{Arrival, Hello, Key, Receiver, send};
use crate::root;

/// NCCL's structure as far as tools look into it: marks at both ends, and four numbers side by side.
#[derive(Debug)]
#[repr(C)]
struct Visible {
    start_magic: u64,
    before: [u64; 16],
    hash: u64,
    rank: i32,
    world: i32,
    device: i32,
    nvml_device: i32,
    after: [u64; 16],
    end_magic: u64,
}

const MAGIC: u64 = 0x0280_0280_0280_0280;

/// A rank's part of a communicator.
#[derive(Debug)]
pub(crate) struct Comm {
    pub(crate) hash: u64,
    pub(crate) rank: u32,
    pub(crate) world: u32,
    pub(crate) device: u32,
    /// Where programs think it is; leaked, because they may look at it at any time.
    visible: &'static Visible,
    /// By rank; none for this one.
    peers: Vec<Option<Mutex<TcpStream>>>,
    meetings: Mutex<HashMap<Key, Meeting>>,
    sequence: Mutex<Sequence>,
    /// A rank is gone.
    pub(crate) broken: AtomicBool,
    offset_ns: i64,
}

#[derive(Debug, Default)]
struct Sequence {
    collectives: u64,
    /// By sender, receiver, and whether this rank receives: a message to itself is counted on both ends.
    pairs: HashMap<(u32, u32, bool), u64>,
}

/// Who has arrived, and the kernel that waits for all to have.
#[derive(Debug, Default)]
struct Meeting {
    arrivals: Vec<Arrival>,
    launch: Option<Arc<Launch>>,
}

/// A meeting at which all have arrived.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) key: Key,
    /// Ranks and their starts by this process's clock, in the order of ranks.
    pub(crate) starts: Vec<(u32, u64)>,
    /// The longest of the ranks' transfer times, and the part of it that a setting added.
    pub(crate) transfer_ns: u64,
    pub(crate) slowed_ns: u64,
}

static COMMS: Mutex<Option<HashMap<usize, Arc<Comm>>>> = Mutex::new(None);

fn comms() -> MutexGuard<'static, Option<HashMap<usize, Arc<Comm>>>> {
    COMMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The communicator that a program's pointer means.
pub(crate) fn find(handle: usize) -> Option<Arc<Comm>> {
    comms().as_ref()?.get(&handle).cloned()
}

/// Forget a communicator.
pub(crate) fn remove(handle: usize) -> Option<Arc<Comm>> {
    comms().as_mut()?.remove(&handle)
}

/// Connect with every other rank; the lower one listens. Returns the connections by rank, to send and to receive.
fn connect(
    me: &Hello,
    all: &[Hello],
    listener: &TcpListener,
) -> io::Result<Vec<Option<(TcpStream, Receiver)>>> {
    let mut peers: Vec<_> = all.iter().map(|_| None).collect();
    for (peer, hello) in peers.iter_mut().zip(all).filter(|(_, h)| h.rank < me.rank) {
        let mut stream = TcpStream::connect(&hello.address)?;
        send(&mut stream, me)?;
        let receiver = Receiver::new(stream.try_clone()?);
        *peer = Some((stream, receiver));
    }
    for _ in all.iter().filter(|h| h.rank > me.rank) {
        let (stream, _) = listener.accept()?;
        // The receiver is kept: it may have read more than this.
        let mut receiver = Receiver::new(stream.try_clone()?);
        let hello: Hello = receiver.next()?;
        let place = usize::try_from(hello.rank).ok().and_then(|r| peers.get_mut(r));
        *place.ok_or(io::ErrorKind::InvalidData)? = Some((stream, receiver));
    }
    Ok(peers)
}

impl Comm {
    /// Find the other ranks through the root at `address`, and connect with them.
    pub(crate) fn make(address: &str, hash: u64, rank: u32, world: u32) -> io::Result<usize> {
        let offset_ns = sys::monotonic_offset_ns();
        let enter_ns = sys::monotonic_ns();
        let listener = root::listen()?;
        let at_ns = enter_ns.saturating_add_signed(-offset_ns);
        let me = Hello { rank, world, address: listener.local_addr()?.to_string(), at_ns };
        let mut root = TcpStream::connect(address)?;
        send(&mut root, &me)?;
        let all: Vec<Hello> = Receiver::new(root).next()?;
        let (mut peers, mut receivers) = (Vec::new(), Vec::new());
        for peer in connect(&me, &all, &listener)? {
            peers.push(peer.map(|(stream, receiver)| {
                receivers.push(receiver);
                stream
            }));
        }
        for stream in peers.iter().flatten() {
            TcpStream::set_nodelay(stream, true)?;
        }
        let peers = peers.into_iter().map(|peer| peer.map(Mutex::new)).collect();
        let device = link::load_cuda().map_or(0, |c| (c.current_device)());
        let comm = Arc::new(Self {
            hash,
            rank,
            world,
            device,
            visible: visible(hash, rank, world, device),
            peers,
            meetings: Mutex::default(),
            sequence: Mutex::default(),
            broken: AtomicBool::new(false),
            offset_ns,
        });
        for receiver in receivers {
            let comm = Arc::clone(&comm);
            let thread = std::thread::Builder::new().name("nccl-service".into());
            thread.spawn(move || comm.listen(receiver))?;
        }
        let until_ns = all.iter().map(|h| comm.here(h.at_ns)).max().unwrap_or(enter_ns);
        comm.held(enter_ns, until_ns);
        let handle = std::ptr::from_ref(comm.visible) as usize;
        comms().get_or_insert_default().insert(handle, comm);
        Ok(handle)
    }

    /// Say in the truth log that the caller was held until the last rank came.
    fn held(&self, enter_ns: u64, until_ns: u64) {
        truth::write(&[Line::Block(truth::Block {
            pid: sys::process_id(),
            thread: sys::thread_id(),
            call: "ncclCommInitRank".into(),
            correlation: 0,
            why: Why::CommInit,
            enter_ns,
            leave_ns: sys::monotonic_ns(),
            until_ns,
        })]);
    }

    /// A moment of the machine as this process's clock has it.
    fn here(&self, machine_ns: u64) -> u64 {
        machine_ns.saturating_add_signed(self.offset_ns)
    }

    /// A kernel arrives where it meets others: tell them, and whoever waits if all are there.
    pub(crate) fn arrive(
        &self,
        launch: &Arc<Launch>,
        key: &Key,
        start_ns: u64,
        (transfer_ns, slowed_ns): (u64, u64),
    ) {
        let (key, rank) = (key.clone(), self.rank);
        let start_ns = start_ns.saturating_add_signed(-self.offset_ns);
        let arrival = Arrival { key: key.clone(), rank, start_ns, transfer_ns, slowed_ns };
        for (peer, stream) in (0..).zip(&self.peers) {
            let meets = match key {
                Key::All(_) => true,
                Key::Pair(from, to, _) => peer == from || peer == to,
            };
            if let (true, Some(stream)) = (meets, stream) {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                if send(&mut stream, &arrival).is_err() {
                    self.broken.store(true, Ordering::Release);
                }
            }
        }
        self.arrived(arrival, Some(Arc::clone(launch)));
    }

    /// Somebody has arrived, with the kernel that waits if it was this rank.
    fn arrived(&self, arrival: Arrival, launch: Option<Arc<Launch>>) {
        let key = arrival.key.clone();
        let parties = match key {
            Key::All(_) => usize::try_from(self.world).unwrap_or(usize::MAX),
            Key::Pair(..) => 2,
        };
        let mut meetings = self.meetings.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = meetings.entry(key.clone()).or_default();
        meeting.arrivals.push(arrival);
        meeting.launch = launch.or(meeting.launch.take());
        let complete = meeting.arrivals.len() >= parties && meeting.launch.is_some();
        let complete = if complete { meetings.remove(&key) } else { None };
        drop(meetings);
        if let Some(Meeting { mut arrivals, launch: Some(launch) }) = complete {
            arrivals.sort_by_key(|a| (a.rank, a.start_ns));
            let longest = arrivals.iter().max_by_key(|a| a.transfer_ns);
            let (transfer_ns, slowed_ns) = longest.map_or((0, 0), |a| (a.transfer_ns, a.slowed_ns));
            let starts = arrivals.iter().map(|a| (a.rank, self.here(a.start_ns))).collect();
            launch.met(self, &Met { key, starts, transfer_ns, slowed_ns });
        }
    }

    fn listen(&self, mut receiver: Receiver) {
        sys::stand_back();
        while let Ok(arrival) = receiver.next() {
            self.arrived(arrival, None);
        }
        self.broken.store(true, Ordering::Release);
    }

    /// Number of the next collective.
    pub(crate) fn next_collective(&self) -> Key {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        sequence.collectives += 1;
        Key::All(sequence.collectives - 1)
    }

    /// Number of the next message from one rank to another, which this rank sends or receives.
    pub(crate) fn next_message(&self, from: u32, to: u32, receives: bool) -> Key {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sequence.pairs.entry((from, to, receives)).or_default();
        *count += 1;
        Key::Pair(from, to, *count - 1)
    }

    /// Give up: what still waits ends now.
    pub(crate) fn abort(&self) {
        let meetings = std::mem::take(&mut *self.meetings.lock().unwrap_or_else(PoisonError::into_inner));
        for launch in meetings.into_values().filter_map(|m| m.launch) {
            launch.cancel();
        }
        self.close();
    }

    /// End the connections, and with them the threads that listen.
    pub(crate) fn close(&self) {
        for peer in self.peers.iter().flatten() {
            let stream = peer.lock().unwrap_or_else(PoisonError::into_inner);
            // Closed already is closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn visible(hash: u64, rank: u32, world: u32, device: u32) -> &'static Visible {
    let number = |n: u32| i32::try_from(n).unwrap_or(-1);
    Box::leak(Box::new(Visible {
        start_magic: MAGIC,
        before: [0; 16],
        hash,
        rank: number(rank),
        world: number(world),
        device: number(device),
        nvml_device: number(device),
        after: [0; 16],
        end_magic: MAGIC,
    }))
}
