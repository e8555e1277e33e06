#!/usr/bin/env python3
"""Reads a Perfetto trace with Perfetto's own message definitions, by the rules of its trace processor.

    check_perfetto.py run.pftrace --slices 31889 --category kernel=4010:512345678 \
        --track "stream 7=2000" --flows 5268

Always checked: packets parse without unknown fields; tracks are described before use and once; names are interned before
use; sorted by time (equal times in the order of the file) every end closes a slice of its track and every slice ends; a
thread's process is described; every flow that reaches a device begins at a call or leads through several devices.
--category  slices of a category, and the sum of their durations in ns where given
--track     slices on all tracks of that name
--counter   values on all counter tracks of that name
--flows     slices on devices that a call flows to
--meet      devices that the widest collective flows through
Exit status: 0 all hold, 1 something does not, 77 the definitions are not installed.

Needs the Python package perfetto, for example: pip install perfetto==0.59.1 protobuf==7.36.2
"""

import argparse
import collections
import sys

SKIPPED = 77
CLEARED, NEEDS_STATE = 1, 2

Slice = collections.namedtuple("Slice", "track name categories start end depth flows")


class Damaged(Exception):
    """The trace breaks a rule of the format."""


def packets(path):
    """Yields packets one by one: a Trace message is nothing but field 1, repeated."""
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

    with open(path, "rb") as file:
        data = memoryview(file.read())
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Damaged("the trace ends in the middle of a number")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        if varint() != (1 << 3 | 2):
            raise Damaged(f"not a packet at byte {at}")
        length = varint()
        packet = pb.TracePacket.FromString(bytes(data[at : at + length]))
        packet.DiscardUnknownFields()
        if packet.ByteSize() != length:
            raise Damaged(f"a packet at byte {at} has fields that Perfetto does not know, or is cut")
        at += length
        yield packet


class Trace:
    """Tracks and slices, as the trace processor sees them."""

    def __init__(self, path):
        self.tracks, self.processes = {}, {}
        self.slices = []
        self.events = []
        self.counters = collections.Counter()
        names, categories = {}, {}
        began = False
        for packet in packets(path):
            sequence = packet.trusted_packet_sequence_id
            if sequence == 0:
                raise Damaged("a packet without a sequence")
            if packet.sequence_flags & CLEARED:
                names, categories, began = {}, {}, True
            if packet.sequence_flags & NEEDS_STATE and not began:
                raise Damaged("a packet refers to state before there is any")
            names.update((n.iid, n.name) for n in packet.interned_data.event_names)
            categories.update((c.iid, c.name) for c in packet.interned_data.event_categories)
            if packet.HasField("track_descriptor"):
                self.describe(packet.track_descriptor)
            if packet.HasField("track_event"):
                self.event(packet, names, categories)
        self.replay()

    def describe(self, track):
        if track.uuid == 0 or track.uuid in self.tracks:
            raise Damaged(f"track {track.uuid} is described twice")
        if track.HasField("parent_uuid") and track.parent_uuid not in self.tracks:
            raise Damaged(f"track {track.uuid} lies under one that does not exist")
        if track.HasField("process"):
            if track.process.pid in self.processes:
                raise Damaged(f"two processes have pid {track.process.pid}")
            self.processes[track.process.pid] = track.process.process_name
        if track.HasField("thread") and track.thread.pid not in self.processes:
            raise Damaged(f"thread {track.thread.tid} has no process")
        self.tracks[track.uuid] = track

    def event(self, packet, names, categories):
        event = packet.track_event
        if event.track_uuid not in self.tracks:
            raise Damaged(f"an event on track {event.track_uuid}, which does not exist")
        name = None
        if event.type == event.TYPE_SLICE_BEGIN:
            if not packet.sequence_flags & NEEDS_STATE and event.name_iid:
                raise Damaged("a name by number in a packet that needs no state")
            name = event.name or names.get(event.name_iid)
            if not name:
                raise Damaged(f"name {event.name_iid} is used before it is known")
        is_counter = self.tracks[event.track_uuid].HasField("counter")
        if is_counter != (event.type == event.TYPE_COUNTER):
            raise Damaged(f"an event of type {event.type} on track {event.track_uuid} of another kind")
        if is_counter and not (event.HasField("counter_value") or event.HasField("double_counter_value")):
            raise Damaged(f"a counter without a value on track {event.track_uuid}")
        known = [categories[iid] for iid in event.category_iids]
        self.events.append((packet.timestamp, event.track_uuid, event.type, name, known, list(event.flow_ids)))

    def replay(self):
        open_slices = collections.defaultdict(list)
        self.events.sort(key=lambda e: e[0])
        for at, uuid, kind, name, categories, flows in self.events:
            stack = open_slices[uuid]
            if kind == 1:
                stack.append((name, categories, at, flows))
            elif kind == 2:
                if not stack:
                    raise Damaged(f"an end without a begin on track {uuid} at {at}")
                name, categories, start, flows = stack.pop()
                self.slices.append(Slice(uuid, name, categories, start, at, len(stack), flows))
            elif kind == 4:
                self.counters[self.name(uuid)] += 1
            else:
                raise Damaged(f"an event of type {kind}")
        if any(open_slices.values()):
            raise Damaged("a slice never ends")

    def name(self, uuid):
        track = self.tracks[uuid]
        return track.name or track.thread.thread_name or track.process.process_name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--slices", type=int)
    parser.add_argument("--flows", type=int)
    parser.add_argument("--meet", type=int)
    parser.add_argument("--category", action="append", default=[], metavar="NAME=COUNT[:NS]")
    parser.add_argument("--track", action="append", default=[], metavar="NAME=COUNT")
    parser.add_argument("--counter", action="append", default=[], metavar="NAME=COUNT")
    expected = parser.parse_args()
    try:
        import perfetto.protos.perfetto.trace.perfetto_trace_pb2  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}")
        return SKIPPED
    try:
        trace = Trace(expected.trace)
    except Damaged as error:
        print(f"FAILED {error}", file=sys.stderr)
        return 1

    failed = []

    def check(what, found, wanted):
        print(f"{what}: {found}")
        if wanted is not None and found != wanted:
            failed.append(f"{what}: {found}, expected {wanted}")

    check("slices", len(trace.slices), expected.slices)
    by_category, time_of = collections.Counter(), collections.Counter()
    for s in trace.slices:
        for category in s.categories:
            by_category[category] += 1
            time_of[category] += s.end - s.start
    calls = {flow for s in trace.slices if "launch" in s.categories for flow in s.flows}
    reached, met = 0, collections.defaultdict(set)
    for s in trace.slices:
        if "launch" not in s.categories:
            reached += sum(flow in calls for flow in s.flows)
            for flow in s.flows:
                if flow not in calls:
                    met[flow].add(s.track)
    loose = sum(len(tracks) < 2 for tracks in met.values())
    if loose:
        failed.append(f"{loose} operations flow from a call that is not there")
    check("flows", reached, expected.flows)
    check("meet", max(map(len, met.values()), default=0), expected.meet)
    for item in expected.category:
        name, wanted = item.rsplit("=", 1)
        count, _, ns = wanted.partition(":")
        check(f"category {name}", by_category[name], int(count))
        if ns:
            check(f"time of category {name}", time_of[name], int(ns))
    on_track = collections.Counter(trace.name(s.track) for s in trace.slices)
    for item in expected.track:
        name, count = item.rsplit("=", 1)
        check(f"track {name}", on_track[name], int(count))
    for item in expected.counter:
        name, count = item.rsplit("=", 1)
        check(f"counter {name}", trace.counters[name], int(count))
    print(f"categories: {dict(by_category)}")
    print(f"processes: {sorted(trace.processes.values())}")
    print(f"deepest: {max((s.depth for s in trace.slices), default=0)}; tracks: {len(on_track)}")
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
