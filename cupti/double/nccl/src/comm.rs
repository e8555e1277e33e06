//! Communicators: a connection to the root, and a thread that hears from it.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stallscope_double_shared::truth::{self, Line, Why};
use stallscope_double_shared::{link, sys};

use crate::launch::Launch;
use crate::message::{Arrival, Key, Meeting, receive, send};

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
    writer: Mutex<TcpStream>,
    waiting: Mutex<HashMap<Key, Waiter>>,
    sequence: Mutex<Sequence>,
    /// The root is gone.
    pub(crate) broken: AtomicBool,
    offset_ns: i64,
}

#[derive(Debug, Default)]
struct Sequence {
    collectives: u64,
    pairs: HashMap<(u32, u32), u64>,
}

/// Who wants to know when a meeting takes place.
#[derive(Debug)]
enum Waiter {
    Init(Sender<Meeting>),
    Launch(Arc<Launch>),
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

impl Comm {
    /// Connect to the root at `address` and wait until all ranks have.
    pub(crate) fn make(address: &str, hash: u64, rank: u32, world: u32) -> std::io::Result<usize> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let reader = stream.try_clone()?;
        let device = link::load_cuda().map_or(0, |c| (c.current_device)());
        let number = |n: u32| i32::try_from(n).unwrap_or(-1);
        let visible: &'static Visible = Box::leak(Box::new(Visible {
            start_magic: MAGIC,
            before: [0; 16],
            hash,
            rank: number(rank),
            world: number(world),
            device: number(device),
            nvml_device: number(device),
            after: [0; 16],
            end_magic: MAGIC,
        }));
        let comm = Arc::new(Self {
            hash,
            rank,
            world,
            device,
            visible,
            writer: Mutex::new(stream),
            waiting: Mutex::default(),
            sequence: Mutex::default(),
            broken: AtomicBool::new(false),
            offset_ns: sys::monotonic_offset_ns(),
        });
        let (sender, met) = channel();
        comm.expect(Key::Init, Waiter::Init(sender));
        let listener = Arc::clone(&comm);
        std::thread::Builder::new().name("nccl-service".into()).spawn(move || listener.listen(reader))?;
        let enter_ns = sys::monotonic_ns();
        comm.arrive(Key::Init, world, enter_ns, (0, 0));
        let meeting = met.recv().map_err(std::io::Error::other)?;
        comm.held(enter_ns, &meeting);
        let handle = std::ptr::from_ref(comm.visible) as usize;
        comms().get_or_insert_default().insert(handle, comm);
        Ok(handle)
    }

    /// Say in the truth log that the caller was held until the last rank came.
    fn held(&self, enter_ns: u64, meeting: &Meeting) {
        let leave_ns = sys::monotonic_ns();
        let until_ns = meeting.starts_ns.iter().map(|s| self.here(*s)).max().unwrap_or(leave_ns);
        truth::write(&[Line::Block(truth::Block {
            pid: sys::process_id(),
            thread: sys::thread_id(),
            call: "ncclCommInitRank".into(),
            correlation: 0,
            why: Why::CommInit,
            enter_ns,
            leave_ns,
            until_ns,
        })]);
    }

    /// A moment of the machine as this process's clock has it.
    pub(crate) fn here(&self, machine_ns: u64) -> u64 {
        machine_ns.saturating_add_signed(self.offset_ns)
    }

    fn expect(&self, key: Key, waiter: Waiter) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(key, waiter);
    }

    /// Tell the root that this rank arrives at `start_ns`.
    fn arrive(&self, key: Key, parties: u32, start_ns: u64, (transfer_ns, slowed_ns): (u64, u64)) {
        let (comm, rank, pid) = (self.hash, self.rank, sys::process_id());
        let start_ns = start_ns.saturating_add_signed(-self.offset_ns);
        let arrival = Arrival { comm, key, rank, pid, parties, start_ns, transfer_ns, slowed_ns };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if send(&mut writer, &arrival).is_err() {
            self.broken.store(true, Ordering::Release);
        }
    }

    /// The same for a part of a kernel, which is told when all have met.
    pub(crate) fn arrive_with(&self, launch: &Arc<Launch>, key: Key, start_ns: u64, transfer: (u64, u64)) {
        let parties = if matches!(key, Key::Pair(..)) { 2 } else { self.world };
        self.expect(key.clone(), Waiter::Launch(Arc::clone(launch)));
        self.arrive(key, parties, start_ns, transfer);
    }

    fn listen(&self, reader: TcpStream) {
        for meeting in receive::<Meeting>(reader) {
            let waiter = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&meeting.key);
            match waiter {
                // Whoever made the communicator may have given up.
                Some(Waiter::Init(sender)) => drop(sender.send(meeting)),
                Some(Waiter::Launch(launch)) => launch.met(self, &meeting),
                None => {}
            }
        }
        self.broken.store(true, Ordering::Release);
    }

    /// Number of the next collective.
    pub(crate) fn next_collective(&self) -> Key {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        sequence.collectives += 1;
        Key::All(sequence.collectives - 1)
    }

    /// Number of the next message from one rank to another, one of which is this.
    pub(crate) fn next_message(&self, from: u32, to: u32) -> Key {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sequence.pairs.entry((from, to)).or_default();
        *count += 1;
        Key::Pair(from, to, *count - 1)
    }

    /// Give up: what still waits ends now.
    pub(crate) fn abort(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for waiter in waiting.into_values() {
            if let Waiter::Launch(launch) = waiter {
                launch.cancel();
            }
        }
        self.close();
    }

    /// End the connection, and with it the thread that listens.
    pub(crate) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Already closed is closed.
        let _ = writer.shutdown(Shutdown::Both);
    }
}
