"""Threads that sleep at known places, each of which says where: one line of JSON a thread.

Runs on CPython 3.10 to 3.14. Commands on standard input: "fork" makes a child that sleeps in a stack of its own, and
"end" ends the program.
"""

import asyncio
import ctypes
import functools
import json
import os
import sys
import threading
import time

OUTPUT = threading.Lock()


def announce(name, said=[]):
    """Says once where the caller is; gives None, so that `or` goes on to sleep on the caller's own line."""
    key = (name, os.getpid())
    if key in said:
        return
    said.append(key)
    frames = []
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        qualified = getattr(code, "co_qualname", code.co_name)
        frames.append([code.co_name, qualified, code.co_filename, frame.f_lineno, code.co_firstlineno])
        frame = frame.f_back
    with OUTPUT:
        text = {"name": name, "pid": os.getpid(), "tid": threading.get_native_id(), "frames": frames}
        sys.stdout.write(json.dumps(text) + "\n")
        sys.stdout.flush()


def rest(name):
    while True:
        announce(name) or time.sleep(0.005)


def recurse(depth, name):
    if depth:
        return recurse(depth - 1, name)
    return rest(name)


class Model:
    def __init__(self, name):
        self.name = name

    @classmethod
    def make(cls, name):
        return cls(name).forward()

    @property
    def weight(self):
        return (
            recurse(
                3,
                self.name,
            )
        )

    def forward(self):
        try:
            raise KeyError("a handler is a place too")
        except KeyError:
            return self.weight


def count(name):
    # A generator is entered by next().
    yield 1
    yield Model.make(name)


def compare(name, value):
    # Called from C, by sorted().
    if value == 2:
        next(iterate := count(name))
        next(iterate)
    return value


def mixed(name):
    listed = [
        functools.reduce(lambda a, b: a + b, sorted([2, 1], key=lambda value: compare(name, value)))
        for _ in range(1)
    ]
    return listed


EXECUTED = """


def inner(f):
    return f()
inner(lambda: rest("executed ünïcode 漢字 😀"))
"""


def executed(_):
    exec(compile(EXECUTED, "<executed ünïcode 漢字 😀>", "exec"), {"rest": rest})


async def leaf(name):
    await asyncio.sleep(0)
    rest(name)


async def trunk(name):
    async with asyncio.timeout(1000) if sys.version_info >= (3, 11) else NoTimeout():
        return await leaf(name)


class NoTimeout:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


def coroutine(name):
    asyncio.run(trunk(name))


def deep(name):
    sys.setrecursionlimit(3000)
    recurse(300, name)


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def callback(_):
    # In a thread that Python did not make.
    rest("foreign")


def foreign():
    thread = ctypes.c_ulong()
    library = ctypes.CDLL(None)
    create = library.pthread_create
    create.argtypes = [ctypes.c_void_p] * 4
    create(ctypes.byref(thread), None, ctypes.cast(callback, ctypes.c_void_p), None)


PR_SET_PDEATHSIG = 1


def forker():
    for line in sys.stdin:
        if line.strip() == "fork" and os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 9)
            # The child's other threads are gone, one of which may have held the lock.
            global OUTPUT
            OUTPUT = threading.Lock()
            recurse(4, "forked")
        if line.strip() == "end":
            os._exit(0)


def start(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


if __name__ == "__main__":
    start(mixed, "mixed")
    start(executed, None)
    start(coroutine, "coroutine")
    start(deep, "deep")
    for short in range(3):
        # States of ended threads are freed and used again.
        thread = threading.Thread(target=time.sleep, args=(0.001,))
        thread.start()
        thread.join()
    foreign()
    threading.Thread(target=forker).start()
    recurse(30, "main")
