//! pprof profiles: stacks with one value in nanoseconds for each kind of time.
//!
//! The output is plain protobuf, which pprof reads as it reads gzip; whoever writes a file compresses it.

use std::io::{self, Write};
use std::iter::Peekable;

use hashbrown::HashMap;

use super::pprof_proto::{Function, Line, Location, Mapping, Sample, ValueType, profile};
use super::proto::FieldWriter;
use crate::folded::Folded;

/// The string table: position 0 is "" by definition of the format.
#[derive(Debug, Default)]
struct Strings<'a> {
    positions: HashMap<&'a str, i64>,
    order: Vec<&'a str>,
}

impl<'a> Strings<'a> {
    fn position(&mut self, text: &'a str) -> i64 {
        if self.order.is_empty() {
            self.order.push("");
            self.positions.insert("", 0);
        }
        *self.positions.entry(text).or_insert_with(|| {
            self.order.push(text);
            i64::try_from(self.order.len() - 1).unwrap_or(0)
        })
    }
}

/// Writes several kinds of time over the same stacks as one profile. The first is what pprof shows unless told otherwise.
///
/// `time_ns` is Unix time; `duration_ns` is what the profile covers.
///
/// # Errors
/// Whatever the output reports.
pub fn write_pprof(
    sample_types: &[(&str, &Folded)],
    time_ns: i64,
    duration_ns: u64,
    out: impl Write,
) -> io::Result<()> {
    let mut out = FieldWriter::new(out);
    let mut strings = Strings::default();
    let unit = strings.position("nanoseconds");
    let mapping = Mapping { id: 1, filename: strings.position("stallscope"), has_functions: true };
    for (name, _) in sample_types {
        out.message(profile::SAMPLE_TYPE, &ValueType { kind: strings.position(name), unit })?;
    }
    out.message(profile::MAPPING, &mapping)?;

    let mut functions: HashMap<&str, u64> = HashMap::new();
    let mut order: Vec<&str> = Vec::new();
    let mut lists: Vec<_> = sample_types.iter().map(|(_, folded)| folded.iter().peekable()).collect();
    let mut sample = Sample::default();
    while let Some(frames) = next_stack(&mut lists) {
        sample.value.clear();
        for list in &mut lists {
            let weight = list.next_if(|(f, _)| *f == frames).map_or(0, |(_, ns)| ns);
            sample.value.push(i64::try_from(weight).unwrap_or(i64::MAX));
        }
        sample.location_id.clear();
        for frame in frames.iter().rev() {
            let next = order.len() as u64 + 1;
            let id = *functions.entry(frame).or_insert(next);
            if id == next {
                order.push(frame);
            }
            sample.location_id.push(id);
        }
        out.message(profile::SAMPLE, &sample)?;
    }
    // One location a function: nothing finer is known.
    for (name, id) in order.into_iter().zip(1..) {
        out.message(profile::FUNCTION, &Function { id, name: strings.position(name) })?;
        out.message(
            profile::LOCATION,
            &Location { id, mapping_id: 1, line: vec![Line { function_id: id }] },
        )?;
    }
    let default = sample_types.first().map_or(0, |(name, _)| strings.position(name));
    for text in &strings.order {
        out.string(profile::STRING_TABLE, text)?;
    }
    out.integer(profile::TIME_NANOS, time_ns)?;
    out.integer(profile::DURATION_NANOS, i64::try_from(duration_ns).unwrap_or(i64::MAX))?;
    out.integer(profile::DEFAULT_SAMPLE_TYPE, default)?;
    out.finish()
}

/// The least stack that any list has not handed out.
fn next_stack<'a>(lists: &mut [Peekable<impl Iterator<Item = (&'a [String], u64)>>]) -> Option<&'a [String]> {
    lists.iter_mut().filter_map(|list| list.peek().map(|(frames, _)| *frames)).min()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::pprof_proto::{Function, Location, Mapping, Sample, ValueType};
    use super::write_pprof;
    use crate::folded::Folded;

    /// `Profile` as a whole, for reading back.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Profile {
        #[prost(message, repeated, tag = "1")]
        sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        time_nanos: i64,
        #[prost(int64, tag = "10")]
        duration_nanos: i64,
        #[prost(int64, tag = "14")]
        default_sample_type: i64,
    }

    impl Profile {
        fn string(&self, at: i64) -> &str {
            usize::try_from(at).ok().and_then(|at| self.string_table.get(at)).map_or("?", String::as_str)
        }

        /// Stacks as `outer;inner`, with their values.
        fn stacks(&self) -> Vec<(String, Vec<i64>)> {
            let name = |location: &u64| {
                let location = self.location.iter().find(|l| l.id == *location);
                let line = location.and_then(|l| l.line.first());
                let function = line.and_then(|line| self.function.iter().find(|f| f.id == line.function_id));
                function.map_or("?", |f| self.string(f.name)).to_owned()
            };
            self.sample
                .iter()
                .map(|s| {
                    (s.location_id.iter().rev().map(name).collect::<Vec<_>>().join(";"), s.value.clone())
                })
                .collect()
        }
    }

    fn stacks(of: &[(&str, u64)]) -> Folded {
        let mut folded = Folded::default();
        for (frames, ns) in of {
            folded.add(frames.split(';').map(str::to_owned).collect(), *ns);
        }
        folded
    }

    fn profile(sample_types: &[(&str, &Folded)]) -> std::io::Result<Profile> {
        let mut out = Vec::new();
        write_pprof(sample_types, 1_700_000_000_000_000_000, 5_000, &mut out)?;
        Profile::decode(out.as_slice()).map_err(std::io::Error::other)
    }

    #[test]
    fn every_stack_has_a_value_for_every_sample_type() -> std::io::Result<()> {
        let (gpu, idle) = (stacks(&[("a;b", 10), ("a", 1)]), stacks(&[("a;b", 20), ("c", 30)]));
        let profile = profile(&[("gpu", &gpu), ("idle", &idle)])?;
        assert_eq!(
            profile.stacks(),
            [("a".to_owned(), vec![1, 0]), ("a;b".to_owned(), vec![10, 20]), ("c".to_owned(), vec![0, 30])]
        );
        let types: Vec<_> =
            profile.sample_type.iter().map(|t| (profile.string(t.kind), profile.string(t.unit))).collect();
        assert_eq!(types, [("gpu", "nanoseconds"), ("idle", "nanoseconds")]);
        assert_eq!(profile.string(profile.default_sample_type), "gpu");
        assert_eq!((profile.time_nanos, profile.duration_nanos), (1_700_000_000_000_000_000, 5_000));
        Ok(())
    }

    #[test]
    fn the_tables_hold_each_name_once_and_begin_with_the_empty_string() -> std::io::Result<()> {
        let profile = profile(&[("gpu", &stacks(&[("a;a;b", 1), ("b;gpu", 2)]))])?;
        assert_eq!(profile.string_table.first().map(String::as_str), Some(""));
        let mut names = profile.string_table.clone();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), profile.string_table.len());
        assert_eq!((profile.function.len(), profile.location.len()), (3, 3));
        assert!(profile.location.iter().all(|l| l.id != 0 && l.mapping_id == 1));
        assert!(profile.mapping.iter().all(|m| m.id == 1 && m.has_functions));
        Ok(())
    }

    #[test]
    fn no_stacks_make_a_valid_profile() -> std::io::Result<()> {
        let profile = profile(&[("gpu", &Folded::default())])?;
        assert_eq!((profile.sample.len(), profile.sample_type.len()), (0, 1));
        Ok(())
    }
}
