//! Where ranks find each other: a thread of the process that made the unique id. Once all have come it tells each who
//! the others are, and ends; from then on they speak to each other.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};

use stallscope_double_shared::settings;

use crate::message::{Hello, Receiver, send};

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

/// Wait for all ranks, then tell each of them about all, in their order.
fn gather(listener: &TcpListener) -> io::Result<()> {
    let mut ranks: BTreeMap<u32, (Hello, TcpStream)> = BTreeMap::new();
    for stream in listener.incoming() {
        let stream = stream?;
        let hello: Hello = Receiver::new(stream.try_clone()?).next()?;
        let world = hello.world;
        ranks.insert(hello.rank, (hello, stream));
        if u32::try_from(ranks.len()).is_ok_and(|n| n >= world) {
            break;
        }
    }
    let all: Vec<Hello> = ranks.values().map(|(hello, _)| hello.clone()).collect();
    for (_, stream) in ranks.values_mut() {
        // A rank that is gone again is missed by the others soon enough.
        let _ = send(stream, &all);
    }
    Ok(())
}
