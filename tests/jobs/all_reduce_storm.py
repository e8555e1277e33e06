"""Small all-reduces without end: ranks that outnumber the CPUs yield to each other. argv: counter file."""

import sys

import numpy as np
from mpi4py import MPI

from counter import Counter

comm = MPI.COMM_WORLD
counter = Counter(sys.argv[1]) if comm.rank == 0 else None
mine, sums = np.ones(8), np.zeros(8)
while True:
    for _ in range(20):
        comm.Allreduce(mine, sums, op=MPI.SUM)
    if counter:
        counter.add(20)
