"""Data-parallel training: DistributedDataParallel over Gloo, samples from a file through a worker process.

argv: folder, file of samples. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say who it is. After each step it writes
the number of steps to steps-RANK in the folder; the step after a file named leave appears there is the last one. At its
end each rank prints: rank, steps, bytes of all gradients, then the bytes of each bucket that is all-reduced in a step.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

SAMPLE_BYTES, BATCH, WIDTH = 4096, 4, 512


class Samples(Dataset):
    def __init__(self, path):
        self.path, self.file = path, None

    def __len__(self):
        return 1 << 20

    def __getitem__(self, i):
        # In the worker: a descriptor opened before the fork would share its position.
        if self.file is None:
            self.file = os.open(self.path, os.O_RDONLY)
        data = read_sample(self.file, i)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)[:WIDTH].float() / 255


def read_sample(file, i):
    return os.pread(file, SAMPLE_BYTES, i % 256 * SAMPLE_BYTES)


def train_step(model, optimizer, batch):
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()


def train(folder, samples, rank):
    torch.manual_seed(1)
    layers = [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH)]
    model = DistributedDataParallel(torch.nn.Sequential(*layers), bucket_cap_mb=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    count = os.open(f"{folder}/steps-{rank}", os.O_WRONLY | os.O_CREAT)
    steps, end = 0, torch.zeros(1)
    for batch in DataLoader(Samples(samples), batch_size=BATCH, num_workers=1):
        train_step(model, optimizer, batch)
        steps += 1
        os.pwrite(count, f"{steps:12}".encode(), 0)
        # All ranks leave at the same step.
        if rank == 0 and os.path.exists(f"{folder}/leave"):
            end += 1
        dist.broadcast(end, 0)
        if end.item():
            break
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters())
    buckets = model._get_ddp_logging_data()["rebuilt_bucket_sizes"].replace(",", "")
    print(f"rank {rank} {steps} {gradients} {buckets}", flush=True)


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(sys.argv[1], sys.argv[2], dist.get_rank())
    dist.destroy_process_group()


main()
