"""A PyTorch loop that obeys its standard input, for `cargo xtask gpu`. One line of JSON answers each command.

    gpu_torch.py --page FILE [--graphs] [--model tiny|transformer] [--device cuda|cpu]

    profile N FILE   N iterations under torch.profiler; its trace goes to FILE; says how many kernels are in it
    times N          N iterations, each between two CUDA events
    memory           of this process and of the device
    quit

Between commands it iterates without pause. The page holds eight numbers of 8 bytes: 0 is the iterations made.
"""

import argparse
import json
import mmap
import os
import select
import statistics
import sys
import time

import torch

TINY_KERNELS = 64
"""Kernels of an iteration of the tiny model: each is one launch of one elementwise addition."""
PAGE_BYTES = 64


def transformer(device):
    model = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True), 6
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **({"capturable": True} if device == "cuda" else {}))
    batch = torch.randn(16, 128, 512, device=device)

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()

    return step


def tiny(device):
    values = torch.zeros(1024, device=device)

    def step():
        for _ in range(TINY_KERNELS):
            values.add_(1.0)

    return step


class Loop:
    def __init__(self, args):
        self.device = args.device
        self.step = {"tiny": tiny, "transformer": transformer}[args.model](args.device)
        self.kernels = TINY_KERNELS if args.model == "tiny" else None
        for _ in range(3):
            self.step()
        self.wait()
        if args.graphs:
            self.capture()

    def capture(self):
        """From now on an iteration is one launch of a graph."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self.step = graph.replay

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def profile(self, iterations, path):
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.wait()
        begin = time.monotonic()
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(iterations):
                self.step()
            self.wait()
        took = time.monotonic() - begin
        profiler.export_chrome_trace(path)
        with open(path) as file:
            trace = json.load(file)
        # Without Kineto (a PyTorch without CUDA) the file is the list itself.
        events = trace["traceEvents"] if isinstance(trace, dict) else trace
        durations, kinds = {}, {}
        for event in events:
            kind = event.get("cat", "none")
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "kernel":
                durations.setdefault(event["name"], []).append(event["dur"])
        return {
            "iterations": iterations,
            "expected": self.kernels and self.kernels * iterations,
            "kernels": sum(map(len, durations.values())),
            "names": {name: [len(d), statistics.median(d)] for name, d in durations.items()},
            "kinds": kinds,
            "seconds": took,
            "trace_bytes": os.path.getsize(path),
        }

    def times(self, iterations):
        if self.device != "cuda":
            return {"error": "CUDA events need CUDA"}
        events = [torch.cuda.Event(enable_timing=True) for _ in range(iterations + 1)]
        events[0].record()
        for event in events[1:]:
            self.step()
            event.record()
        self.wait()
        took = [a.elapsed_time(b) * 1000 for a, b in zip(events, events[1:])]
        return {"iterations": iterations, "median_us": statistics.median(took), "min_us": min(took), "max_us": max(took)}

    def memory(self):
        with open("/proc/self/status") as file:
            rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        answer = {"rss_kib": rss}
        if self.device == "cuda":
            answer["free_bytes"], answer["total_bytes"] = torch.cuda.mem_get_info()
            answer["torch_bytes"] = torch.cuda.memory_reserved()
        return answer

    def obey(self, line):
        command, *rest = line.split()
        if command == "profile":
            return self.profile(int(rest[0]), rest[1])
        if command == "times":
            return self.times(int(rest[0]))
        if command == "memory":
            return self.memory()
        return {"error": f"no command {command}"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", required=True)
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--model", default="tiny", choices=("tiny", "transformer"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    args = parser.parse_args()
    file = os.open(args.page, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(file, PAGE_BYTES)
    page = memoryview(mmap.mmap(file, PAGE_BYTES)).cast("q")
    loop = Loop(args)
    print(json.dumps({"ready": True, "kernels": loop.kernels}), flush=True)
    waiting = b""
    while True:
        # Read past Python's buffer: a line that lies there would not show in select.
        if select.select([0], [], [], 0)[0]:
            got = os.read(0, 4096)
            if not got:
                return
            waiting += got
        while b"\n" in waiting:
            line, waiting = waiting.split(b"\n", 1)
            if line.strip() == b"quit":
                return
            try:
                answer = loop.obey(line.decode())
            except Exception as error:  # noqa: BLE001: whoever asked is told, and the loop goes on
                answer = {"error": repr(error)[:500]}
            print(json.dumps(answer), flush=True)
        loop.step()
        loop.wait()
        page[0] += 1


if __name__ == "__main__":
    sys.exit(main())
