//! Counter tracks: one for each counter of a device or host.
//!
//! A value of a moment is drawn as it is. Growth over a stretch is drawn as growth a second from the stretch's begin on,
//! so that captures of different intervals look alike; a trace has no way to say that nothing is known, and the last
//! value stands until the next.

use std::io::{self, Write};

use hashbrown::HashMap;
use stallscope_schemas::units::StringId;

use super::super::perfetto_proto::{CounterDescriptor, TrackDescriptor, TrackEvent, event_type};
use super::{Trace, TracePacket};
use crate::capture::ReadAt;
use crate::rows::Counter;

/// Counters of a device with tracks of their own: a GPU has a hundred and one more for each process.
const MAX_TRACKS: usize = 1 << 14;

impl<S: ReadAt, W: Write> Trace<'_, S, W> {
    /// Draws the values of a device below its process.
    pub(super) fn counters(&mut self, key: u32, parent: u64) -> io::Result<()> {
        // What grows and what is are two tracks, should one name have both.
        let mut tracks: HashMap<(StringId, bool), u64> = HashMap::new();
        for counter in self.capture.rows::<Counter>(key) {
            let grows = counter.duration_ns > 0;
            let track = match tracks.get(&(counter.name, grows)) {
                Some(&track) => track,
                None if tracks.len() >= MAX_TRACKS => {
                    self.summary.left_out += 1;
                    continue;
                }
                None => {
                    let track = self.counter_track(counter.name, grows, parent)?;
                    tracks.insert((counter.name, grows), track);
                    track
                }
            };
            self.summary.values += 1;
            let (whole, fraction) = drawn(&counter);
            self.packet(TracePacket {
                timestamp: self.timestamp(counter.start),
                track_event: Some(TrackEvent {
                    kind: Some(event_type::COUNTER),
                    track_uuid: Some(track),
                    counter_value: whole,
                    double_counter_value: fraction,
                    ..TrackEvent::default()
                }),
                ..TracePacket::default()
            })?;
        }
        Ok(())
    }

    fn counter_track(&mut self, name: StringId, grows: bool, parent: u64) -> io::Result<u64> {
        let (name, unit) = split(self.tables().string(name));
        let unit_name = match (unit, grows) {
            (Some(unit), true) => Some(format!("{unit}/s")),
            (None, true) => Some("/s".to_owned()),
            (unit, false) => unit.map(str::to_owned),
        };
        self.describe(TrackDescriptor {
            parent_uuid: Some(parent),
            name: Some(Some(name).filter(|n| !n.is_empty()).unwrap_or("(unnamed)").to_owned()),
            counter: Some(CounterDescriptor { unit_name }),
            ..TrackDescriptor::default()
        })
    }
}

/// The value as a whole number where it is one that fits, else as a fraction.
#[allow(clippy::cast_precision_loss, reason = "a picture needs no more digits than a double has")]
fn drawn(counter: &Counter) -> (Option<i64>, Option<f64>) {
    if counter.duration_ns > 0 {
        return (None, Some(counter.value as f64 * 1e9 / counter.duration_ns as f64));
    }
    match i64::try_from(counter.value) {
        Ok(value) => (Some(value), None),
        Err(_) => (None, Some(counter.value as f64)),
    }
}

/// `sm clock (MHz)` as name and unit.
fn split(name: &str) -> (&str, Option<&str>) {
    let parts = name.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    parts.map_or((name, None), |(name, unit)| (name, Some(unit)))
}
