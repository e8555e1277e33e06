//! What ranks and the root say to each other: a JSON document a line.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};
use stallscope_double_shared::memory::Place;

/// A rank tells the root that it is there, and every rank to which it connects who it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) rank: u32,
    pub(crate) world: u32,
    /// Where it listens.
    pub(crate) address: String,
    /// CLOCK_MONOTONIC of the machine, without a time namespace's offset.
    pub(crate) at_ns: u64,
}

/// The root tells every rank who is there, and where it has memory for them all. Each answers whether it can use it (a
/// bool), and is told whether all can.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// In the order of ranks.
    pub(crate) all: Vec<Hello>,
    pub(crate) memory: Option<Place>,
}

/// What is met for, within a communicator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Key {
    /// The collective with this number.
    All(u64),
    /// The message with this number from one rank to another.
    Pair(u32, u32, u64),
}

impl Key {
    /// Is this rank in it?
    pub(crate) fn has(&self, rank: u32) -> bool {
        match self {
            Self::All(_) => true,
            Self::Pair(from, to, _) => rank == *from || rank == *to,
        }
    }
}

/// A rank tells those whom it meets when it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Arrival {
    pub(crate) key: Key,
    pub(crate) rank: u32,
    /// CLOCK_MONOTONIC of the machine, without a time namespace's offset.
    pub(crate) start_ns: u64,
    pub(crate) transfer_ns: u64,
    /// The part of `transfer_ns` that a setting added.
    pub(crate) slowed_ns: u64,
}

pub(crate) fn send(stream: &mut TcpStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The messages of a connection until it ends or makes no sense.
pub(crate) struct Receiver(std::io::Lines<BufReader<TcpStream>>);

impl Receiver {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream).lines())
    }

    pub(crate) fn next<M: for<'de> Deserialize<'de>>(&mut self) -> std::io::Result<M> {
        let line = self.0.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
        Ok(serde_json::from_str(&line)?)
    }
}
