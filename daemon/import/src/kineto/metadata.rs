//! What a trace says of itself outside its events: clock, rank, devices, host.

use std::path::Path;

use hashbrown::HashMap;

use super::args::{each_member, member, unsigned};
use super::scanner::{Cursor, Value};
use super::text::decode;

/// Models that are kept.
const MAX_MODELS: usize = 1 << 12;

/// Longest name of a model or host.
const MAX_NAME_BYTES: usize = 256;

/// The largest base time that is believed, in ns since 1970: the year 2043.
const MAX_BASE_NS: i64 = 1 << 61;

/// The members of the top-level object that matter.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// What times count from, ns since 1970.
    pub(super) base_ns: Option<i64>,
    /// Rank of the process.
    pub(super) rank: Option<u32>,
    /// Ranks of the job.
    pub(super) world_size: Option<u32>,
    /// Host name; empty where unknown.
    pub(super) host: String,
    /// Models of devices by ordinal.
    pub(super) models: HashMap<i64, String>,
}

impl Metadata {
    /// Takes a member of the top-level object.
    pub(super) fn take(&mut self, key: &[u8], value: Value<'_>) {
        match key {
            b"baseTimeNanoseconds" => {
                self.base_ns = value.integer().filter(|ns| (0..MAX_BASE_NS).contains(ns)).or(self.base_ns);
            }
            b"distributedInfo" => {
                let number = |key: &[u8]| member(value.text(), key).and_then(unsigned);
                self.rank = number(b"rank").and_then(|n| u32::try_from(n).ok()).or(self.rank);
                self.world_size =
                    number(b"world_size").and_then(|n| u32::try_from(n).ok()).or(self.world_size);
            }
            b"hostname" | b"host_name" | b"hostName" => {
                if let Value::String(host) = value {
                    self.host = short(host);
                }
            }
            b"deviceProperties" => self.devices(value.text()),
            _ => {}
        }
    }

    fn devices(&mut self, array: &[u8]) {
        let mut cursor = Cursor::new(array);
        if cursor.expect(b'[', "an array").is_err() {
            return;
        }
        while let Ok(Some(device)) = cursor.element() {
            let (mut id, mut name) = (None, None);
            each_member(device.text(), |key, value| {
                match key {
                    b"id" => id = value.integer(),
                    b"name" => name = Some(value.text()),
                    _ => {}
                }
                true
            });
            if let (Some(id), Some(name)) = (id, name)
                && self.models.len() < MAX_MODELS
            {
                self.models.insert(id, short(name));
            }
        }
    }
}

fn short(raw: &[u8]) -> String {
    decode(raw.get(..MAX_NAME_BYTES).unwrap_or(raw)).into_owned()
}

/// The file's name without the endings that traces have.
pub(super) fn stem(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut stem = name.as_str();
    for ending in [".gz", ".json", ".trace", ".pt"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    stem.to_owned()
}

/// The rank that a file's name gives: "rank3", "rank_3", "rank-3". The last one counts.
pub(super) fn rank_in_name(stem: &str) -> Option<u32> {
    let lower = stem.to_ascii_lowercase();
    lower.rmatch_indices("rank").find_map(|(at, word)| {
        let rest = lower.get(at + word.len()..)?;
        let rest = rest.strip_prefix(['_', '-', '=', '.']).unwrap_or(rest);
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..digits)?.parse().ok()
    })
}

/// The host in a name as `tensorboard_trace_handler` makes them: host, underscore, pid, and maybe a dot with a time.
pub(super) fn host_in_name(stem: &str, is_pid: impl Fn(i64) -> bool) -> Option<&str> {
    let timed = stem.rsplit_once('.').filter(|(_, time)| time.bytes().all(|b| b.is_ascii_digit()));
    let worker = timed.map_or(stem, |(worker, _)| worker);
    let (host, pid) = worker.rsplit_once('_')?;
    pid.parse().ok().filter(|&pid| !host.is_empty() && is_pid(pid)).map(|_: i64| host)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::scanner::{Cursor, Value};
    use super::{Metadata, host_in_name, rank_in_name, stem};

    fn value(text: &str) -> Value<'_> {
        Cursor::new(text.as_bytes()).value().expect("a value")
    }

    #[test]
    fn ranks_come_from_distributed_info_and_models_from_device_properties() {
        let mut metadata = Metadata::default();
        metadata.take(
            b"distributedInfo",
            value(r#"{"backend":"nccl","rank":3,"world_size":8,"pg":[{"rank":9}]}"#),
        );
        metadata.take(
            b"deviceProperties",
            value(r#"[{"id":0,"name":"A"},{"id":"2","name":"B\u0021"},7,{"id":3}]"#),
        );
        metadata.take(b"baseTimeNanoseconds", value("1751410836000000000 "));
        assert_eq!((metadata.rank, metadata.world_size), (Some(3), Some(8)));
        assert_eq!((metadata.models[&0].as_str(), metadata.models[&2].as_str()), ("A", "B!"));
        assert_eq!((metadata.models.len(), metadata.base_ns), (2, Some(1_751_410_836_000_000_000)));
    }

    #[test]
    fn nonsense_leaves_what_was_known() {
        let mut metadata = Metadata::default();
        metadata.take(b"baseTimeNanoseconds", value("5 "));
        for nonsense in ["-1 ", "9223372036854775807 ", "1.5 ", "\"x\"", "[]"] {
            metadata.take(b"baseTimeNanoseconds", value(nonsense));
            metadata.take(b"distributedInfo", value(nonsense));
            metadata.take(b"deviceProperties", value(nonsense));
        }
        assert_eq!((metadata.base_ns, metadata.rank, metadata.models.len()), (Some(5), None, 0));
    }

    #[test]
    fn file_names_give_ranks_and_hosts() {
        for (name, rank) in [
            ("rank3.json.gz", Some(3)),
            ("trace_rank_12.json", Some(12)),
            ("Rank-0_x.json", Some(0)),
            ("frank_sinatra.json", None),
            ("bs_32_rank0.json.gz", Some(0)),
            ("trace.json", None),
        ] {
            assert_eq!(rank_in_name(&stem(Path::new(name))), rank, "{name}");
        }
        let stem = stem(Path::new("/a/node-7_851.1773709742341309550.pt.trace.json.gz"));
        assert_eq!(host_in_name(&stem, |pid| pid == 851), Some("node-7"));
        assert_eq!(host_in_name(&stem, |pid| pid == 1), None);
    }
}
