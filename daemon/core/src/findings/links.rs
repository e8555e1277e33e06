//! Transfers that took longer than the same operation at its best, and what the job's links say of themselves meanwhile:
//! counters of NVLink, PCIe and network adapters, and repeated segments of connections. Ranks on CPUs have connections only,
//! each of which is known from both ends: they tell where a bad link is (`between_ranks`).
//!
//! Counters are sampled once a second, so they show that a link had trouble while transfers were slow, and not which
//! transfer it was. Where none of them moved, or none was recorded, the finding says so and blames no link.

use std::collections::{BTreeMap, BTreeSet};

use stallscope_schemas::record::{RecordKind, device_kind};
use stallscope_schemas::units::{DeviceId, TimeNs};

use super::rules::rule;
use super::{Finding, Found, Severity};
use crate::capture::{Capture, ReadAt};
use crate::ledger::cpu::arrivals::{Arrival, Arrivals};
use crate::ledger::so_far::Part;
use crate::ledger::{CommLeaf, CpuLedger, DeviceLedger, RootLeaf};
use crate::report::rank_of;
use crate::report::text::{duration, percent, printable, short_name};
use crate::rows::{Connection, Counter};

/// Counters of a GPU's links that stand still on one that is well: what they count, since the driver was loaded.
const OF_GPUS: [&str; 3] = [" replays (count)", " recoveries (count)", " crc errors (count)"];

/// Counters of an adapter's port that grow when a link is damaged, congested or loses packets, by parts of their names.
const OF_PORTS: [&str; 17] = [
    "xmit_wait",
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "rcv_errors",
    "xmit_discards",
    "link_integrity_errors",
    "buffer_overrun_errors",
    "out_of_sequence",
    "packet_seq_err",
    "ack_timeout_err",
    "rnr_nak_retry_err",
    "cnp_handled",
    "cnp_sent",
    "ecn_marked",
    "adp_retrans",
    "slow_restart",
];

/// Links that are named in one finding.
const MAX_NAMED: usize = 4;

/// What the counters of a device say of its links between two moments.
#[derive(Debug, Default)]
struct Troubles {
    /// How much each counter grew, where it did; by name.
    grown: BTreeMap<String, u64>,
    /// Whether there was any counter of a link.
    any: bool,
}

/// Adds what the counters of a device say.
fn look<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    (from, to): (TimeNs, TimeNs),
    troubles: &mut Troubles,
) {
    let tables = capture.tables();
    // Of counts the last value before and the last one in the stretch, and how many there were; of the link's width the last one.
    let mut seen: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for row in capture.rows::<Counter>(device.0).filter(|row| row.start <= to) {
        let name = tables.string(row.name);
        if row.duration_ns > 0 {
            let is_link = name.starts_with("port ") && OF_PORTS.iter().any(|part| name.contains(part));
            let reaches_in = row.start.plus(row.duration_ns) > from;
            troubles.any |= is_link;
            if is_link && reaches_in && row.value > 0 {
                let sum = troubles.grown.entry(printable(name).into_owned()).or_default();
                *sum = sum.saturating_add(row.value);
            }
        } else if OF_GPUS.iter().any(|end| name.ends_with(end)) || name.starts_with("pcie link width") {
            let (before, last, count) = seen.entry(name).or_insert((row.value, row.value, 0));
            (*last, *count) = (row.value, *count + 1);
            if row.start <= from {
                *before = row.value;
            }
        }
    }
    for (name, (before, last, count)) in seen.iter().filter(|(name, _)| !name.starts_with("pcie link width"))
    {
        // One sample says nothing of growth.
        troubles.any |= *count > 1;
        if last > before {
            troubles.grown.insert((*name).to_owned(), last - before);
        }
    }
    let width = |name: &str| seen.get(name).map(|&(_, last, _)| last);
    if let (Some(now), Some(most)) = (width("pcie link width (lanes)"), width("pcie link width max (lanes)"))
        && now < most
    {
        troubles.grown.insert(format!("pcie lanes missing of {most}"), most - now);
    }
}

/// What a connection did.
#[derive(Clone, Debug, Default)]
struct Traffic {
    segments: u64,
    /// Segments sent again, of `segments`.
    again: u64,
    /// Of these, those of stretches in which so many of its segments were that it was bad.
    again_where_bad: u64,
    sent_bytes: u64,
    /// Share of segments sent again, times the length of the stretch; and these lengths, ns.
    repeats: f64,
    length: f64,
    /// Round trips, of each stretch in which it sent bytes, ns; as far as known.
    rtts_ns: Vec<u64>,
    /// What it was estimated to deliver, of the same, bytes a second; as far as known.
    rates: Vec<u64>,
}

impl Traffic {
    fn add(&mut self, row: &Connection) {
        // The kernel counts a segment as repeated before it counts it as sent.
        let again = row.retransmits.min(row.segments);
        let share = again as f64 / row.segments.max(1) as f64;
        self.segments = self.segments.saturating_add(row.segments);
        self.again = self.again.saturating_add(again);
        if share >= BAD_REPEATS {
            self.again_where_bad = self.again_where_bad.saturating_add(again);
        }
        self.sent_bytes = self.sent_bytes.saturating_add(row.sent_bytes);
        self.repeats += share * row.duration_ns as f64;
        self.length += row.duration_ns as f64;
        // An end that only acknowledges measures nothing: what it says is from long ago.
        if row.sent_bytes > 0 {
            self.rtts_ns.extend((row.rtt_ns > 0).then_some(row.rtt_ns));
            self.rates.extend((row.delivery_rate > 0).then_some(row.delivery_rate));
        }
    }

    fn join(&mut self, other: &Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.again = self.again.saturating_add(other.again);
        self.again_where_bad = self.again_where_bad.saturating_add(other.again_where_bad);
        self.sent_bytes = self.sent_bytes.saturating_add(other.sent_bytes);
        self.repeats += other.repeats;
        self.length += other.length;
    }

    /// Mean share of segments that were sent again, over time: while a link is bad few are sent.
    fn repeats(&self) -> f64 {
        self.repeats / self.length.max(1.0)
    }

    /// Median round trip, ns: one that ends while no CPU is free is long on a good link as well.
    fn rtt_ns(&self) -> Option<u64> {
        median(&self.rtts_ns)
    }

    /// Median of what it was estimated to deliver, bytes a second.
    fn rate(&self) -> Option<u64> {
        median(&self.rates)
    }
}

/// Of a good link whose ends wait for CPUs every third or fourth value is ten times worse than the others: fewer than this many
/// say nothing.
const MIN_VALUES: usize = 3;

fn median(values: &[u64]) -> Option<u64> {
    if values.len() < MIN_VALUES {
        return None;
    }
    let mut all = values.to_vec();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// What each connection of a device's processes did, by its name.
fn traffic<S: ReadAt>(
    capture: &Capture<S>,
    device: DeviceId,
    (from, to): (TimeNs, TimeNs),
) -> BTreeMap<&str, Traffic> {
    let tables = capture.tables();
    let mut sums: BTreeMap<&str, Traffic> = BTreeMap::new();
    for process in tables.device(device).map(|d| d.processes.as_slice()).unwrap_or_default() {
        let within = |row: &Connection| row.start < to && row.start.plus(row.duration_ns) > from;
        for row in capture.rows::<Connection>(process.0).filter(within).filter(|row| row.segments > 0) {
            sums.entry(tables.string(row.name)).or_default().add(&row);
        }
    }
    sums
}

/// The connections on which segments were sent again, the worst first.
fn repeated(connections: BTreeMap<&str, Traffic>) -> Vec<String> {
    let mut worst: Vec<(&str, Traffic)> = connections.into_iter().filter(|(_, t)| t.again > 0).collect();
    worst.sort_by_key(|(name, of)| (std::cmp::Reverse(of.again), *name));
    worst.into_iter().take(MAX_NAMED).map(|(name, of)| resent(name, &of)).collect()
}

fn resent(name: &str, of: &Traffic) -> String {
    let name = short_name(name.strip_prefix("tcp ").unwrap_or(name), 60);
    format!("tcp {name} sent {} of {} segments again", of.again, of.segments)
}

/// A device's transfers beyond their best, with what its links say.
pub(crate) fn slow_transfers<S: ReadAt>(
    capture: &Capture<S>,
    ledger: &DeviceLedger,
    id: &str,
) -> Option<Finding> {
    let wall = ledger.end.since(ledger.start);
    let excess_ns = ledger.sums.comm(CommLeaf::Excess);
    let mut found = Found { id, wall, device: Some(ledger.device), out: Vec::new() };
    let part = Part::Device(RootLeaf::Excess);
    found.add_of(part, ("communication-slow", "slow transfers", excess_ns), || {
        let floor_ns = ledger.sums.comm(CommLeaf::Floor);
        let summary = format!(
            "exposed transfers took {} longer than the same operations at their best: {} of the time",
            duration(excess_ns),
            percent(excess_ns, wall)
        );
        (summary, format!("{} at their best; {}", duration(floor_ns), links(capture, ledger)))
    });
    found.out.pop()
}

/// What the links of a device and of its host say, in words.
fn links<S: ReadAt>(capture: &Capture<S>, ledger: &DeviceLedger) -> String {
    let (tables, window) = (capture.tables(), (ledger.start, ledger.end));
    let mut troubles = Troubles::default();
    look(capture, ledger.device, window, &mut troubles);
    let source = tables.device(ledger.device).map(|d| d.source);
    for host in capture.keys(RecordKind::Counter).into_iter().map(DeviceId) {
        let is_host =
            tables.device(host).is_some_and(|d| d.kind == device_kind::HOST && Some(d.source) == source);
        if is_host {
            look(capture, host, window, &mut troubles);
        }
    }
    let connections = repeated(traffic(capture, ledger.device, window));
    let mut grown: Vec<(&String, &u64)> = troubles.grown.iter().collect();
    grown.sort_by_key(|&(name, by)| (std::cmp::Reverse(*by), name.clone()));
    let counters = grown.into_iter().take(MAX_NAMED).map(|(name, by)| format!("{name}: {by}"));
    let told: Vec<String> = counters.chain(connections).collect();
    if !told.is_empty() {
        return format!("meanwhile {}", told.join("; "));
    }
    if troubles.any { "no counter of a link moved" } else { "no counters of links were recorded" }.to_owned()
}

/// A link is bad from this share of repeated segments on, and from this many: a machine whose CPUs are all taken repeats a
/// few in a thousand, because acknowledgements come late.
const BAD_REPEATS: f64 = 0.01;
const MIN_REPEATS: u64 = 10;
/// Where one is, so are those with at least this part of its share.
const LIKE_WORST: f64 = 0.25;
/// A link is bad, too, where its round trip is at least a third of the longest, and that is long: in ms, and as a multiple of
/// that of the good ones. A good link of a busy machine takes some tenths of one.
const OF_LONGEST: u64 = 3;
const BAD_RTT: u64 = 4;
const MIN_RTT_NS: u64 = 2_000_000;
/// A link is bad, too, where it delivers at most this part of what good ones do.
const BAD_RATE: u64 = 8;
/// Connections that carry less than this share of what the busiest does tell nothing by their round trip or their rate.
const MIN_TRAFFIC: f64 = 0.1;

/// A connection between two ranks, or from a rank to somebody else.
struct Link<'a> {
    name: &'a str,
    /// Positions of the ledgers of the ranks at its ends; one where the other end is elsewhere, which may be far away. Only
    /// links with as many ends are compared.
    ends: BTreeSet<usize>,
    of: Traffic,
    /// Round trip from the end where it is shorter, ns: who hears nothing back for a while waits for an acknowledgement that
    /// is delayed on purpose, however good the link is. A bad link delays both. Unknown where one of two ends measures none.
    rtt_ns: Option<u64>,
    /// What it was estimated to deliver, bytes a second, from the end whose bytes take longest at that. The other end may not
    /// see that a link is slow: where what it sends fits into a queue on the way it never has more to send than goes out.
    rate: Option<u64>,
}

/// Which links of a job of ranks on CPUs are bad, how that shows, and the rank at which all of them end.
struct Bad<'a> {
    links: Vec<Link<'a>>,
    what: &'static str,
    culprit: Option<usize>,
    /// Share of what is bad that lies on these links.
    confidence: f64,
    /// The worst of the others, in words.
    others: String,
}

/// The name that a connection has where its other end is: `tcp a → b` is `tcp b → a` there.
fn from_its_other_end(name: &str) -> Option<String> {
    let (local, peer) = name.strip_prefix("tcp ").unwrap_or(name).split_once(" → ")?;
    let protocol = if name.starts_with("tcp ") { "tcp " } else { "" };
    Some(format!("{protocol}{peer} → {local}"))
}

/// What a connection with these ends was estimated to deliver.
fn rate_of(ends: [&Traffic; 2]) -> Option<u64> {
    let takes = |of: &Traffic| of.rate().map(|rate| (of.sent_bytes as f64 / rate as f64, rate));
    let longest = ends.into_iter().filter_map(takes).max_by(|a, b| a.0.total_cmp(&b.0));
    longest.map(|(_, rate)| rate)
}

fn links_of<'a, S: ReadAt>(
    capture: &'a Capture<S>,
    arrivals: &Arrivals,
    ledgers: &[CpuLedger],
) -> Vec<Link<'a>> {
    let mut ends: BTreeMap<&str, (usize, Traffic)> = BTreeMap::new();
    for at in arrivals.ranks.iter().map(|arrival| arrival.ledger) {
        let Some(ledger) = ledgers.get(at) else { continue };
        for (name, of) in traffic(capture, ledger.device, (ledger.start, ledger.end)) {
            ends.insert(name, (at, of));
        }
    }
    let mut links = Vec::new();
    for (&name, (at, of)) in &ends {
        // A name that was lost says nothing of where it leads to.
        let Some(reversed) = from_its_other_end(name) else { continue };
        match ends.get_key_value(reversed.as_str()) {
            // Told by the other end.
            Some((&reversed, _)) if reversed < name => {}
            // Between processes of one rank.
            Some((_, (peer, _))) if peer == at => {}
            Some((_, (peer, back))) => {
                let rtt_ns = of.rtt_ns().zip(back.rtt_ns()).map(|(there, back)| there.min(back));
                let rate = rate_of([of, back]);
                let mut of = of.clone();
                of.join(back);
                links.push(Link { name, ends: BTreeSet::from([*at, *peer]), of, rtt_ns, rate });
            }
            None => {
                let (rtt_ns, rate) = (of.rtt_ns(), of.rate());
                links.push(Link { name, ends: BTreeSet::from([*at]), of: of.clone(), rtt_ns, rate });
            }
        }
    }
    links
}

/// Finds the bad ones: by repeated segments, else by what they deliver, else by their round trips.
fn bad(links: Vec<Link<'_>>) -> Option<Bad<'_>> {
    let repeating = links.iter().filter(|link| link.of.again_where_bad >= MIN_REPEATS);
    let repeating = repeating.map(|link| link.of.repeats());
    let worst = repeating.max_by(f64::total_cmp).filter(|worst| *worst >= BAD_REPEATS);
    if let Some(worst) = worst {
        let least = BAD_REPEATS.min(worst * LIKE_WORST);
        let repeats = |link: &Link<'_>| link.of.again >= MIN_REPEATS && link.of.repeats() >= least;
        let share = |link: &Link<'_>| format!("{:.2} % of segments sent again", link.of.repeats() * 100.0);
        return Some(apart(links, repeats, "sent segments again", |link| link.of.repeats(), share));
    }
    let links = busy(links);
    let slow = slow(&links);
    if !slow.is_empty() {
        let is_slow = |link: &Link<'_>| slow.contains(link.name);
        let cost = |link: &Link<'_>| 1.0 / link.rate.unwrap_or(u64::MAX) as f64;
        return Some(apart(links, is_slow, "delivered little", cost, delivered));
    }
    let far = far(&links);
    let is_far = |link: &Link<'_>| far.contains(link.name);
    let length = |link: &Link<'_>| link.rtt_ns.unwrap_or(0) as f64;
    (!far.is_empty()).then(|| apart(links, is_far, "had long round trips", length, round_trip))
}

/// Those that carry much, among links whose ends are like theirs.
fn busy(links: Vec<Link<'_>>) -> Vec<Link<'_>> {
    let mut most: BTreeMap<usize, u64> = BTreeMap::new();
    for link in &links {
        let most = most.entry(link.ends.len()).or_default();
        *most = link.of.sent_bytes.max(*most);
    }
    let is_busy = |link: &Link<'_>| {
        let most = most.get(&link.ends.len()).copied().unwrap_or(0);
        link.of.sent_bytes as f64 >= most as f64 * MIN_TRAFFIC
    };
    links.into_iter().filter(is_busy).collect()
}

/// Of links of each number of ends, the value of the better ones by worth: half of the links may be bad, as those of one rank of
/// four are.
fn of_good(links: &[Link<'_>], worth: impl Fn(&Link<'_>) -> Option<u64>) -> BTreeMap<usize, u64> {
    let mut all: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for link in links {
        all.entry(link.ends.len()).or_default().extend(worth(link));
    }
    let good = |(ends, mut worths): (usize, Vec<u64>)| {
        worths.sort_unstable_by_key(|worth| std::cmp::Reverse(*worth));
        Some((ends, *worths.get(worths.len().checked_sub(1)? / 4)?))
    };
    all.into_iter().filter_map(good).collect()
}

/// Names of those that deliver much less than others whose ends are like theirs.
fn slow<'a>(links: &[Link<'a>]) -> BTreeSet<&'a str> {
    let good = of_good(links, |link| link.rate);
    let is_slow = |link: &&Link<'a>| {
        let both = link.rate.zip(good.get(&link.ends.len()));
        both.is_some_and(|(rate, good)| rate <= good / BAD_RATE)
    };
    links.iter().filter(is_slow).map(|link| link.name).collect()
}

/// Names of those that have long round trips among links whose ends are like theirs.
fn far<'a>(links: &[Link<'a>]) -> BTreeSet<&'a str> {
    // The better, the shorter.
    let good = of_good(links, |link| Some(u64::MAX - link.rtt_ns?));
    let mut longest: BTreeMap<usize, u64> = BTreeMap::new();
    for link in links {
        let most = longest.entry(link.ends.len()).or_default();
        *most = link.rtt_ns.unwrap_or(0).max(*most);
    }
    let is_far = |link: &&Link<'a>| {
        let ends = link.ends.len();
        let good_ns = good.get(&ends).map_or(0, |worth| u64::MAX - worth);
        let longest_ns = longest.get(&ends).copied().unwrap_or(0);
        let is_long = longest_ns >= MIN_RTT_NS && longest_ns / BAD_RTT >= good_ns;
        is_long && link.rtt_ns.is_some_and(|rtt_ns| rtt_ns >= longest_ns / OF_LONGEST)
    };
    links.iter().filter(is_far).map(|link| link.name).collect()
}

fn delivered(link: &Link<'_>) -> String {
    link.rate.map_or_else(String::new, bit_rate)
}

/// Bytes a second, in the unit in which links are sold.
fn bit_rate(bytes: u64) -> String {
    let megabits = bytes as f64 * 8e-6;
    if megabits < 1000.0 {
        format!("{megabits:.0} Mbit/s")
    } else {
        format!("{:.1} Gbit/s", megabits / 1000.0)
    }
}

fn round_trip(link: &Link<'_>) -> String {
    link.rtt_ns.map_or_else(String::new, |rtt_ns| format!("a round trip of {}", duration(rtt_ns)))
}

/// Takes the bad links from the others. A rank is to blame where at least two of them end at it, none elsewhere, and there
/// is a good one that does not: else the network is bad, or one cable of it.
fn apart<'a>(
    links: Vec<Link<'a>>,
    is_bad: impl Fn(&Link<'a>) -> bool,
    what: &'static str,
    amount: impl Fn(&Link<'a>) -> f64,
    text: impl Fn(&Link<'a>) -> String,
) -> Bad<'a> {
    let all: f64 = links.iter().map(&amount).sum();
    let (mut bad, good): (Vec<Link<'a>>, Vec<Link<'a>>) = links.into_iter().partition(is_bad);
    bad.sort_by(|a, b| amount(b).total_cmp(&amount(a)).then_with(|| a.name.cmp(b.name)));
    let common =
        bad.iter().map(|link| link.ends.clone()).reduce(|a, b| a.intersection(&b).copied().collect());
    let culprit =
        common.filter(|ends| ends.len() == 1 && bad.len() > 1).and_then(|ends| ends.first().copied());
    let culprit = culprit.filter(|rank| good.iter().any(|link| !link.ends.contains(rank)));
    let confidence = bad.iter().map(&amount).sum::<f64>() / all.max(f64::MIN_POSITIVE);
    let worst = good.iter().max_by(|a, b| amount(a).total_cmp(&amount(b)));
    let others = worst.map(text).unwrap_or_default();
    Bad { links: bad, what, culprit, confidence, others }
}

/// What the transfers of ranks on CPUs took beyond their best, and which links were bad meanwhile. Without a bad link that
/// is no problem of the network: the ranks may have waited for CPUs.
pub(super) fn between_ranks<S: ReadAt>(
    capture: &Capture<S>,
    arrivals: &Arrivals,
    ledgers: &[CpuLedger],
    ids: &[String],
) -> Option<Finding> {
    let sum = |of: fn(&Arrival) -> u64| {
        arrivals.ranks.iter().fold(0u64, |sum, arrival| sum.saturating_add(of(arrival)))
    };
    let (moved, slow, held) = (sum(|a| a.moved_ns), sum(|a| a.slow_ns), sum(|a| a.held_ns));
    let of_ranks = arrivals.ranks.iter().filter_map(|arrival| ledgers.get(arrival.ledger));
    let wall = of_ranks.fold(0u64, |sum, ledger| sum.saturating_add(ledger.wall_ns));
    let bad = bad(links_of(capture, arrivals, ledgers));
    let rule = rule("communication-slow");
    let share = |ns: u64| if wall == 0 { 0.0 } else { ns as f64 / wall as f64 };
    let beyond = slow.saturating_add(held).min(wall);
    // A link that is bad all of the time leaves no good transfer to compare with.
    let all = moved.saturating_add(held).min(wall);
    let is_all = rule.severity(share(beyond)).is_none() && bad.is_some();
    let ns = if is_all { all } else { beyond };
    let severity = rule.severity(share(ns))?;
    let severity = if bad.is_some() { severity } else { Severity::Notice };
    let name = short_name(capture.tables().string(arrivals.name), 40);
    let culprit = bad.as_ref().and_then(|bad| Some((bad.culprit?, ids.get(bad.culprit?)?)));
    let took = if is_all {
        format!("transfers in {name} took {} of the ranks' time", percent(ns, wall))
    } else {
        format!("transfers in {name} took {} of the ranks' time longer than at their best", percent(ns, wall))
    };
    let summary = match (&bad, culprit) {
        (Some(bad), Some((_, id))) => format!("{took}: connections of {id} {}", bad.what),
        (Some(bad), None) if bad.links.iter().all(|link| link.ends.len() > 1) => {
            format!("{took}: connections between ranks {}", bad.what)
        }
        (Some(bad), None) => format!("{took}: connections of ranks {}", bad.what),
        (None, _) => format!("{took}; no connection stands out"),
    };
    let mut evidence =
        format!("after the last rank had come {}, {} beyond the best", duration(moved), duration(slow));
    if held > 0 {
        evidence.push_str(&format!("; ranks waited {} for one that was in another call", duration(held)));
    }
    for link in bad.iter().flat_map(|bad| &bad.links).take(MAX_NAMED) {
        evidence.push_str(&format!("; {}", resent(link.name, &link.of)));
        evidence.extend(link.rtt_ns.map(|_| format!(", {}", round_trip(link))));
        evidence.extend(link.rate.map(|rate| format!(", {} delivered", bit_rate(rate))));
    }
    if let Some(bad) = bad.as_ref().filter(|bad| !bad.others.is_empty()) {
        evidence.push_str(&format!("; of the others the worst has {}", bad.others));
    }
    let first = arrivals.ranks.iter().max_by_key(|arrival| arrival.slow_ns).map(|arrival| arrival.ledger)?;
    let id = ids.get(culprit.map_or(first, |(at, _)| at))?;
    let mut found = Found { id, wall, device: None, out: Vec::new() };
    found.push("communication-slow", "slow transfers", severity, ns, (summary, evidence));
    let mut finding = found.out.pop()?;
    if let Some(((at, _), bad)) = culprit.zip(bad.as_ref()) {
        finding.blame.culprit_ranks =
            rank_of(ledgers.get(at)?.device, capture.tables()).into_iter().collect();
        finding.blame.confidence = Some(bad.confidence);
    }
    Some(finding)
}
