//! All agents of a recording: a thread for each process, so that one that is slow to enter holds up no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::Told;
use crate::agent::{Settings, follow, monotonic_ns};
use crate::control::Wanted;
use crate::stop::Stop;

/// Batches between the agents' threads and the recorder. When it is full, the threads wait and the rings fill: what does
/// not fit there is counted by the agents.
const WAITING: usize = 64;

/// The agents of one recording.
#[derive(Debug)]
pub struct Team {
    image: Arc<[u8]>,
    wanted: Wanted,
    demangle: fn(&str) -> Arc<str>,
    stop: Arc<Stop>,
    began_ns: u64,
    threads: HashMap<u32, JoinHandle<()>>,
    sender: SyncSender<Told>,
    receiver: Receiver<Told>,
}

impl Team {
    /// Without any process yet. `image` is the agent, `demangle` makes a kernel's name readable.
    #[must_use]
    pub fn new(image: &[u8], wanted: Wanted, demangle: fn(&str) -> Arc<str>) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        Self {
            image: image.into(),
            wanted,
            demangle,
            stop: Arc::default(),
            began_ns: monotonic_ns(),
            threads: HashMap::new(),
            sender,
            receiver,
        }
    }

    /// Follows these processes from now on; those that are followed already go on. What is known of others that have told
    /// their last is forgotten: a number may be used again.
    pub fn follow_all(&mut self, pids: &[u32]) {
        let over = |pid: &u32, thread: &mut JoinHandle<()>| thread.is_finished() && !pids.contains(pid);
        for (_, thread) in self.threads.extract_if(over) {
            // It has told its last, or panicked, which is said where it happens.
            let _ = thread.join();
        }
        pids.iter().for_each(|&pid| self.follow(pid));
    }

    /// Follows a process from now on; one that is followed already goes on.
    pub fn follow(&mut self, pid: u32) {
        if self.threads.contains_key(&pid) {
            return;
        }
        let (image, wanted, demangle) = (Arc::clone(&self.image), self.wanted, self.demangle);
        let began_ns = self.began_ns;
        let (stop, sender) = (Arc::clone(&self.stop), self.sender.clone());
        let work = move || {
            // Whoever listened is gone: then nobody is told.
            let tell = |told: Told| drop(sender.send(told));
            follow(pid, &Settings { image: &image, wanted, demangle, began_ns }, &stop, &tell);
        };
        if let Ok(thread) = std::thread::Builder::new().name(format!("agent-{pid}")).spawn(work) {
            self.threads.insert(pid, thread);
        }
    }

    /// What was told since this was last asked.
    pub fn told(&self) -> impl Iterator<Item = Told> + '_ {
        self.receiver.try_iter()
    }

    /// Asks all agents to rest.
    pub fn ask_to_rest(&self) {
        self.stop.ask();
    }

    /// Whether all have told their last: what [`Self::told`] hands out after this was true is all there is.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.threads.values().all(JoinHandle::is_finished)
    }
}
