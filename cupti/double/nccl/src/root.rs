//! Where ranks find each other: a thread of the process that made the unique id. Once all have come it tells each who
//! the others are and where there is memory for them, and ends; from then on they speak to each other.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};

use stallscope_double_shared::memory::Source;
use stallscope_double_shared::settings;

use crate::board;
use crate::message::{Hello, Receiver, Welcome, send};

/// Begin to listen; returns the address for other processes.
pub(crate) fn start() -> io::Result<String> {
    let listener = listen()?;
    let address = listener.local_addr()?.to_string();
    std::thread::Builder::new().name("nccl-root".into()).spawn(move || {
        if let Err(error) = gather(&listener) {
            eprintln!("stallscope double: nccl: {error}");
        }
    })?;
    Ok(address)
}

/// A socket for other ranks.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let settings = settings::now();
    TcpListener::bind((settings.get("nccl.address").unwrap_or("127.0.0.1"), 0))
}

/// May ranks share memory?
pub(crate) fn shares_memory() -> bool {
    settings::now().get("nccl.memory") != Some("0")
}

/// Wait for all ranks, then tell each of them about all, in their order.
fn gather(listener: &TcpListener) -> io::Result<()> {
    let mut ranks: BTreeMap<u32, (Hello, TcpStream, Receiver)> = BTreeMap::new();
    for stream in listener.incoming() {
        let stream = stream?;
        let mut receiver = Receiver::new(stream.try_clone()?);
        let hello: Hello = receiver.next()?;
        let world = hello.world;
        ranks.insert(hello.rank, (hello, stream, receiver));
        if u32::try_from(ranks.len()).is_ok_and(|n| n >= world) {
            break;
        }
    }
    let world = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
    // Kept until all ranks have it or have said that they cannot.
    let source = if shares_memory() { board::source(world) } else { None };
    let all = ranks.values().map(|(hello, ..)| hello.clone()).collect();
    let welcome = Welcome { all, memory: source.as_ref().map(Source::place) };
    for (_, stream, _) in ranks.values_mut() {
        // A rank that is gone again is missed by the others soon enough.
        let _ = send(stream, &welcome);
    }
    let mut all_have_it = source.is_some();
    for (_, _, receiver) in ranks.values_mut() {
        all_have_it &= receiver.next().unwrap_or(false);
    }
    for (_, stream, _) in ranks.values_mut() {
        let _ = send(stream, &all_have_it);
    }
    Ok(())
}
