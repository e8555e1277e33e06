"""One process that waits in a named function, counts, and says so: argv: file for its count."""

import sys
import time


def named_wait():
    time.sleep(0.02)


def main():
    count = 0
    while True:
        named_wait()
        count += 1
        with open(sys.argv[1], "w") as out:
            out.write(str(count))


main()
