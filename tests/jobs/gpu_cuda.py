"""CUDA and NCCL by ctypes, as far as gpu_trainer.py needs them. Works with the real libraries and with stand-ins.

Kernels are of a PTX module: each spins for as many nanoseconds as its parameter says. The stand-ins for tests do not
look into it and take the parameter as the kernel's duration.
"""

import ctypes
import os
import socket
import time
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p

KERNELS = ("forward_gemm", "backward_gemm", "optimizer_step", "elementwise_add")

SPIN = """
.visible .entry %s(.param .u64 duration_ns) {
  .reg .pred %%p; .reg .u64 %%begin, %%now, %%wanted;
  ld.param.u64 %%wanted, [duration_ns];
  mov.u64 %%begin, %%globaltimer;
again:
  mov.u64 %%now, %%globaltimer;
  sub.u64 %%now, %%now, %%begin;
  setp.lt.u64 %%p, %%now, %%wanted;
  @%%p bra again;
  ret;
}
"""
PTX = ".version 7.0\n.target sm_70\n.address_size 64\n" + "".join(SPIN % name for name in KERNELS)

SUM, FLOAT32 = 0, 7
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
NON_BLOCKING = 1


class UniqueId(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 128)]


def load(*names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            last = error
    raise last


class Checked:
    """A library whose functions raise when they do not return 0."""

    def __init__(self, library):
        self.library = library

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            code = function(*arguments)
            if code:
                raise RuntimeError(f"{name}: {code}")

        setattr(self, name, call)
        return call


class Gpu:
    def __init__(self, device):
        self.driver = Checked(load("libcuda.so.1"))
        self.runtime = Checked(load("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"))
        self.runtime.cudaSetDevice(device)
        self.module = c_void_p()
        self.driver.cuModuleLoadData(byref(self.module), PTX.encode())
        self.kernels = {name: self.kernel(name) for name in KERNELS}

    def kernel(self, name):
        function = c_void_p()
        self.driver.cuModuleGetFunction(byref(function), self.module, name.encode())
        return function

    def stream(self):
        stream = c_void_p()
        self.runtime.cudaStreamCreateWithFlags(byref(stream), NON_BLOCKING)
        return stream

    def event(self):
        event = c_void_p()
        self.runtime.cudaEventCreate(byref(event))
        return event

    def alloc(self, size):
        address = c_void_p()
        self.runtime.cudaMalloc(byref(address), c_size_t(size))
        return address

    def pinned(self, size):
        address = c_void_p()
        self.runtime.cudaMallocHost(byref(address), c_size_t(size))
        return address

    def launch(self, name, microseconds, stream):
        duration = c_uint64(int(microseconds * 1000))
        parameters = (c_void_p * 1)(ctypes.addressof(duration))
        shape = [c_uint(n) for n in (1, 1, 1, 32, 1, 1, 0)]
        self.driver.cuLaunchKernel(self.kernels[name], *shape, stream, parameters, None)

    def copy(self, to, source, size, direction, stream):
        self.runtime.cudaMemcpyAsync(to, source, c_size_t(size), c_int(direction), stream)

    def elapsed_ms(self, begin, end):
        milliseconds = c_float()
        self.runtime.cudaEventElapsedTime(byref(milliseconds), begin, end)
        return milliseconds.value


def exchange(rank, world, payload):
    """Rank 0's bytes, on every rank, by TCP."""
    address = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
    if rank == 0:
        with socket.create_server(address) as listener:
            for _ in range(world - 1):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(payload)
        return payload
    for _ in range(600):
        try:
            with socket.create_connection(address) as connection:
                received = b""
                while len(received) < len(payload):
                    received += connection.recv(len(payload) - len(received)) or exit("rank 0 is gone")
                return received
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("rank 0 does not listen")


class Ranks:
    """The communicator of all ranks, or in a chain one of each rank with the one before it and one with the one after."""

    def __init__(self, rank, world, chain=False):
        self.nccl = Checked(load("libnccl.so.2"))
        ids = [UniqueId() for _ in range(world - 1 if chain else 1)]
        if rank == 0:
            for unique in ids:
                self.nccl.ncclGetUniqueId(byref(unique))
        # A c_char array ends at its first zero when read as bytes: take the memory itself.
        payload = exchange(rank, world, b"".join(ctypes.string_at(byref(unique), 128) for unique in ids))
        for place, unique in enumerate(ids):
            ctypes.memmove(byref(unique), payload[place * 128 :], 128)
        self.comm = self.before = self.after = None
        if chain:
            if rank > 0:
                self.before = self.join(2, ids[rank - 1], 1)
            if rank < world - 1:
                self.after = self.join(2, ids[rank], 0)
        else:
            self.comm = self.join(world, ids[0], rank)

    def join(self, world, unique, rank):
        comm = c_void_p()
        self.nccl.ncclCommInitRank(byref(comm), c_int(world), unique, c_int(rank))
        return comm

    def all_reduce(self, memory, count, stream, comm=None):
        comm = comm or self.comm
        self.nccl.ncclAllReduce(memory, memory, c_size_t(count), c_int(FLOAT32), c_int(SUM), comm, stream)

    def broadcast(self, memory, count, root, stream):
        self.nccl.ncclBroadcast(memory, memory, c_size_t(count), c_int(FLOAT32), c_int(root), self.comm, stream)

    def close(self):
        for comm in filter(None, [self.comm, self.before, self.after]):
            self.nccl.ncclCommDestroy(comm)
