"""A small data-parallel training job: each rank loads its shard in a thread, computes, and all-reduces its gradients.

argv: folder with shard-0000, shard-0001 … (one a rank), seconds to run, file to create once all ranks have begun.
"""

import os
import queue
import sys
import threading
import time

import numpy as np
from mpi4py import MPI

BATCH_BYTES = 64 * 1024


def read_shard(file, at):
    return os.pread(file, BATCH_BYTES, at)


def load_batch(file, step, size):
    data = read_shard(file, step * BATCH_BYTES % size)
    return np.frombuffer(data, dtype=np.uint8).astype(np.float32)


class Loader(threading.Thread):
    """Reads ahead by two batches, as data loaders do."""

    def __init__(self, path):
        super().__init__(name="loader", daemon=True)
        self.file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.file).st_size
        self.batches = queue.Queue(maxsize=2)

    def run(self):
        step = 0
        while True:
            self.batches.put(load_batch(self.file, step, self.size))
            step += 1


def forward_backward(batch, weights):
    x = batch.reshape(256, 256)
    for _ in range(4):
        x = np.tanh(x @ weights)
    return x


def train(comm, folder, seconds, ready):
    loader = Loader(f"{folder}/shard-{comm.rank:04}")
    loader.start()
    weights = np.full((256, 256), 0.01, dtype=np.float32)
    gradients = np.empty_like(weights)
    begin = time.monotonic()
    steps = 0
    while True:
        batch = loader.batches.get()
        local = forward_backward(batch, weights)
        comm.Allreduce(local, gradients, op=MPI.SUM)
        weights += 1e-6 * gradients
        steps += 1
        if steps == 5 and comm.rank == 0:
            open(ready, "w").close()
        if comm.bcast(time.monotonic() - begin > seconds, root=0):
            return steps


def main():
    folder, seconds, ready = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    steps = train(MPI.COMM_WORLD, folder, seconds, ready)
    if MPI.COMM_WORLD.rank == 0:
        print(f"{steps} steps", flush=True)


main()
