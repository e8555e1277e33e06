//! Stacks of lost time as a picture: the outermost frame on top, the width of a frame is its time.
//!
//! Each frame is a picture of its own inside the whole, placed in percent: so it is cut at its edge and its text keeps its size when
//! the whole is drawn wider. At most [`MOST_FRAMES`] frames are drawn, the widest, and [`MOST_BYTES`] of each picture.

use super::Stacks;
use super::html::{Html, coordinate, grouped, put};
use super::plural;
use crate::folded::Folded;
use crate::report::text::{duration, function_first, percent, short_name};

const MOST_FRAMES: usize = 2500;
const MOST_BYTES: usize = 400_000;
/// Frames below the outermost one.
const MOST_DEPTH: usize = 60;
/// Narrower frames, in parts of the whole, are not drawn: half a pixel where it is drawn widest.
const NARROWEST: u64 = 30_000;
/// Frames with this share have room for text where the picture is drawn widest.
const TEXT_FROM: u64 = 500;
const ROW_HEIGHT: usize = 18;
/// Stacks that are listed as text.
const LISTED: usize = 12;
/// Frames of a listed stack: its ends say most.
const LISTED_FRAMES: usize = 6;

pub(super) fn section(html: &mut Html, stacks: &[Stacks<'_>]) {
    put!(html; "<section id=\"flame\"><h2>Stacks of lost time</h2>\n");
    if stacks.is_empty() {
        put!(html; "<p class=\"none\">The capture has no stacks of lost time.</p></section>\n");
        return;
    }
    for (at, stacks) in stacks.iter().enumerate() {
        picture(html, at, stacks);
    }
    put!(html; "</section>\n");
}

fn picture(html: &mut Html, at: usize, stacks: &Stacks<'_>) {
    let total = stacks.folded.total_ns();
    put!(html; "<h3>" (stacks.what) ": " (duration(total)) "</h3>\n");
    if total == 0 {
        put!(html; "<p class=\"none\">None: this capture has no " (stacks.what) ".</p>\n");
        return;
    }
    put!(html; "<p class=\"how\">" (stacks.how) " The outermost frame is on top.</p>\n<div class=\"flames\">");
    for (zoom, checked) in [("1", true), ("4", false), ("16", false)] {
        put!(html; "<input type=\"radio\" name=\"zoom-" (at) "\" id=\"zoom-" (at) "-" (zoom) "\" class=\"z" (zoom) "\"");
        if checked {
            put!(html; " checked");
        }
        put!(html; "><label for=\"zoom-" (at) "-" (zoom) "\">" (zoom) "×</label>");
    }
    let all = frames(stacks.folded);
    let count = all.len();
    let mut drawn: Vec<Frame> =
        all.into_iter().filter(|f| f.depth <= MOST_DEPTH && f.ns >= total / NARROWEST).collect();
    drawn.sort_by_key(|f| (std::cmp::Reverse(f.ns), f.depth, f.from));
    drawn.truncate(MOST_FRAMES);
    let rows = drawn.iter().map(|f| f.depth + 1).max().unwrap_or(1);
    put!(html; "<div class=\"wide\" tabindex=\"0\"><svg class=\"flame" (if stacks.waits { " waits" } else { "" })
        "\" height=\"" (rows * ROW_HEIGHT) "\" role=\"img\">\n");
    let begin = html.len();
    let mut shown = 0;
    for frame in &drawn {
        if html.len() - begin > MOST_BYTES {
            break;
        }
        shown += 1;
        draw(html, frame, total);
    }
    put!(html; "</svg></div></div>\n");
    if shown < count {
        put!(html; "<p class=\"how\">" (grouped((count - shown) as u64)) " of " (grouped(count as u64))
            " frames are too narrow or too deep to be drawn; <code>stallscope flamegraph</code> draws them with the weight of your choice.</p>\n");
    }
    list(html, stacks.folded, total);
}

/// A frame in its place.
#[derive(Debug)]
struct Frame {
    depth: usize,
    from: u64,
    ns: u64,
    name: String,
}

/// The frames of all stacks; what neighbours have in common is one frame. Stacks come in the order of their frames.
fn frames(folded: &Folded) -> Vec<Frame> {
    let mut done: Vec<Frame> = Vec::new();
    let mut open: Vec<Frame> = Vec::new();
    let mut at = 0u64;
    for (names, ns) in folded.iter() {
        let names = names.get(..names.len().min(MOST_DEPTH + 2)).unwrap_or_default();
        let same = open.iter().zip(names).take_while(|(frame, name)| frame.name == **name).count();
        done.extend(open.drain(same..));
        for frame in &mut open {
            frame.ns = frame.ns.saturating_add(ns);
        }
        for (depth, name) in names.iter().enumerate().skip(same) {
            open.push(Frame { depth, from: at, ns, name: name.clone() });
        }
        at = at.saturating_add(ns);
    }
    done.extend(open);
    done
}

fn draw(html: &mut Html, frame: &Frame, total: u64) {
    let name = function_first(&frame.name);
    put!(html; "<svg x=\"" (coordinate(frame.from, total)) "%\" y=\"" (frame.depth * ROW_HEIGHT) "\" width=\"" (coordinate(frame.ns, total))
        "%\" height=\"" (ROW_HEIGHT) "\"><title>" (short_name(&frame.name, 160)) ": " (duration(frame.ns)) ", " (percent(frame.ns, total))
        "</title><rect width=\"100%\" height=\"" (ROW_HEIGHT - 1) "\" class=\"f" (shade(&name)) "\"/>");
    if frame.ns >= total / TEXT_FROM {
        // Where a few letters fit: as drawn at first, or only where it is drawn wider.
        let class = match total / frame.ns.max(1) {
            0..35 => "",
            35..140 => "t4",
            _ => "t16",
        };
        put!(html; "<text x=\"3\" y=\"13\" class=\"" (class) "\">" (short_name(&name, 90)) "</text>");
    }
    put!(html; "</svg>\n");
}

/// A shade that follows from the name, so that the same function looks alike everywhere.
fn shade(name: &str) -> u32 {
    name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619)) >> 13
        & 3
}

/// The largest stacks as text.
fn list(html: &mut Html, folded: &Folded, total: u64) {
    let mut all: Vec<(&[String], u64)> = folded.iter().collect();
    all.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    put!(html; "<details><summary>The largest stacks as text</summary><ol class=\"stacks\">\n");
    for (frames, ns) in all.iter().take(LISTED) {
        put!(html; "<li><b>" (duration(*ns)) "</b>, " (percent(*ns, total)) ": ");
        let left_out = frames.len().saturating_sub(LISTED_FRAMES);
        for (at, frame) in frames.iter().enumerate() {
            if left_out > 0 && at == LISTED_FRAMES / 2 {
                put!(html; " › … " (plural(left_out, "frame")) " …");
            }
            if at >= LISTED_FRAMES / 2 && at < LISTED_FRAMES / 2 + left_out {
                continue;
            }
            put!(html; (if at == 0 { "" } else { " › " }) (short_name(&function_first(frame), 90)));
        }
        put!(html; "\n");
    }
    put!(html; "</ol>");
    if all.len() > LISTED {
        put!(html; "<p>… and " (plural(all.len() - LISTED, "more stack")) ".</p>");
    }
    put!(html; "</details>\n");
}

#[cfg(test)]
mod tests {
    use super::frames;
    use crate::folded::Folded;

    #[test]
    fn callers_that_stacks_share_are_one_frame() {
        let mut folded = Folded::default();
        for (stack, ns) in [("a;b", 5), ("a;c;d", 7), ("e", 2), ("a", 1)] {
            folded.add(stack.split(';').map(str::to_owned).collect(), ns);
        }
        let mut all: Vec<_> = frames(&folded).into_iter().map(|f| (f.depth, f.from, f.ns, f.name)).collect();
        all.sort();
        let wanted = [(0, 0, 13, "a"), (0, 13, 2, "e"), (1, 1, 5, "b"), (1, 6, 7, "c"), (2, 6, 7, "d")];
        assert_eq!(all, wanted.map(|(depth, from, ns, name)| (depth, from, ns, name.to_owned())));
    }
}
