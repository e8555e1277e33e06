//! Traces without categories: what XLA, JAX and TensorFlow write.
//!
//! There the metadata, which those writers put first, tells what a time line is: a process named "/device:GPU:0" is a
//! device, its threads named "Stream #13(Compute)" hold operations, its other threads ("XLA Modules", "Steps") ranges.

use stallscope_schemas::record::SpanKind;

use super::actors::{Actors, Place};

/// What a time line without categories holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Operations of a stream of a device.
    Stream {
        /// Ordinal of the device.
        device: i64,
        /// Number of the stream.
        stream: u64,
    },
    /// Ranges that the profiler drew for a device.
    DeviceRanges {
        /// Ordinal of the device.
        device: i64,
        /// What they are.
        kind: SpanKind,
    },
    /// A thread of the host.
    Host,
}

/// What the time line at a place holds, as far as metadata has said.
pub(super) fn line(actors: &Actors, place: Place) -> Line {
    let Some(device) = actors.process_name(place.0).and_then(gpu_ordinal) else { return Line::Host };
    match actors.thread_name(place) {
        Some(name) if contains_ignoring_case(name, "stream") => {
            let stream = number_after(name, '#').or_else(|| u64::try_from(place.1).ok()).unwrap_or(0);
            Line::Stream { device, stream }
        }
        Some("Steps") => Line::DeviceRanges { device, kind: SpanKind::Step },
        _ => Line::DeviceRanges { device, kind: SpanKind::Annotation },
    }
}

/// The ordinal in the name of a process that stands for a GPU.
fn gpu_ordinal(name: &str) -> Option<i64> {
    let at = name.to_ascii_uppercase().find("GPU")?;
    let after = name.get(at + 3..)?.trim_start_matches([':', ' ', '#']);
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    Some(after.get(..digits)?.parse().unwrap_or(0))
}

fn number_after(name: &str, mark: char) -> Option<u64> {
    let (_, rest) = name.split_once(mark)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

fn contains_ignoring_case(text: &str, lower: &str) -> bool {
    text.to_ascii_lowercase().contains(lower)
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::SpanKind;
    use stallscope_schemas::units::SourceId;

    use super::{Line, gpu_ordinal, line};
    use crate::kineto::actors::Actors;

    #[test]
    fn names_of_processes_and_threads_tell_what_a_line_holds() {
        let mut actors = Actors::new(SourceId(0));
        actors.name_process(1, b"/device:GPU:3");
        actors.name_process(701, b"/host:CPU");
        actors.name_thread((1, 13), b"Stream #17(Compute,MemcpyD2D)");
        actors.name_thread((1, 2), b"Steps");
        actors.name_thread((1, 3), b"XLA Modules");
        assert_eq!(line(&actors, (1, 13)), Line::Stream { device: 3, stream: 17 });
        assert_eq!(line(&actors, (1, 2)), Line::DeviceRanges { device: 3, kind: SpanKind::Step });
        assert_eq!(line(&actors, (1, 3)), Line::DeviceRanges { device: 3, kind: SpanKind::Annotation });
        assert_eq!(line(&actors, (701, 5)), Line::Host);
        assert_eq!(line(&actors, (9, 9)), Line::Host);
    }

    #[test]
    fn ordinals_are_read_from_several_spellings() {
        for (name, ordinal) in
            [("/device:GPU:12 H100", Some(12)), ("GPU 2", Some(2)), ("gpu", Some(0)), ("python", None)]
        {
            assert_eq!(gpu_ordinal(name), ordinal, "{name}");
        }
    }
}
