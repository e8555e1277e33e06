"""Prints the tables of lines of some code objects of the interpreter that runs it: one line of python_linetables.json.

{"version": "3.12.1", "codes": [[co_linetable in hex, co_firstlineno, [[first offset, end, line or 0], ...]], ...]}
"""

import json
import sys

# What makes tables long: long lines, lines far apart and in backward order, instructions without a line.
SOURCE = (
    """
def handlers(a):
    try:
        with a as b:
            return [x
                    for x in b]
    except (KeyError,
            ValueError) as e:
        raise RuntimeError from e
    finally:
        a = None

def far(f):
    return f(
"""
    + "\n" * 300
    + """
        1,
        f(2,"""
    + "\n" * 70
    + """
          3)
    )

async def waits(a):
    async with a as b:
        async for c in b:
            yield c

class Body:
    """
    + "wide = "
    + " + ".join(f"number_{n}" for n in range(150))
    + """
    def method(self): return lambda: self

def folded(a):
    while a:
        if a > 1: continue
        elif a < 3:
            break
    else:
        assert a, "message"
    return {1: a, **a}
"""
)


def codes(code):
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from codes(constant)


def described(code):
    lines = [[start, end, line or 0] for start, end, line in code.co_lines()]
    return [code.co_linetable.hex(), code.co_firstlineno, lines]


version = "%d.%d.%d" % sys.version_info[:3]
module = compile(SOURCE, "fixture.py", "exec")
print(json.dumps({"version": version, "codes": [described(code) for code in codes(module)]}))
