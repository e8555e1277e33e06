"""A loop on CUDA's driver that profiles itself by CUPTI when told to, as gpu_torch.py does but without PyTorch.

    gpu_own_profiler.py PAGE

    profile N FILE   N launches with CUPTI on; FILE gets the answer too; says how many kernels CUPTI returned
    quit

The page holds eight numbers of 8 bytes: 0 is the launches made.
"""

import json
import mmap
import os
import select
import sys


def main():
    from gpu_cuda import Gpu
    from gpu_profiler import KERNEL, Profiler

    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(file, 64)
    page = memoryview(mmap.mmap(file, 64)).cast("q")
    gpu, profiler = Gpu(0), Profiler()
    stream = gpu.stream()

    def launch(times):
        for _ in range(times):
            gpu.launch("elementwise_add", 20, stream)
        gpu.runtime.cudaStreamSynchronize(stream)

    def profile(times, path):
        profiler.start()
        launch(times)
        kinds = profiler.stop()
        answer = {"iterations": times, "expected": times, "kernels": kinds.get(KERNEL, 0), "kinds": kinds}
        with open(path, "w") as trace:
            json.dump(answer, trace)
        return answer

    print(json.dumps({"ready": True, "kernels": 1}), flush=True)
    while True:
        if select.select([0], [], [], 0)[0]:
            line = os.read(0, 4096).decode()
            if not line or line.strip() == "quit":
                return
            _, times, path = line.split()
            try:
                answer = profile(int(times), path)
            except Exception as error:  # noqa: BLE001: whoever asked is told, and the loop goes on
                answer = {"error": repr(error)[:500]}
            print(json.dumps(answer), flush=True)
        launch(64)
        page[0] += 64


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    sys.exit(main())
