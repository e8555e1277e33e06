"""A trainer on CUDA and NCCL: loader, copies, forward, backward with all-reduces beside it, optimiser, sync.

Start one a rank (gpu_launch.py). It runs on stand-ins for NVIDIA's libraries where those are in LD_LIBRARY_PATH.
`--fault KIND@RANK` makes one rank do itself harm, `--dose-ms` at a time, every `--every` steps, from the moment on at which the
file `--once` is there; of several, between commas, each in its turn. What it really took is appended to STALLSCOPE_DOUBLE_TRUTH. Kinds: see HARMS and SETTINGS, and slow-read,
slow-worker, more-work, tiny-kernels, sync-loop.
"""

import argparse
import ctypes
import json
import mmap
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

RANK = int(os.environ.get("RANK", 0))
WORLD = int(os.environ.get("WORLD_SIZE", 1))
BATCH_BYTES = 1 << 20


class Truth:
    """Appends lines to the truth log, each in one write."""

    def __init__(self):
        path = os.environ.get("STALLSCOPE_DOUBLE_TRUTH")
        self.file = path and os.open(path.replace("%p", str(os.getpid())), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def line(self, **fields):
        if self.file:
            os.write(self.file, (json.dumps({"pid": os.getpid(), "rank": RANK, **fields}) + "\n").encode())

    def dose(self, what, step, begin_ns, end_ns, **parts):
        """The parts, where they are known: own_ns, queued_ns."""
        thread, parts = threading.get_native_id(), {name: ns for name, ns in parts.items() if ns is not None}
        self.line(t="dose", thread=thread, step=step, what=what, begin_ns=begin_ns, end_ns=end_ns, **parts)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seconds", type=float, help="as long as this instead")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--forward-us", type=float, default=500)
    parser.add_argument("--backward-us", type=float, default=1000)
    parser.add_argument("--optimizer-us", type=float, default=300)
    parser.add_argument("--bucket-mib", type=float, default=16)
    parser.add_argument("--sync-every", type=int, default=1)
    parser.add_argument("--load-ms", type=float, default=1, help="what a batch costs a loader's worker")
    parser.add_argument("--data", help="folder whose files the loader reads; %%r is the rank")
    parser.add_argument("--chain", action="store_true", help="each rank meets the one before it and the one after it, and no other")
    parser.add_argument("--buffers", action="store_true", help="rank 0 sends what it normalises by at the begin of each step")
    parser.add_argument("--fault", default="none@0", help="KIND@RANK[,KIND@RANK...]")
    parser.add_argument("--fetch-from", default="127.0.0.1:9", help="HOST:PORT that the fault fetch asks and waits for")
    parser.add_argument("--fetch-bytes-a-ms", type=int, default=0, help="of the dose; 0: the peer waits that long")
    parser.add_argument("--dose-ms", type=float, default=10)
    parser.add_argument("--decoy", default="none@0", help="KIND@RANK: the same harm in a thread that nothing waits for")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--once", help="file; as long as it is not there nobody does harm")
    parser.add_argument("--profile", help="FROM:TO, steps in which rank 0 profiles itself, as torch.profiler would")
    parser.add_argument("--profile-file", help="rank 0 profiles itself for so many steps as this file says when it is there")
    parser.add_argument("--counter", help="file of 8 bytes that counts steps of rank 0")
    args = parser.parse_args()
    kind, rank = args.decoy.split("@")
    args.decoy = kind if int(rank) == RANK else "none"
    # Of several faults the k-th has the steps that leave k over.
    faults = [fault.split("@") for fault in args.fault.split(",")]
    mine = [(turn, kind) for turn, (kind, rank) in enumerate(faults) if int(rank) == RANK]
    args.turn, args.fault = mine[0] if mine else (0, "none")
    args.data = args.data and args.data.replace("%r", str(RANK))
    return args


class Once:
    """Whether a file is there, or was."""

    def __init__(self, path):
        self.path, self.is_there = path, path is None

    def __bool__(self):
        self.is_there = self.is_there or os.path.exists(self.path)
        return self.is_there


# The loader: a process that reads files, and for slow-read waits in read() for a late writer.


def storage(pipe, dose_ms):
    """Writes a byte into the pipe so much after each byte that it is sent."""
    wanted, ready = pipe
    while os.read(wanted, 1):
        time.sleep(dose_ms / 1000)
        os.write(ready, b"x")


def worker(args, batches):
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: a loader does not outlive a rank that is killed
    truth, once = Truth(), Once(args.once)
    slow, works = args.fault == "slow-read", args.fault == "slow-worker"
    if slow:
        (wanted, want), (data, ready) = os.pipe(), os.pipe()
        threading.Thread(target=storage, args=((wanted, ready), args.dose_ms), daemon=True).start()
    files = [os.path.join(args.data, name) for name in sorted(os.listdir(args.data))] if args.data else []
    step = 0
    while True:
        time.sleep(args.load_ms / 1000)
        if files:
            with open(files[step % len(files)], "rb") as file:
                file.read(BATCH_BYTES)
        harmed = step % args.every == 0 and once
        if slow and harmed:
            begin = time.monotonic_ns()
            os.write(want, b"x")
            os.read(data, 1)
            truth.dose("slow-read", step, begin, time.monotonic_ns())
        if works and harmed:
            begin = time.monotonic_ns()
            busy(None, args.dose_ms)
            truth.dose("slow-worker", step, begin, time.monotonic_ns())
        batches.put(step)
        step += 1


# Harms of the main thread: each holds its caller for about dose_ms. Those that happen in calls of the driver return how long
# they were in them with a CPU to run on: what goes on between two calls, and waiting for a CPU, is not the driver's.


class Calls:
    def __init__(self):
        self.ns = 0

    def __enter__(self):
        self.queued, self.begin = queued_ns(), time.monotonic_ns()

    def __exit__(self, *_):
        self.ns += time.monotonic_ns() - self.begin - (queued_ns() - self.queued)


def queued_ns():
    """How long the main thread has waited for a CPU, and the threads that it waited for."""
    return int(os.pread(SCHEDSTAT, 64, 0).split()[1]) + Helper.queued_ns


# Of the main thread, which is the one that opens it.
SCHEDSTAT = os.open("/proc/thread-self/schedstat", os.O_RDONLY)


class Helper(threading.Thread):
    """A thread that the main thread waits for."""

    queued_ns = 0

    def run(self):
        super().run()
        self.done()

    @staticmethod
    def done():
        """Before anybody goes on who waited for it."""
        with open("/proc/thread-self/schedstat") as file:
            Helper.queued_ns += int(file.read().split()[1])


def late(_gpu, dose_ms):
    time.sleep(dose_ms / 1000)


def busy(_gpu, dose_ms):
    end = time.monotonic_ns() + dose_ms * 1e6
    while time.monotonic_ns() < end:
        sum(range(1000))


def lock(_gpu, dose_ms):
    """Another thread sleeps with the lock."""
    held, mine = threading.Event(), threading.Lock()

    def holder():
        with mine:
            held.set()
            time.sleep(dose_ms / 1000)
            Helper.done()

    threading.Thread(target=holder).start()
    held.wait()
    with mine:
        pass


def gil(_gpu, dose_ms):
    """Another thread sleeps in C without giving the interpreter away."""
    thread = Helper(target=ctypes.PyDLL(None).usleep, args=(int(dose_ms * 1000),))
    thread.start()
    thread.join()


def gil_busy(_gpu, dose_ms):
    """Another thread computes in C without giving the interpreter away."""
    thread = Helper(target=sum, args=(range(int(dose_ms * NUMBERS_A_MS)),))
    thread.start()
    thread.join()


# What sum() adds up in a millisecond, about; what it really took is written down.
NUMBERS_A_MS = 62_000


def fetch(connection, bytes_a_ms):
    """Asks a peer and waits: it answers after so many milliseconds, or with as much as so many are to take."""

    def ask(_gpu, dose_ms):
        missing = int(dose_ms * bytes_a_ms) or 1
        connection.sendall(b"%d %d\n" % (0 if bytes_a_ms else int(dose_ms * 1000), missing))
        while missing:
            missing -= len(connection.recv(min(missing, 1 << 16))) or sys.exit("the peer is gone")

    return ask


def malloc_storm(gpu, dose_ms):
    calls, end = Calls(), time.monotonic_ns() + dose_ms * 1e6
    while time.monotonic_ns() < end:
        with calls:
            gpu.runtime.cudaFree(gpu.alloc(1 << 20))
    return calls.ns


def sync_copy(gpu, dose_ms):
    """Copies from pageable memory, 6 MB a millisecond on stand-ins."""
    size = int(dose_ms * 6e6)
    host = mmap.mmap(-1, size)  # not touched, so that only the copy takes time
    memory, calls = gpu.alloc(size), Calls()
    with calls:
        gpu.runtime.cudaMemcpy(memory, ctypes.byref(ctypes.c_char.from_buffer(host)), ctypes.c_size_t(size), ctypes.c_int(1))
    gpu.runtime.cudaFree(memory)
    return calls.ns


CHECKPOINT = os.urandom(1 << 16)


def fsync(_gpu, dose_ms):
    with tempfile.TemporaryFile(dir=".") as file:
        end = time.monotonic_ns() + dose_ms * 1e6
        while time.monotonic_ns() < end:
            os.pwrite(file.fileno(), CHECKPOINT, 0)
            os.fsync(file.fileno())


def page_faults(_gpu, dose_ms):
    end = time.monotonic_ns() + dose_ms * 1e6
    while time.monotonic_ns() < end:
        with mmap.mmap(-1, 4 << 20) as memory:
            for offset in range(0, len(memory), 4096):
                memory[offset] = 1


def compile_something(_gpu, dose_ms):
    subprocess.run(["sleep", str(dose_ms / 1000)], check=True)


HARMS = {
    "late": late,
    "busy": busy,
    "lock": lock,
    "gil": gil,
    "gil-busy": gil_busy,
    "malloc-storm": malloc_storm,
    "sync-copy": sync_copy,
    "fsync": fsync,
    "page-faults": page_faults,
    "subprocess": compile_something,
}


# What the stand-ins of a rank are told, by the dose.
SETTINGS = {
    "slow-device": lambda dose: f"gpu.slow={1 + dose / 10}",
    # Its device's clock is off by so many milliseconds, or gains so many microseconds a millisecond.
    "clock-offset": lambda dose: f"cupti.device_skew_ns={int(dose * 1e6)}",
    "clock-drift": lambda dose: f"cupti.device_drift_ppm={int(dose * 1000)}",
    # CUPTI's clock, which the recorder compares with the host's, is fast or jumps.
    "cupti-fast": lambda _: "cupti.clock=fast",
    "cupti-jumpy": lambda _: "cupti.clock=jumpy",
    "clock-step": lambda _: "",
}


def steps_of_a_clock(path, dose_ms):
    """The device's clock steps by the dose, forth and back."""
    skew_ns = 0
    while True:
        with open(path + ".new", "w") as file:
            file.write(f"cupti.device_skew_ns={skew_ns}\n")
        os.rename(path + ".new", path)
        time.sleep(2)
        skew_ns = int(dose_ms * 1e6) - skew_ns


def decoy(args, truth):
    step, once = 0, Once(args.once)
    while not once:
        time.sleep(0.005)
    while True:
        begin = time.monotonic_ns()
        HARMS[args.decoy](None, args.dose_ms)
        truth.dose("decoy", step, begin, time.monotonic_ns())
        time.sleep(0.005)
        step += 1


class Trainer:
    def __init__(self, args):
        from gpu_cuda import Gpu, Ranks

        self.args, self.truth, self.once = args, Truth(), Once(args.once)
        self.gpu = Gpu(int(os.environ.get("LOCAL_RANK", RANK)))
        self.ranks = Ranks(RANK, WORLD, chain=args.chain)
        self.harms = dict(HARMS)
        if args.fault == "fetch":
            host, port = args.fetch_from.split(":")
            self.harms["fetch"] = fetch(socket.create_connection((host, int(port))), args.fetch_bytes_a_ms)
        self.compute, self.communication = self.gpu.stream(), self.gpu.stream()
        self.backward_done, self.reduced = self.gpu.event(), self.gpu.event()
        self.pinned, self.batch = self.gpu.pinned(BATCH_BYTES), self.gpu.alloc(BATCH_BYTES)
        self.count = int(args.bucket_mib * (1 << 20)) // 4
        self.gradients = self.gpu.alloc(self.count * 4)

    def kernel(self, name, microseconds, harmed):
        fault = self.args.fault if harmed else "none"
        if fault == "more-work":
            microseconds += self.args.dose_ms * 1000 / (2 * self.args.layers)
        if fault == "tiny-kernels":
            # A launch costs about 10 us on stand-ins, and a step has two kernels a layer.
            for _ in range(int(self.args.dose_ms * 50 / self.args.layers)):
                self.gpu.launch("elementwise_add", 2, self.compute)
        self.gpu.launch(name, microseconds, self.compute)
        if fault == "sync-loop":
            self.gpu.runtime.cudaStreamSynchronize(self.compute)

    def meet(self, neighbour):
        """Stands between what was launched before and what comes after: a stage hands over what the next one needs."""
        if neighbour:
            self.ranks.all_reduce(self.gradients, self.count, self.compute, neighbour)

    def step(self, step, batches):
        args, gpu = self.args, self.gpu
        begin = time.monotonic_ns()
        batches.get()
        harmed = step % args.every == args.turn % args.every and self.once
        if harmed and args.fault in self.harms:
            queued, harm = queued_ns(), time.monotonic_ns()
            own_ns = self.harms[args.fault](gpu, args.dose_ms)
            end, queued = time.monotonic_ns(), queued_ns() - queued
            self.truth.dose(args.fault, step, harm, end, own_ns=own_ns, queued_ns=queued)
        gpu.copy(self.batch, self.pinned, BATCH_BYTES, 1, self.compute)
        if args.chain:
            self.meet(self.ranks.before)
        if args.buffers:
            self.ranks.broadcast(self.gradients, 1 << 12, 0, self.compute)
        for _ in range(args.layers):
            self.kernel("forward_gemm", args.forward_us, harmed)
        for _ in range(args.layers):
            self.kernel("backward_gemm", args.backward_us, harmed)
            if not args.chain:
                gpu.runtime.cudaEventRecord(self.backward_done, self.compute)
                gpu.runtime.cudaStreamWaitEvent(self.communication, self.backward_done, 0)
                self.ranks.all_reduce(self.gradients, self.count, self.communication)
        if args.chain:
            self.meet(self.ranks.after)
        gpu.runtime.cudaEventRecord(self.reduced, self.communication)
        gpu.runtime.cudaStreamWaitEvent(self.compute, self.reduced, 0)
        self.kernel("optimizer_step", args.optimizer_us, False)
        if step % args.sync_every == 0:
            gpu.runtime.cudaStreamSynchronize(self.compute)
        self.truth.line(t="step", step=step, begin_ns=begin, end_ns=time.monotonic_ns())


class Order:
    """A profile that somebody outside orders: `STEPS [unsubscribed]` in a file, answered in FILE.done."""

    def __init__(self, path):
        self.path, self.profiler, self.last = path, None, None

    def before(self, step):
        if self.profiler or not os.path.exists(self.path):
            return
        from gpu_profiler import Profiler

        with open(self.path) as file:
            steps, *how = file.read().split()
        os.unlink(self.path)
        self.begin_ns = time.monotonic_ns()
        self.profiler, self.last = Profiler(subscribes="unsubscribed" not in how), step + int(steps)
        self.profiler.start()

    def after(self, step):
        if not self.profiler or step < self.last:
            return
        said = {"counts": self.profiler.stop(), "foreign": self.profiler.foreign}
        said |= {"begin_ns": self.begin_ns, "end_ns": time.monotonic_ns()}
        # Kept: CUPTI may call it as long as nobody else has registered.
        self.kept, self.profiler = self.profiler, None
        with open(self.path + ".new", "w") as file:
            json.dump(said, file)
        os.rename(self.path + ".new", self.path + ".done")


def main():
    args = arguments()
    if args.fault in SETTINGS:
        setting = SETTINGS[args.fault](args.dose_ms)
        os.environ["STALLSCOPE_DOUBLE"] = ";".join(filter(None, [os.environ.get("STALLSCOPE_DOUBLE"), setting]))
    if args.fault == "clock-step":
        path = tempfile.mkdtemp() + "/settings"
        os.environ["STALLSCOPE_DOUBLE_FILE"] = path
    # Before CUDA is there: what is forked must not have it.
    batches = multiprocessing.get_context("fork").Queue(maxsize=2)
    loader = multiprocessing.get_context("fork").Process(target=worker, args=(args, batches), daemon=True)
    loader.start()
    trainer = Trainer(args)
    if args.fault == "clock-step":
        threading.Thread(target=steps_of_a_clock, args=(path, args.dose_ms), daemon=True).start()
    if args.decoy != "none":
        threading.Thread(target=decoy, args=(args, trainer.truth), daemon=True).start()
    counter = None
    if args.counter and RANK == 0:
        from counter import Counter

        counter = Counter(args.counter)
    profiler, profiled = None, range(0)
    if args.profile and RANK == 0:
        from gpu_profiler import Profiler

        profiler, profiled = Profiler(), range(*map(int, args.profile.split(":")))
    order = Order(args.profile_file) if args.profile_file and RANK == 0 else None
    begin, step = time.monotonic(), 0
    while time.monotonic() - begin < args.seconds if args.seconds else step < args.steps:
        if profiler and step == profiled.start:
            profiler.start()
        if order:
            order.before(step)
        trainer.step(step, batches)
        step += 1
        if order:
            order.after(step)
        if profiler and step == profiled.stop:
            print("profiler", json.dumps(profiler.stop()), flush=True)
        if counter:
            counter.add()
    trainer.gpu.runtime.cudaDeviceSynchronize()
    print(f"rank {RANK}: {step} steps", flush=True)
    trainer.ranks.close()
    loader.terminate()


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
