//! Communicators: how every rank reaches every other.
//!
//! A rank that arrives says so to all whom it meets, so each finds out by itself when a meeting is complete, and all
//! come to the same result. A rank that goes away after its arrival is not missed.
//!
//! Where all ranks can share memory they say it on the [`Board`], and connections are there to show who goes away; where
//! they cannot, or the board is full, they say it by TCP. What is met at is then finished by each rank
//!
//! - that makes it complete, by its own arrival or by hearing of one over TCP: it wakes the others;
//! - that is woken, or sees another go away: it looks at the board.
//!
//! Somebody always wakes the others: the last to write on the board finds there what all who wrote have written, and what
//! else it lacks it hears of over TCP.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stallscope_double_shared::truth::{self, Line, Why};
use stallscope_double_shared::{link, sys};

use crate::board::Board;
use crate::launch::Launch;
use crate::meeting::{Complete, Meetings};
use crate::message::{Arrival, Hello, Key, Receiver, Welcome, send};
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
    board: Option<Board>,
    meetings: Mutex<Meetings>,
    sequence: Mutex<Sequence>,
    /// A rank is gone.
    pub(crate) broken: AtomicBool,
    /// Nothing more is said to others, nor heard from them.
    closed: AtomicBool,
    offset_ns: i64,
}

#[derive(Debug, Default)]
struct Sequence {
    collectives: u64,
    /// By sender, receiver, and whether this rank receives: a message to itself is counted on both ends.
    pairs: HashMap<(u32, u32, bool), u64>,
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

/// Be told by the root who else there is, and agree with all on whether to share memory.
fn join(address: &str, me: &Hello, shares_memory: bool) -> io::Result<(Vec<Hello>, Option<Board>)> {
    let mut root = TcpStream::connect(address)?;
    send(&mut root, me)?;
    let mut receiver = Receiver::new(root.try_clone()?);
    let Welcome { all, memory } = receiver.next()?;
    let memory = memory.filter(|_| shares_memory);
    let board = memory.and_then(|place| Board::open(&place, me.rank, me.world).ok());
    send(&mut root, &board.is_some())?;
    let all_have_it: bool = receiver.next()?;
    Ok((all, board.filter(|_| all_have_it)))
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
    /// Find the other ranks through the root at `address`, and connect with them. Returns what programs are given.
    pub(crate) fn make(address: &str, hash: u64, rank: u32, world: u32) -> io::Result<usize> {
        let enter_ns = sys::monotonic_ns();
        let offset_ns = sys::monotonic_offset_ns();
        let (comm, last_ns) = Self::meet(address, hash, (rank, world), offset_ns, root::shares_memory())?;
        comm.held(enter_ns, last_ns.max(enter_ns));
        let handle = std::ptr::from_ref(comm.visible) as usize;
        comms().get_or_insert_default().insert(handle, comm);
        Ok(handle)
    }

    /// The communicator, for a clock that is so far ahead of the machine's, and when the last rank came.
    fn meet(
        address: &str,
        hash: u64,
        (rank, world): (u32, u32),
        offset_ns: i64,
        shares_memory: bool,
    ) -> io::Result<(Arc<Self>, u64)> {
        let enter_ns = sys::monotonic_ns();
        let listener = root::listen()?;
        let at_ns = enter_ns.saturating_add_signed(-offset_ns);
        let me = Hello { rank, world, address: listener.local_addr()?.to_string(), at_ns };
        let (all, board) = join(address, &me, shares_memory)?;
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
            meetings: Mutex::new(Meetings::new(world, board.as_ref().map(Board::progress))),
            board,
            sequence: Mutex::default(),
            broken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            offset_ns,
        });
        if comm.board.is_some() {
            let comm = Arc::clone(&comm);
            std::thread::Builder::new().name("nccl-service".into()).spawn(move || comm.serve())?;
        }
        for receiver in receivers {
            let comm = Arc::clone(&comm);
            std::thread::Builder::new().name("nccl-peer".into()).spawn(move || comm.listen(receiver))?;
        }
        let last_ns = all.iter().map(|h| comm.here(h.at_ns)).max().unwrap_or(enter_ns);
        Ok((comm, last_ns))
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

    fn meetings(&self) -> MutexGuard<'_, Meetings> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut meetings = self.meetings();
        let told = self.write_down(&mut meetings, &arrival);
        let others = self.read(&mut meetings);
        // Sent with no lock held: who takes it in may be about to send us something too.
        let unsaid = (!told).then(|| arrival.clone());
        let complete = meetings.add(arrival, Some(Arc::clone(launch)));
        drop(meetings);
        if let Some(arrival) = unsaid {
            self.send(&arrival);
        }
        self.made_complete(&key, complete);
        self.met(others);
    }

    /// Leave word on the board; false where there is none, or no room on it.
    fn write_down(&self, meetings: &mut Meetings, arrival: &Arrival) -> bool {
        let (Some(board), Some(progress)) = (&self.board, &mut meetings.progress) else { return false };
        !self.closed.load(Ordering::Acquire) && board.add(progress, arrival)
    }

    /// See what others have written on the board.
    fn read(&self, meetings: &mut Meetings) -> Vec<Complete> {
        let mut complete = Vec::new();
        let (Some(board), Some(mut progress)) = (&self.board, meetings.progress.take()) else {
            return complete;
        };
        board.read(&mut progress, |arrival| complete.extend(meetings.add(arrival, None)));
        meetings.progress = Some(progress);
        complete
    }

    /// Tell those who meet by TCP.
    fn send(&self, arrival: &Arrival) {
        for (_, stream) in (0..).zip(&self.peers).filter(|(peer, _)| arrival.key.has(*peer)) {
            let Some(stream) = stream else { continue };
            let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            if send(&mut stream, arrival).is_err() {
                self.broken.store(true, Ordering::Release);
            }
        }
        if let Some(board) = &self.board {
            // Whoever has not read for long makes room by it.
            board.wake_all();
        }
    }

    /// A meeting may be complete by what this rank did or heard: then those who wait at the board are to know.
    fn made_complete(&self, key: &Key, complete: Option<Complete>) {
        if complete.is_some() {
            // They first: what this rank has to do now, and whether it is let do it, is nothing to them.
            if let Some(board) = &self.board {
                board.wake(key);
            }
            self.met(complete);
        }
    }

    fn met(&self, complete: impl IntoIterator<Item = Complete>) {
        for complete in complete {
            let launch = Arc::clone(&complete.launch);
            launch.met(self, &complete.met(self.offset_ns));
        }
    }

    fn listen(&self, mut receiver: Receiver) {
        sys::stand_back();
        while let Ok(arrival) = receiver.next() {
            self.heard(arrival);
        }
        self.look();
        self.broken.store(true, Ordering::Release);
    }

    fn heard(&self, arrival: Arrival) {
        let key = arrival.key.clone();
        let mut meetings = self.meetings();
        let others = self.read(&mut meetings);
        let complete = meetings.add(arrival, None);
        drop(meetings);
        self.made_complete(&key, complete);
        self.met(others);
    }

    /// Finish what is complete on the board.
    fn look(&self) {
        let complete = self.read(&mut self.meetings());
        self.met(complete);
    }

    /// Look at the board when woken.
    fn serve(&self) {
        sys::stand_back();
        let Some(board) = &self.board else { return };
        loop {
            // Before all else: whatever changes after this changes the turn too.
            let turn = board.turn();
            if self.closed.load(Ordering::Acquire) {
                break;
            }
            self.look();
            board.wait(turn);
        }
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
        let launches = self.meetings().give_up();
        for launch in launches {
            launch.cancel();
        }
        self.close();
    }

    /// End the connections, and with them the threads that listen or look.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(board) = &self.board {
            board.wake_self();
        }
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

#[cfg(test)]
mod tests;
