"""Ranks on CPUs that work and meet in an all-reduce, again and again; none of them does harm.

argv: seconds, elements of float64 in an all-reduce, file that is created once all have begun, file for when each step
of rank 0 began and ended (Unix ns).
"""

import sys
import time

import numpy as np
from mpi4py import MPI

WORK_S = 0.005


def main():
    seconds, elements, ready, steps = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    comm = MPI.COMM_WORLD
    mine, sums = np.ones(elements), np.zeros(elements)
    log = open(steps, "w") if comm.rank == 0 else None
    begin, step = time.monotonic(), 0
    while comm.bcast(time.monotonic() - begin < seconds, root=0):
        from_ns = time.time_ns()
        # Work that needs no CPU: more ranks than CPUs would wait for those.
        time.sleep(WORK_S)
        comm.Allreduce(mine, sums, op=MPI.SUM)
        if log:
            log.write(f"{from_ns} {time.time_ns()}\n")
            log.flush()
        step += 1
        if step == 5 and log:
            open(ready, "w").close()


main()
