"""A profiler inside the job, as Kineto is one: it uses CUPTI by its public functions, in the order that Kineto does.

`Profiler.start` raises if another holds CUPTI's subscriber, `stop` returns how many records of each kind it got. Buffers
that are not its own it leaves out, as Kineto does; `foreign` is what was in them.
"""

import ctypes
from ctypes import POINTER, byref, c_size_t, c_ubyte, c_uint32, c_void_p

from gpu_cuda import Checked, load

KERNEL, COPY, SET, DRIVER, RUNTIME, SYNCHRONIZATION = 10, 1, 2, 4, 5, 38
KINDS = (COPY, SET, RUNTIME, DRIVER, KERNEL, SYNCHRONIZATION)
BUFFER_BYTES = 1 << 20
ALIGNMENT = 8

REQUESTED = ctypes.CFUNCTYPE(None, POINTER(c_void_p), POINTER(c_size_t), POINTER(c_size_t))
COMPLETED = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p, c_size_t, c_size_t)
CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_uint32, c_void_p)


class Profiler:
    def __init__(self, subscribes=True):
        self.subscribes = subscribes
        # By the names that programs are linked with: under these a library that is there already is found, whoever brought
        # it. A second one beside it would be another matter (docs/gpu/OPEN.md).
        names = ("libcupti.so.13", "libcupti.so.12", "libcupti.so.11.8", "libcupti.so")
        self.library = load(*names)
        self.cupti = Checked(self.library)
        self.buffers, self.counts, self.foreign = {}, {}, {}
        # Kept: CUPTI calls them for as long as the process lives.
        self.requested = REQUESTED(self.on_requested)
        self.completed = COMPLETED(self.on_completed)
        self.callback = CALLBACK(lambda *_: None)

    def on_requested(self, buffer, size, most):
        memory = (c_ubyte * (BUFFER_BYTES + ALIGNMENT))()
        address = -(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT
        self.buffers[address] = memory
        buffer[0], size[0], most[0] = address, BUFFER_BYTES, 0

    def on_completed(self, _context, _stream, buffer, _size, valid):
        own = self.buffers.pop(buffer, None)
        counts = self.foreign if own is None else self.counts
        record = c_void_p()
        while self.library.cuptiActivityGetNextRecord(c_void_p(buffer), c_size_t(valid), byref(record)) == 0:
            kind = c_uint32.from_address(record.value).value
            counts[kind] = counts.get(kind, 0) + 1

    def start(self):
        self.counts, self.foreign = {}, {}
        self.subscriber = c_void_p()
        if self.subscribes:
            self.cupti.cuptiSubscribe(byref(self.subscriber), self.callback, None)
        self.cupti.cuptiActivityRegisterCallbacks(self.requested, self.completed)
        for kind in KINDS:
            self.cupti.cuptiActivityEnable(kind)

    def stop(self):
        for kind in KINDS:
            self.cupti.cuptiActivityDisable(kind)
        self.cupti.cuptiActivityFlushAll(1)
        if self.subscribes:
            self.cupti.cuptiUnsubscribe(self.subscriber)
        return dict(sorted(self.counts.items()))
