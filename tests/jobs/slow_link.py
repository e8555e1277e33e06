"""A link between two network devices (TAP) that it makes: what one is sent comes out of the other, after a while.

argv: names of the devices. Says "ready" when they are there. Each line of standard input is how long each way takes from then
on, in milliseconds; at the end of input it ends, and the devices with it.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
# More than a frame with its headers has, as TCP hands it to a device that cuts it into packets.
FRAME = 1 << 17


def tap(name):
    """A device that leaves cutting into packets to whoever reads: here nobody does, as between the ends of a veth."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return device


def frames(device):
    """What waits to be sent, as far as it is there."""
    try:
        while True:
            yield os.read(device, FRAME)
    except BlockingIOError:
        pass


def deliver(device, frame):
    try:
        os.write(device, frame)
    except OSError:
        # The device is not up, or its namespace goes: a network loses packets.
        pass


def main():
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG
    one, other = tap(sys.argv[1]), tap(sys.argv[2])
    print("ready", flush=True)
    takes_s = 0.0
    # When each frame is due, at which device; a way may not get shorter while frames are on it.
    on_the_way = deque()
    while True:
        patience = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready, _, _ = select.select([one, other, sys.stdin], [], [], patience)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            takes_s = max(takes_s, float(line) / 1000)
        now = time.monotonic()
        for device, to in ((one, other), (other, one)):
            if device in ready:
                on_the_way.extend((now + takes_s, to, frame) for frame in frames(device))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, to, frame = on_the_way.popleft()
            deliver(to, frame)


main()
