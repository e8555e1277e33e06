#!/usr/bin/env python3
"""Reads a pprof profile with `go tool pprof` and compares what it says with what is expected.

    check_pprof.py profile.pb.gz --types gpu,gpu-idle --total gpu=541106145 --samples 155 \
        --frame "gpu:aten::mm=1200" --duration 300000000

--total   sum of the values of a sample type, ns
--frame   flat time of a function (time with it innermost) in a sample type, ns
Everything given must hold. Exit status: 0 all hold, 1 something does not, 77 there is no `go tool pprof`.

Needs Go's pprof, for example: apt-get install -y --no-install-recommends golang-go
"""

import argparse
import re
import shutil
import subprocess
import sys

SKIPPED = 77


def pprof(*arguments):
    done = subprocess.run(["go", "tool", "pprof", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"go tool pprof {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


class Profile:
    """What `pprof -raw` prints, as tables."""

    def __init__(self, text):
        self.types, self.default = [], None
        self.samples, self.locations = [], {}
        self.duration_ns = 0
        section = "head"
        for line in text.splitlines():
            if line in ("Samples:", "Locations", "Mappings"):
                section = line.rstrip(":")
            elif section == "head" and line.startswith("Duration:"):
                self.duration_ns = duration_ns(line.split(":", 1)[1].strip())
            elif section == "Samples" and not self.types:
                for name in line.split():
                    kind, unit = re.fullmatch(r"(.*?)/(\w+)(?:\[dflt\])?", name).groups()
                    if unit != "nanoseconds":
                        sys.exit(f"sample type {kind} is in {unit}")
                    self.types.append(kind)
                    if name.endswith("[dflt]"):
                        self.default = kind
            elif section == "Samples":
                values, stack = line.split(":", 1)
                self.samples.append(([int(v) for v in values.split()], [int(i) for i in stack.split()]))
            elif section == "Locations" and line.strip():
                # "     3: 0x0 M=1 some name :0 s=0", and after the file's name a column in newer versions.
                found = re.fullmatch(r"\s*(\d+): 0x[0-9a-f]+ (?:M=\d+ )?(.*?) :\d+(?::\d+)? s=\d+(?:\([^)]*\))?", line)
                if found is None:
                    sys.exit(f"a location that cannot be read: {line!r}")
                self.locations[int(found[1])] = found[2]

    def total(self, kind):
        at = self.types.index(kind)
        return sum(values[at] for values, _ in self.samples)

    def flat(self, kind, name):
        at = self.types.index(kind)
        return sum(v[at] for v, stack in self.samples if stack and self.locations[stack[0]] == name)


def duration_ns(text):
    """pprof prints four significant digits: 300m, 1.5, 2h."""
    units = {"n": 1, "u": 1e3, "µ": 1e3, "m": 1e6, "": 1e9}
    number, unit = re.match(r"([0-9.e+]+)\s*(n|u|µ|m|)", text).groups()
    return float(number) * units[unit]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("--types", help="sample types in order, the default first")
    parser.add_argument("--samples", type=int, help="number of stacks")
    parser.add_argument("--duration", type=int, metavar="NS")
    parser.add_argument("--total", action="append", default=[], metavar="TYPE=NS")
    parser.add_argument("--frame", action="append", default=[], metavar="TYPE:NAME=NS")
    expected = parser.parse_args()
    if shutil.which("go") is None:
        print("skipped: there is no go tool pprof")
        return SKIPPED

    profile = Profile(pprof("-raw", expected.profile))
    # That it also draws: this resolves every location and function.
    for kind in profile.types:
        pprof("-top", f"-sample_index={kind}", expected.profile)

    failed = []

    def check(what, found, wanted):
        print(f"{what}: {found}")
        if found != wanted:
            failed.append(f"{what}: {found}, expected {wanted}")

    if expected.types is not None:
        check("sample types", ",".join(profile.types), expected.types)
        check("default sample type", profile.default, expected.types.split(",")[0])
    if expected.samples is not None:
        check("samples", len(profile.samples), expected.samples)
    else:
        print(f"samples: {len(profile.samples)}, types {profile.types}, functions {len(profile.locations)}")
    if expected.duration is not None and abs(profile.duration_ns - expected.duration) > 0.001 * expected.duration:
        failed.append(f"duration: {profile.duration_ns}, expected {expected.duration}")
    for total in expected.total:
        kind, ns = total.rsplit("=", 1)
        check(f"total {kind}", profile.total(kind), int(ns))
    for frame in expected.frame:
        kind, rest = frame.split(":", 1)
        name, ns = rest.rsplit("=", 1)
        check(f"flat {kind} of {name}", profile.flat(kind, name), int(ns))
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
