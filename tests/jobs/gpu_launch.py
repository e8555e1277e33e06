"""Starts the ranks of a job on this machine: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun does.

    gpu_launch.py RANKS COMMAND...

Ends with the first rank that fails, and takes the others along; their process ids are printed at start. With
GPU_LAUNCH_DIES_WITH_PARENT it also ends, with all ranks, when whoever started it is gone; with GPU_LAUNCH_NICE they
have that niceness, each in a session of its own: the kernel shares CPUs among sessions first. They also have slices so
short that they take the CPU as soon as they are woken.
"""

import ctypes
import os
import platform
import signal
import socket
import struct
import subprocess
import sys


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def take_short_slices(nice, slice_ns=100_000):
    """Linux 6.12 and later; those before take no notice of the slice."""
    set_attributes = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if set_attributes:
        attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, slice_ns, 0, 0)
        ctypes.CDLL(None).syscall(set_attributes, 0, attributes, 0)


def prepare(nice):
    die_with_parent()
    if nice:
        os.setsid()
        os.nice(int(nice))
        take_short_slices(int(nice))
        if os.path.exists("/proc/self/autogroup"):
            with open("/proc/self/autogroup", "w") as file:
                file.write(nice)


def main():
    if os.environ.get("GPU_LAUNCH_DIES_WITH_PARENT"):
        die_with_parent()
    nice = os.environ.get("GPU_LAUNCH_NICE")
    world, command = int(sys.argv[1]), sys.argv[2:]
    shared = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = []
    for rank in range(world):
        env = os.environ | {k: str(v) for k, v in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        ranks.append(subprocess.Popen(command, env=env, preexec_fn=lambda: prepare(nice)))
    print("pids", *(r.pid for r in ranks), flush=True)

    def stop(*_):
        for rank in ranks:
            rank.poll() is None and rank.terminate()

    signal.signal(signal.SIGTERM, stop)
    worst = 0
    while any(r.returncode is None for r in ranks):
        pid, status = os.wait()
        for rank in (r for r in ranks if r.pid == pid):
            rank.returncode = os.waitstatus_to_exitcode(status)
            if rank.returncode:
                worst = worst or abs(rank.returncode)
                stop()
    sys.exit(worst)


main()
