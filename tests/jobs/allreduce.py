"""All-reduces on command, so that a recorder can be attached first and every call counted.

argv: folder for signs, number of calls, elements of float64 a call, then optionally seconds to go on afterwards.
Rank 0 creates `ready`, waits for `go`; every rank makes the calls and prints when the first began and the last ended
(CLOCK_MONOTONIC, ns); rank 0 creates `done` and waits for `leave`.
"""

import os
import sys
import time

import numpy as np
from mpi4py import MPI


def wait_for(comm, path):
    while not comm.bcast(os.path.exists(path), root=0):
        time.sleep(0.01)


def main():
    folder, calls, elements = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    comm = MPI.COMM_WORLD
    mine, sums = np.ones(elements), np.zeros(elements)
    comm.Barrier()
    if comm.rank == 0:
        open(f"{folder}/ready", "w").close()
    wait_for(comm, f"{folder}/go")
    begin = time.monotonic_ns()
    for _ in range(calls):
        comm.Allreduce(mine, sums, op=MPI.SUM)
    end = time.monotonic_ns()
    print(f"rank {comm.rank} {begin} {end}", flush=True)
    comm.Barrier()
    if comm.rank == 0:
        open(f"{folder}/done", "w").close()
    wait_for(comm, f"{folder}/leave")


main()
