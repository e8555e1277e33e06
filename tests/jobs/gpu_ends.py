"""A process that uses a GPU and ends, or becomes another, when it is told to by a line on its standard input.

hang: launches another kernel, which the double is told not to end, and waits for it. exec: executes itself anew. fork: makes a child that ends as Python does, waits for it. exit: ends with 7.
late: told so as an argument, it waits for a line before it uses the GPU.
Says what it does: "steps" once it has made some, "second" instead where it was executed anew, "child N" with the status
of its child, and "steps" again when it went on after that.
"""

import os
import select
import sys
import time

from gpu_cuda import Gpu


def main():
    second = sys.argv[1:] == ["second"]
    if sys.argv[1:] == ["late"]:
        print("steps to come", flush=True)
        os.read(0, 100)
    gpu = Gpu(0)
    stream = gpu.stream()
    told, steps = "second" if second else "steps", 0
    while True:
        gpu.launch("forward_gemm", 200, stream)
        gpu.runtime.cudaStreamSynchronize(stream)
        time.sleep(0.002)
        steps += 1
        if steps == 20:
            print(told, flush=True)
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        order = os.read(0, 100).decode().strip()
        if order == "hang":
            gpu.launch("backward_gemm", 200, stream)
            gpu.runtime.cudaStreamSynchronize(stream)
        elif order == "exec":
            os.execv(sys.executable, [sys.executable, *sys.argv[:1], "second"])
        elif order == "fork":
            child = os.fork()
            if child == 0:
                sys.exit(0)
            began = time.monotonic()
            _, status = os.waitpid(child, 0)
            print("child", status, "after", time.monotonic() - began, flush=True)
            told, steps = "steps", 0
        elif order == "exit":
            sys.exit(7)


main()
