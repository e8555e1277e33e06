//! What a host thread was doing: its calls into the driver and the nest of operators and functions around them.
//!
//! A thread's records are read once, forward, in step with the gaps of a device: queries must not go back in time. A
//! query over `[from, to)` yields adjacent pieces, each with the outermost call that was open (if any) and the stack.

use hashbrown::HashMap;
use stallscope_schemas::record::SpanKind;
use stallscope_schemas::units::{StackId, StringId, TimeNs};

use crate::capture::Tables;
use crate::rows::{ApiCall, HostSpan};

/// A stack as a node of a tree of frames; 0 is the empty stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);

/// Stacks seen in gaps, as a tree.
#[derive(Debug)]
pub struct StackTree {
    nodes: Vec<(Node, StringId)>,
    children: HashMap<(Node, StringId), Node>,
    /// Where a stack of the capture's table ends in this tree.
    imported: HashMap<StackId, Node>,
}

impl Default for StackTree {
    fn default() -> Self {
        Self { nodes: vec![(Node(0), StringId(0))], children: HashMap::new(), imported: HashMap::new() }
    }
}

impl StackTree {
    /// The node of `name` called from `parent`.
    pub fn child(&mut self, parent: Node, name: StringId) -> Node {
        let next = Node(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        *self.children.entry((parent, name)).or_insert_with(|| {
            self.nodes.push((parent, name));
            next
        })
    }

    /// The node of a stack of the capture's table.
    pub fn import(&mut self, stack: StackId, tables: &Tables) -> Node {
        if let Some(&node) = self.imported.get(&stack) {
            return node;
        }
        let node = tables.stack_names(stack).into_iter().fold(Node(0), |at, name| self.child(at, name));
        self.imported.insert(stack, node);
        node
    }

    /// The nodes from the outermost frame to `node`, without the empty stack. A parent has a lower number.
    #[must_use]
    pub fn path(&self, mut node: Node) -> Vec<Node> {
        let mut path = Vec::new();
        while node.0 != 0 {
            path.push(node);
            node = self.nodes.get(node.0 as usize).map_or(Node(0), |(parent, _)| *parent);
        }
        path.reverse();
        path
    }

    /// Names from the outermost frame to the node.
    #[must_use]
    pub fn names(&self, node: Node) -> Vec<StringId> {
        let name = |n: Node| self.nodes.get(n.0 as usize).map(|(_, name)| *name);
        self.path(node).into_iter().filter_map(name).collect()
    }
}

/// Spans open at once: Python's own recursion limit is 1000. What is deeper has the stack of what is around it, and a
/// hostile trace with endless overlap costs this much a span and not its square.
const MAX_DEPTH: usize = 1 << 10;

#[derive(Clone, Copy, Debug)]
struct OpenSpan {
    end: TimeNs,
    /// The first end among this span and those around it: spans that overlap without nesting end before what is inside.
    first_end: TimeNs,
    name: StringId,
    stack: StackId,
    node: Option<Node>,
}

/// One thread's records, read forward.
#[allow(missing_debug_implementations, reason = "an iterator's buffered item need not be printable")]
pub struct HostTimeline<S: Iterator, C: Iterator> {
    spans: std::iter::Peekable<S>,
    calls: std::iter::Peekable<C>,
    open_spans: Vec<OpenSpan>,
    open_calls: Vec<ApiCall>,
}

/// What a thread did in one stretch of a query.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where it begins.
    pub from: TimeNs,
    /// Where it ends.
    pub to: TimeNs,
    /// The outermost call into the driver that was open.
    pub call: Option<ApiCall>,
}

impl<S: Iterator<Item = HostSpan>, C: Iterator<Item = ApiCall>> HostTimeline<S, C> {
    /// Wraps a thread's spans and calls, each in the order of their starts.
    pub fn new(spans: S, calls: C) -> Self {
        Self {
            spans: spans.peekable(),
            calls: calls.peekable(),
            open_spans: Vec::new(),
            open_calls: Vec::new(),
        }
    }

    /// Adds a call that is recorded elsewhere (a launch, which lives with its operation).
    pub fn add_call(&mut self, call: ApiCall) {
        self.open_calls.push(call);
    }

    /// Splits `[from, to)` by calls: pieces inside the outermost open call that `counts`, and pieces outside any.
    pub fn pieces(
        &mut self,
        from: TimeNs,
        to: TimeNs,
        mut counts: impl FnMut(&ApiCall) -> bool,
        out: &mut Vec<Piece>,
    ) {
        out.clear();
        self.open_calls.retain(|c| end_of(c) > from);
        while let Some(call) = self.calls.next_if(|c| c.start < to) {
            if end_of(&call) > from && counts(&call) {
                self.open_calls.push(call);
            }
        }
        // In the order of their starts, the call that has begun first is the outermost and has the time to its end.
        self.open_calls.sort_by_key(|c| c.start);
        let mut at = from;
        for &call in self.open_calls.iter().take_while(|c| c.start < to) {
            if call.start > at {
                out.push(Piece { from: at, to: call.start, call: None });
                at = call.start;
            }
            let end = end_of(&call).min(to);
            if end > at {
                out.push(Piece { from: at, to: end, call: Some(call) });
                at = end;
            }
        }
        if at < to {
            out.push(Piece { from: at, to, call: None });
        }
    }

    /// Splits `[from, to)` by stack: calls `visit` with each stretch and its stack (node 0 where no span is open).
    pub fn stacks(
        &mut self,
        from: TimeNs,
        to: TimeNs,
        tree: &mut StackTree,
        tables: &Tables,
        mut visit: impl FnMut(Node, TimeNs, TimeNs),
    ) {
        let mut at = from;
        while at < to {
            self.close_until(at);
            while let Some(span) = self.spans.next_if(|s| s.start <= at) {
                let end = span.start.plus(span.duration_ns);
                // A step's name has its number: as a frame it would tear the same stack apart, step by step.
                if end > at && span.kind != SpanKind::Step && self.open_spans.len() < MAX_DEPTH {
                    let first_end = self.open_spans.last().map_or(end, |around| around.first_end.min(end));
                    let (name, stack) = (span.name, span.stack);
                    self.open_spans.push(OpenSpan { end, first_end, name, stack, node: None });
                }
            }
            let next_start = self.spans.peek().map_or(to, |s| s.start);
            let next_end = self.open_spans.last().map_or(to, |s| s.first_end);
            let end = to.min(next_start).min(next_end);
            visit(self.node(tree, tables), at, end);
            at = end;
        }
    }

    /// Drops spans that have ended. Nearly always they are on top; a trace with overlapping siblings may have others.
    fn close_until(&mut self, now: TimeNs) {
        while self.open_spans.last().is_some_and(|s| s.end <= now) {
            self.open_spans.pop();
        }
        if self.open_spans.last().is_some_and(|s| s.first_end <= now) {
            let ended = self.open_spans.iter().position(|s| s.end <= now).unwrap_or(0);
            self.open_spans.retain(|s| s.end > now);
            let mut first_end =
                ended.checked_sub(1).and_then(|i| self.open_spans.get(i)).map(|s| s.first_end);
            for span in self.open_spans.iter_mut().skip(ended) {
                span.node = None;
                span.first_end = first_end.map_or(span.end, |around| around.min(span.end));
                first_end = Some(span.first_end);
            }
        }
    }

    /// The stack of all open spans: the innermost recorded call stack, then the names of the spans.
    fn node(&mut self, tree: &mut StackTree, tables: &Tables) -> Node {
        // A known node on top means that everything below is known too.
        if let Some(known) = self.open_spans.last().and_then(|s| s.node) {
            return known;
        }
        let mut node = Node(0);
        for i in 0..self.open_spans.len() {
            let Some(&span) = self.open_spans.get(i) else { break };
            node = match span.node {
                Some(known) => known,
                None if span.stack.0 != 0 => {
                    // This span says where it was called from, more closely than the spans around it do.
                    let base = tree.import(span.stack, tables);
                    let around: Vec<StringId> = self.open_spans.iter().take(i + 1).map(|s| s.name).collect();
                    around.into_iter().fold(base, |at, name| tree.child(at, name))
                }
                None => tree.child(node, span.name),
            };
            if let Some(span) = self.open_spans.get_mut(i) {
                span.node = Some(node);
            }
        }
        node
    }
}

fn end_of(call: &ApiCall) -> TimeNs {
    call.start.plus(call.duration_ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};
    use stallscope_schemas::record::SpanKind;
    use stallscope_schemas::units::{CorrelationId, StackId, StringId, TimeNs};

    use super::{HostTimeline, Node, StackTree};
    use crate::capture::Tables;
    use crate::rows::{ApiCall, HostSpan};

    fn span(start: i64, duration_ns: u64, name: u32) -> HostSpan {
        let kind = SpanKind::Operator;
        HostSpan { start: TimeNs(start), duration_ns, name: StringId(name), kind, stack: StackId(0) }
    }

    fn call(start: i64, duration_ns: u64, name: u32) -> ApiCall {
        ApiCall { start: TimeNs(start), duration_ns, name: StringId(name), correlation: CorrelationId(0) }
    }

    #[test]
    fn a_query_is_split_where_spans_begin_and_end() {
        let spans = vec![span(0, 100, 1), span(10, 20, 2), span(40, 10, 3)];
        let mut host = HostTimeline::new(spans.into_iter(), std::iter::empty::<ApiCall>());
        let mut tree = StackTree::default();
        let mut seen = Vec::new();
        host.stacks(TimeNs(5), TimeNs(110), &mut tree, &Tables::default(), |node, from, to| {
            seen.push((node, from.0, to.0));
        });
        let names: Vec<_> = seen
            .iter()
            .map(|(n, f, t)| (tree.names(*n).iter().map(|s| s.0).collect::<Vec<_>>(), *f, *t))
            .collect();
        assert_eq!(
            names,
            [
                (vec![1], 5, 10),
                (vec![1, 2], 10, 30),
                (vec![1], 30, 40),
                (vec![1, 3], 40, 50),
                (vec![1], 50, 100),
                (vec![], 100, 110)
            ]
        );
        assert_eq!(seen.last().map(|s| s.0), Some(Node(0)));
    }

    #[test]
    fn the_outermost_open_call_has_the_time() {
        let calls = vec![call(0, 50, 1), call(10, 20, 2), call(70, 10, 3)];
        let mut host = HostTimeline::new(std::iter::empty::<HostSpan>(), calls.into_iter());
        let mut pieces = Vec::new();
        host.pieces(TimeNs(5), TimeNs(100), |_| true, &mut pieces);
        let got: Vec<_> = pieces.iter().map(|p| (p.from.0, p.to.0, p.call.map(|c| c.name.0))).collect();
        assert_eq!(got, [(5, 50, Some(1)), (50, 70, None), (70, 80, Some(3)), (80, 100, None)]);
    }

    #[test]
    fn siblings_that_overlap_do_not_stay_open() {
        let spans = vec![span(0, 20, 1), span(10, 30, 2)];
        let mut host = HostTimeline::new(spans.into_iter(), std::iter::empty::<ApiCall>());
        let mut tree = StackTree::default();
        let mut last = Vec::new();
        host.stacks(TimeNs(15), TimeNs(40), &mut tree, &Tables::default(), |node, from, to| {
            last.push((node, from.0, to.0));
        });
        assert_eq!(last.iter().map(|l| (l.1, l.2)).collect::<Vec<_>>(), [(15, 20), (20, 40)]);
    }

    proptest! {
        #[test]
        fn stacks_are_the_open_spans_at_every_moment(
            mut spans in prop::collection::vec((0..60i64, 0..30u64), 0..25),
            cuts in prop::collection::vec(0..80i64, 0..6),
        ) {
            spans.sort_by_key(|&(start, duration)| (start, std::cmp::Reverse(duration)));
            let rows: Vec<HostSpan> =
                spans.iter().zip(1u32..).map(|(&(start, duration), name)| span(start, duration, name)).collect();
            let mut cuts: Vec<i64> = cuts.into_iter().chain([0, 100]).collect();
            cuts.sort_unstable();
            let mut host = HostTimeline::new(rows.iter().copied(), std::iter::empty::<ApiCall>());
            let mut tree = StackTree::default();
            let mut seen: Vec<(Node, TimeNs, TimeNs)> = Vec::new();
            for window in cuts.windows(2) {
                let (from, to) = (TimeNs(window[0]), TimeNs(window[1]));
                host.stacks(from, to, &mut tree, &Tables::default(), |node, from, to| seen.push((node, from, to)));
            }
            for t in 0..100 {
                let open: Vec<StringId> = rows
                    .iter()
                    .filter(|s| s.start.0 <= t && t < s.start.plus(s.duration_ns).0)
                    .map(|s| s.name)
                    .collect();
                let at = seen.iter().find(|(_, from, to)| from.0 <= t && t < to.0).expect("no hole");
                assert_eq!(tree.names(at.0), open, "at {t}");
            }
        }
    }
}
