"""Ranks on CPUs that work, and meet in an all-reduce; one of them does itself harm before it.

argv: seconds, the late rank, KIND, dose in ms, file that is created once all have begun, file for what each dose took.
Kinds: none, late (sleeps), busy (computes), lock (another thread sleeps with it), late-root (sleeps, and then sends the
others something).
"""

import sys
import threading
import time

import numpy as np
from mpi4py import MPI

WORK_S = 0.005


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def lock(seconds):
    held, mine = threading.Event(), threading.Lock()

    def holder():
        with mine:
            held.set()
            time.sleep(seconds)

    threading.Thread(target=holder).start()
    held.wait()
    with mine:
        pass


HARMS = {"late": time.sleep, "busy": compute, "lock": lock, "late-root": time.sleep}


def main():
    seconds, culprit, kind, dose_ms = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    comm = MPI.COMM_WORLD
    mine, sums = np.ones(1 << 14), np.zeros(1 << 14)
    harm = HARMS.get(kind) if comm.rank == culprit else None
    doses = open(sys.argv[6], "w") if harm else None
    begin, step = time.monotonic(), 0
    while comm.bcast(time.monotonic() - begin < seconds, root=0):
        # Work that needs no CPU: more ranks than CPUs would wait for those.
        time.sleep(WORK_S)
        if harm:
            from_ns = time.time_ns()
            harm(dose_ms / 1000)
            doses.write(f"{from_ns} {time.time_ns()}\n")
            doses.flush()
        if kind == "late-root":
            comm.Bcast(mine, root=culprit)
        comm.Allreduce(mine, sums, op=MPI.SUM)
        step += 1
        if step == 5 and comm.rank == 0:
            open(sys.argv[5], "w").close()


main()
