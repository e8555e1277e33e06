"""A trainer that takes batches from two worker processes, which read files. argv: counter file, folder for data."""

import multiprocessing
import os
import sys
import zlib

from counter import Counter

FILES, BYTES = 64, 64 * 1024


def read_sample(folder, i):
    with open(f"{folder}/{i % FILES}.bin", "rb") as file:
        return file.read()


def collate(folder, i):
    return [zlib.crc32(read_sample(folder, i + k)) for k in range(4)]


def worker(folder, wanted, batches):
    while True:
        i = wanted.get()
        batches.put((i, collate(folder, i)))


def train_step(batch):
    total = 0
    for _ in range(300):
        for value in batch[1]:
            total = (total * 31 + value) & 0xFFFFFFFF
    return total


def main():
    counter, folder = Counter(sys.argv[1]), sys.argv[2]
    for i in range(FILES):
        with open(f"{folder}/{i}.bin", "wb") as file:
            file.write(os.urandom(BYTES))
    wanted, batches = multiprocessing.Queue(), multiprocessing.Queue()
    for _ in range(2):
        multiprocessing.Process(target=worker, args=(folder, wanted, batches), daemon=True).start()
    for i in range(16):
        wanted.put(i)
    i = 16
    while True:
        train_step(batches.get())
        wanted.put(i)
        i += 1
        counter.add()


main()
