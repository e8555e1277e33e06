"""A TCP server. Each line that it gets is two numbers: it answers after so many microseconds, with so many bytes.

argv: address, port. Says "ready" when it listens, and ends with whoever started it.
"""

import ctypes
import socket
import sys
import time

ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            delay_us, size = map(int, line.split())
            time.sleep(delay_us / 1e6)
            connection.sendall(bytes(size))
