//! Where ranks meet: threads of the process that made the unique id. They sleep in `read` unless a rank arrives.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use stallscope_double_shared::{settings, sys};

use crate::message::{Arrival, Key, Meeting, receive, send};

/// A rank that has arrived and how to reach it.
struct Waiting {
    arrival: Arrival,
    stream: TcpStream,
}

type Table = Arc<Mutex<HashMap<(u64, Key), Vec<Waiting>>>>;

/// Begin to listen; returns the address for other processes.
pub(crate) fn start() -> io::Result<String> {
    let settings = settings::now();
    let address = settings.get("nccl.address").unwrap_or("127.0.0.1");
    let listener = TcpListener::bind((address, 0))?;
    let local = listener.local_addr()?.to_string();
    let table = Table::default();
    std::thread::Builder::new().name("nccl-root".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let table = Arc::clone(&table);
            // Without a thread for it the rank would wait for ever, and so would a test: better to fail.
            let serve = std::thread::Builder::new().name("nccl-root-rank".into());
            if let Err(error) = serve.spawn(move || serve_rank(&stream, &table)) {
                eprintln!("stallscope double: nccl: {error}");
                std::process::abort();
            }
        }
    })?;
    Ok(local)
}

fn serve_rank(stream: &TcpStream, table: &Table) {
    let _ = stream.set_nodelay(true);
    let (Ok(reader), Ok(writer)) = (stream.try_clone(), stream.try_clone()) else { return };
    for arrival in receive::<Arrival>(reader) {
        let Ok(stream) = writer.try_clone() else { return };
        let place = (arrival.comm, arrival.key.clone());
        let parties = arrival.parties;
        let mut meetings = table.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = meetings.entry(place.clone()).or_default();
        waiting.push(Waiting { arrival, stream });
        let all_here = u32::try_from(waiting.len()).is_ok_and(|n| n >= parties);
        let met = all_here.then(|| meetings.remove(&place)).flatten();
        drop(meetings);
        if let Some(met) = met {
            announce(place.1, met);
        }
    }
}

/// Tell every rank of a meeting, those of this process last: it may end as soon as its own rank knows.
fn announce(key: Key, mut met: Vec<Waiting>) {
    met.sort_by_key(|w| (w.arrival.pid == sys::process_id(), w.arrival.rank));
    let longest = met.iter().map(|w| &w.arrival).max_by_key(|a| a.transfer_ns);
    let (transfer_ns, slowed_ns) = longest.map_or((0, 0), |a| (a.transfer_ns, a.slowed_ns));
    let mut arrivals: Vec<(u32, u64)> = met.iter().map(|w| (w.arrival.rank, w.arrival.start_ns)).collect();
    arrivals.sort_unstable();
    let (ranks, starts_ns) = arrivals.into_iter().unzip();
    let meeting = Meeting { key, ranks, starts_ns, transfer_ns, slowed_ns };
    for waiting in &mut met {
        // A rank that is gone needs no answer.
        let _ = send(&mut waiting.stream, &meeting);
    }
}
