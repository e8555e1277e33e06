"""One of several ranks on one GPU, for `cargo xtask gpu`: all-reduces without pause until the page says so.

    gpu_nccl.py RANK WORLD PAGE FOLDER [torch]

With `torch` through torch.distributed, else through NCCL itself. Device 0 for all ranks, so that NCCL must be told
that this is meant (NCCL_MULTI_RANK_GPU_ENABLE, NCCL_HOSTID). The page holds eight numbers of 8 bytes: 0 is the
all-reduces made, 7 asks to end. FOLDER is where ranks meet.
"""

import mmap
import os
import sys

COUNT = 1 << 20
"""Elements of an all-reduce: 4 MiB."""


def open_page(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(file, 64)
    return memoryview(mmap.mmap(file, 64)).cast("q")


def with_torch(rank, world, folder):
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    values = torch.ones(COUNT, device="cuda")

    def step():
        values.fill_(1.0)
        dist.all_reduce(values)
        torch.cuda.synchronize()

    step()
    if values[0].item() != world:
        sys.exit(f"the sum is {values[0].item()} and not {world}")
    return step, torch.cuda.nccl.version()


def without_torch(rank, world, _folder):
    from ctypes import byref, c_int

    from gpu_cuda import Gpu, Ranks

    gpu = Gpu(0)
    ranks = Ranks(rank, world)
    stream, memory = gpu.stream(), gpu.alloc(COUNT * 4)

    def step():
        ranks.all_reduce(memory, COUNT, stream)
        gpu.runtime.cudaStreamSynchronize(stream)

    step()
    version = c_int()
    ranks.nccl.ncclGetVersion(byref(version))
    return step, version.value


def main():
    rank, world, page, folder = int(sys.argv[1]), int(sys.argv[2]), open_page(sys.argv[3]), sys.argv[4]
    make = with_torch if "torch" in sys.argv[5:] else without_torch
    step, version = make(rank, world, folder)
    print("ready: NCCL", version, flush=True)
    while not page[7]:
        step()
        page[0] += 1
    # A rank that left early would leave the others in a kernel: end without taking leave.
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
