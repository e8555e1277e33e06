"""A count that another process can read while this one runs: 8 bytes of a mapped file."""

import mmap
import os


class Counter:
    def __init__(self, path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(file, 8)
        self.value = memoryview(mmap.mmap(file, 8)).cast("q")

    def add(self, n=1):
        self.value[0] += n
