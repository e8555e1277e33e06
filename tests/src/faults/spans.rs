//! Sets of moments, as sorted stretches that do not touch.

/// From when until when, ns.
pub(super) type Span = (i64, i64);

/// The union of stretches, clipped to a window.
pub(super) fn union(mut spans: Vec<Span>, window: Span) -> Vec<Span> {
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        let (from, to) = (from.max(window.0), to.min(window.1));
        if from >= to {
            continue;
        }
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

/// What of one union is not in another.
pub(super) fn without(of: &[Span], other: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    let mut cuts = other.iter().copied().peekable();
    for &(mut from, to) in of {
        while from < to {
            while cuts.next_if(|cut| cut.1 <= from).is_some() {}
            match cuts.peek() {
                Some(&(begin, end)) if begin < to => {
                    if from < begin {
                        out.push((from, begin));
                    }
                    from = end;
                }
                _ => {
                    out.push((from, to));
                    break;
                }
            }
        }
    }
    out
}

/// How long a union is, ns.
pub(super) fn length(spans: &[Span]) -> u64 {
    spans.iter().map(|(from, to)| to.abs_diff(*from)).sum()
}

#[cfg(test)]
mod tests {
    use super::{length, union, without};

    #[test]
    fn what_is_taken_away_is_gone_and_the_rest_is_not() {
        let all = union(vec![(5, 9), (0, 4), (3, 5), (20, 30)], (1, 25));
        assert_eq!(all, [(1, 9), (20, 25)]);
        assert_eq!(without(&all, &[(0, 2), (4, 6), (8, 21)]), [(2, 4), (6, 8), (21, 25)]);
        assert_eq!(without(&all, &[(0, 50)]), []);
        assert_eq!(without(&all, &[]), all);
        assert_eq!(length(&all), 13);
    }
}
