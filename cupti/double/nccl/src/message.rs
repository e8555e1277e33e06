//! What ranks and the root say to each other: a JSON document a line.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

/// What is met for, within a communicator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Key {
    /// The making of the communicator.
    Init,
    /// The collective with this number.
    All(u64),
    /// The message with this number from one rank to another.
    Pair(u32, u32, u64),
}

/// A rank tells the root when it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Arrival {
    /// Hash of the communicator.
    pub(crate) comm: u64,
    pub(crate) key: Key,
    pub(crate) rank: u32,
    /// So that the root can serve its own process last.
    pub(crate) pid: u32,
    /// How many arrivals make a meeting.
    pub(crate) parties: u32,
    /// CLOCK_MONOTONIC of the machine, without a time namespace's offset.
    pub(crate) start_ns: u64,
    pub(crate) transfer_ns: u64,
    /// The part of `transfer_ns` that a setting added.
    pub(crate) slowed_ns: u64,
}

/// The root tells all ranks of a meeting that all are there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meeting {
    pub(crate) key: Key,
    pub(crate) ranks: Vec<u32>,
    /// In the order of `ranks`.
    pub(crate) starts_ns: Vec<u64>,
    /// The longest of the ranks.
    pub(crate) transfer_ns: u64,
    pub(crate) slowed_ns: u64,
}

pub(crate) fn send(stream: &mut TcpStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Every message of a connection until it ends or makes no sense.
pub(crate) fn receive<M: for<'de> Deserialize<'de>>(stream: TcpStream) -> impl Iterator<Item = M> {
    let lines = BufReader::new(stream).lines();
    lines.map_while(|line| serde_json::from_str(&line.ok()?).ok())
}
