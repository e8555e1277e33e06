"""One thread that waits for another to do what it is told to: the time of the wait is that other's.

blame.py MODE: child (a program that burns CPU, waited for), loopback (a server thread behind a TCP connection burns),
queue (a competitor on the same CPU burns without end). Says "ready" once it has begun.
"""

import os
import socket
import subprocess
import sys
import threading
import time

BURN = "import time\nwhile time.thread_time() < 0.3: pass"


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def child():
    while True:
        subprocess.run([sys.executable, "-S", "-c", BURN], check=True, stdout=subprocess.DEVNULL)


def serve(listener):
    connection, _ = listener.accept()
    while connection.recv(1):
        burn(0.05)
        connection.sendall(b"x" * 100)


def loopback():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    connection = socket.create_connection(listener.getsockname())
    while True:
        connection.sendall(b"q")
        connection.recv(100)


def queue():
    os.sched_setaffinity(0, {0})
    while True:
        burn(1)


print("ready", flush=True)
{"child": child, "loopback": loopback, "queue": queue}[sys.argv[1]]()
