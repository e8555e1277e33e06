"""Pure Python on one CPU, forty frames deep. argv: counter file."""

import sys

from counter import Counter


def leaf(x):
    total = 0
    for i in range(200):
        total += (x * i) ^ (total >> 3)
    return total & 0xFFFF


def left(depth, x):
    return descend(depth - 1, x + 1)


def right(depth, x):
    return descend(depth - 1, x ^ 5)


def descend(depth, x):
    if depth <= 0:
        return leaf(x)
    return left(depth, x) if x & 1 else right(depth, x)


counter, x = Counter(sys.argv[1]), 1
while True:
    x = descend(20, x)
    counter.add()
