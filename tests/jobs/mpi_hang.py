"""Ranks on CPUs that meet in an all-reduce; one of them stops coming once a file is there.

argv: folder, the rank that stops, how: stop (SIGSTOP to itself), sleep, abroad (waits in a receive that nobody sends to).
Creates ready-RANK files that hold the ranks' pids; goes on when the rank does; ends when the file `leave` is there.
"""

import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI

WORK_S = 0.005


def abroad():
    MPI.COMM_WORLD.Recv(np.zeros(1), source=MPI.ANY_SOURCE, tag=7)


HOW = {
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(600),
    "abroad": abroad,
}


def main():
    folder, culprit, how = sys.argv[1], int(sys.argv[2]), HOW[sys.argv[3]]
    comm = MPI.COMM_WORLD
    mine, sums = np.ones(1 << 10), np.zeros(1 << 10)
    hang, leave = os.path.join(folder, "hang"), os.path.join(folder, "leave")
    step = 0
    while comm.bcast(not os.path.exists(leave), root=0):
        # Work that needs no CPU: more ranks than CPUs would wait for those.
        time.sleep(WORK_S)
        if comm.rank == culprit and os.path.exists(hang):
            os.remove(hang)
            how()
        comm.Allreduce(mine, sums, op=MPI.SUM)
        step += 1
        if step == 5:
            partial = os.path.join(folder, f"pid-{comm.rank}")
            with open(partial, "w") as file:
                file.write(str(os.getpid()))
            os.rename(partial, os.path.join(folder, f"ready-{comm.rank}"))


main()
