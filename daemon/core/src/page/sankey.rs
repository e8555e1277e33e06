//! Flows of time from column to column as bands whose width is the time.
//!
//! What always holds: every flow is in the picture. Of the nodes of a column the largest have a place of their own; all others share
//! one, so that each column sums to the whole.

use std::collections::BTreeMap;

use super::html::{Html, grouped, put};
use super::plural;
use crate::report::text::{duration, percent, short_name};

/// Nodes of a column that have a place of their own.
pub(super) const MOST_NODES: usize = 12;
/// The picture, in its own units.
const WIDTH: f64 = 1180.0;
/// Room to the right of the last column, for its names.
const MARGIN: f64 = 350.0;
/// Characters of a name.
const NAME: usize = 32;
const NODE_WIDTH: f64 = 12.0;
/// Height of all bands together.
const BANDS: f64 = 300.0;
/// Least height of a node with its name.
const SLOT: f64 = 17.0;
const GAP: f64 = 5.0;
const TOP: f64 = 26.0;

/// What stands in a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    /// Nodes are in this order, and in that of their time where it is equal.
    pub(super) order: u32,
    pub(super) name: String,
    /// CSS class of its colour.
    pub(super) class: &'static str,
}

/// Time on its way.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// A node for each column; none where it passes by.
    pub(super) path: Vec<Option<Node>>,
    pub(super) ns: u64,
}

/// A node with its place.
struct Placed {
    node: Node,
    ns: u64,
    y: f64,
    height: f64,
    /// Where the next bands come in and go out.
    inward: f64,
    outward: f64,
}

/// Draws flows; returns how many nodes have no place of their own.
pub(super) fn draw(html: &mut Html, titles: &[&'static str], flows: &[Flow]) -> usize {
    let total = flows.iter().fold(0u64, |sum, flow| sum.saturating_add(flow.ns));
    // Columns in which nothing stands are left out.
    let used: Vec<usize> = (0..titles.len())
        .filter(|&at| flows.iter().any(|f| f.path.get(at).is_some_and(Option::is_some)))
        .collect();
    let mut folded = 0;
    let mut columns: Vec<Vec<Placed>> = Vec::new();
    let mut places: Vec<BTreeMap<&Node, usize>> = Vec::new();
    for &at in &used {
        let mut sums: BTreeMap<&Node, u64> = BTreeMap::new();
        for flow in flows {
            if let Some(node) = flow.path.get(at).and_then(Option::as_ref) {
                let sum = sums.entry(node).or_default();
                *sum = sum.saturating_add(flow.ns);
            }
        }
        let (placed, place, rest) = column(&sums, total);
        folded += rest;
        columns.push(placed);
        places.push(place);
    }
    let bands = bands(flows, &used, &places);
    let height =
        columns.iter().filter_map(|c| c.last()).map(|p| p.y + p.height.max(SLOT)).fold(TOP, f64::max) + 8.0;
    put!(html; "<div class=\"wide\" tabindex=\"0\"><svg class=\"sankey\" viewBox=\"0 0 " (WIDTH) " " (format!("{height:.0}"))
        "\" role=\"img\">");
    let x = |column: usize| {
        let step = (WIDTH - MARGIN) / used.len().saturating_sub(1).max(1) as f64;
        step * column as f64
    };
    for (at, column) in used.iter().enumerate() {
        put!(html; "<text class=\"title\" x=\"" (format!("{:.1}", x(at))) "\" y=\"12\">" (titles.get(*column).copied().unwrap_or("")) "</text>");
    }
    put!(html; "\n<g class=\"bands\">");
    for ((from, to), ns) in bands {
        let thickness = scaled(ns, total);
        let end = |(column, node): (usize, usize), columns: &mut Vec<Vec<Placed>>, out: bool| {
            let placed = columns.get_mut(column)?.get_mut(node)?;
            let at = if out { &mut placed.outward } else { &mut placed.inward };
            let y = *at + thickness / 2.0;
            *at += thickness;
            Some((y, placed.node.name.clone(), placed.node.class))
        };
        let (Some((y1, source, _)), Some((y2, sink, class))) =
            (end(from, &mut columns, true), end(to, &mut columns, false))
        else {
            continue;
        };
        let (x1, x2) = (x(from.0) + NODE_WIDTH, x(to.0));
        let middle = f64::midpoint(x1, x2);
        put!(html; "<path class=\"" (class) "\" d=\"M" (format!("{x1:.1} {y1:.1}C{middle:.1} {y1:.1} {middle:.1} {y2:.1} {x2:.1} {y2:.1}"))
            "\" stroke-width=\"" (format!("{:.2}", thickness.max(0.7))) "\"><title>" (source) " → " (sink) ": " (duration(ns)) ", "
            (percent(ns, total)) ", " (grouped(ns)) " ns</title></path>\n");
    }
    put!(html; "</g>\n");
    for (at, column) in columns.iter().enumerate() {
        for placed in column {
            put!(html; "<g><title>" (placed.node.name) ": " (grouped(placed.ns)) " ns</title><rect class=\"" (placed.node.class) "\" x=\""
                (format!("{:.1}", x(at))) "\" y=\"" (format!("{:.1}", placed.y)) "\" width=\"" (NODE_WIDTH) "\" height=\""
                (format!("{:.1}", placed.height.max(1.0))) "\"/><text x=\"" (format!("{:.1}", x(at) + NODE_WIDTH + 5.0)) "\" y=\""
                (format!("{:.1}", placed.y + placed.height / 2.0 + 4.0)) "\">" (short_name(&placed.node.name, NAME)) " <tspan>" (duration(placed.ns)) " · "
                (percent(placed.ns, total)) "</tspan></text></g>\n");
        }
    }
    put!(html; "</svg></div>\n");
    folded
}

fn scaled(ns: u64, total: u64) -> f64 {
    ns as f64 / total.max(1) as f64 * BANDS
}

/// Places the nodes of a column one below the other; nodes without a place of their own are one.
fn column<'a>(sums: &BTreeMap<&'a Node, u64>, total: u64) -> (Vec<Placed>, BTreeMap<&'a Node, usize>, usize) {
    let mut order: Vec<(&Node, u64)> = sums.iter().map(|(node, ns)| (*node, *ns)).collect();
    order.sort_by(|(a, a_ns), (b, b_ns)| b_ns.cmp(a_ns).then_with(|| a.cmp(b)));
    let rest =
        order.split_off(order.len().min(if order.len() > MOST_NODES { MOST_NODES - 1 } else { MOST_NODES }));
    order.sort_by(|(a, a_ns), (b, b_ns)| {
        (a.order, std::cmp::Reverse(*a_ns), *a).cmp(&(b.order, std::cmp::Reverse(*b_ns), *b))
    });
    let mut nodes: Vec<(Node, u64)> = order.iter().map(|(node, ns)| ((*node).clone(), *ns)).collect();
    let mut place: BTreeMap<&Node, usize> =
        order.iter().enumerate().map(|(at, (node, _))| (*node, at)).collect();
    if !rest.is_empty() {
        let ns = rest.iter().fold(0u64, |sum, (_, ns)| sum.saturating_add(*ns));
        place.extend(rest.iter().map(|(node, _)| (*node, nodes.len())));
        nodes.push((Node { order: u32::MAX, name: plural(rest.len(), "other"), class: "k-rest" }, ns));
    }
    let mut y = TOP;
    let placed = nodes.into_iter().map(|(node, ns)| {
        let height = scaled(ns, total);
        let slot = height.max(SLOT);
        // A thin node stands in the middle of its slot.
        let at = y + (slot - height) / 2.0;
        y += slot + GAP;
        Placed { node, ns, y: at, height, inward: at, outward: at }
    });
    (placed.collect(), place, rest.len())
}

/// A column and a position in it.
type Place = (usize, usize);

/// The bands between places, with their time; in an order in which those of a node do not cross.
fn bands(flows: &[Flow], used: &[usize], places: &[BTreeMap<&Node, usize>]) -> BTreeMap<(Place, Place), u64> {
    let mut bands: BTreeMap<(Place, Place), u64> = BTreeMap::new();
    for flow in flows {
        let mut from: Option<Place> = None;
        for (column, (&at, places)) in used.iter().zip(places).enumerate() {
            let Some(node) = flow.path.get(at).and_then(Option::as_ref) else { continue };
            let Some(&position) = places.get(node) else { continue };
            let to = (column, position);
            if let Some(from) = from {
                let sum = bands.entry((from, to)).or_default();
                *sum = sum.saturating_add(flow.ns);
            }
            from = Some(to);
        }
    }
    bands
}
