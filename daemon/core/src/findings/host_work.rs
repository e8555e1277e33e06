//! What a host stack was busy with: a table over its frames, as data.

use std::sync::LazyLock;

/// A kind of host work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostWork {
    /// Stable name: the `idle-…` rule that speaks of it.
    pub(crate) kind: &'static str,
    /// What to call it in a sentence.
    pub(crate) what: &'static str,
}

/// Frames that no rule names.
pub(super) const FRAMEWORK: HostWork = HostWork { kind: "framework", what: "Python and framework code" };
/// No frames at all.
pub(crate) const UNSEEN: HostWork =
    HostWork { kind: "host-unseen", what: "something that the trace does not show" };

const TABLE: &str = include_str!("host_work.tsv");

static RULES: LazyLock<Vec<(&'static str, HostWork)>> =
    LazyLock::new(|| TABLE.lines().filter(|l| !l.starts_with('#')).filter_map(parse).collect());

fn parse(line: &'static str) -> Option<(&'static str, HostWork)> {
    let mut fields = line.split('\t');
    Some((fields.next()?, HostWork { kind: fields.next()?, what: fields.next()? }))
}

/// What a stack was busy with, and the frame that says so.
#[must_use]
pub(crate) fn host_work<'a>(frames: &[&'a str]) -> (HostWork, Option<&'a str>) {
    if frames.is_empty() {
        return (UNSEEN, None);
    }
    let lower: Vec<String> = frames.iter().map(|f| f.to_ascii_lowercase()).collect();
    for (pattern, work) in RULES.iter() {
        // The innermost frame that matches is the most telling.
        if let Some(at) = lower.iter().rposition(|f| f.contains(pattern)) {
            return (*work, frames.get(at).copied());
        }
    }
    (FRAMEWORK, None)
}

#[cfg(test)]
mod tests {
    use super::super::rules::{RULES, rule};
    use super::{FRAMEWORK, TABLE, UNSEEN, host_work, parse};

    #[test]
    fn every_kind_of_the_table_has_a_rule() {
        for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
            let (pattern, work) = parse(line).unwrap_or_else(|| panic!("not a rule: {line:?}"));
            assert_eq!(pattern, pattern.to_ascii_lowercase(), "patterns are compared in lower case");
            assert_eq!(rule(&format!("idle-{}", work.kind)).category, "idle", "{}", work.kind);
        }
        assert!(RULES.iter().any(|r| r.id == format!("idle-{}", FRAMEWORK.kind)));
        assert!(RULES.iter().any(|r| r.id == format!("idle-{}", UNSEEN.kind)));
    }

    #[test]
    fn a_data_loader_is_recognised_in_old_and_new_traces() {
        for frame in [
            "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",
            "torch/utils/data/dataloader.py(631): __next__",
        ] {
            let (work, evidence) = host_work(&["train.py(12): main", frame, "aten::stack"]);
            assert_eq!((work.kind, evidence), ("data-loading", Some(frame)));
        }
        assert_eq!(host_work(&["aten::conv2d"]).0, FRAMEWORK);
        assert_eq!(host_work(&[]).0, UNSEEN);
    }
}
