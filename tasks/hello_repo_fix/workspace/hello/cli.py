"""The command line: `python -m hello [--at HH:MM] [--left] NAME ...`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime

from hello.greeting import greet, time_left


def main(argv: Sequence[str] | None = None) -> int:
    """Print a greeting; 0 when it worked, 2 when the time of day makes no sense."""
    parser = argparse.ArgumentParser(prog="hello", description="Greetings that know what time it is.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--at", metavar="HH:MM", help="time of day, by default now")
    parser.add_argument("--left", action="store_true", help="say how long the greeting stays the right one")
    options = parser.parse_args(argv)
    at = options.at or datetime.now().strftime("%H:%M")
    try:
        line = greet(options.names, at)
        if options.left:
            line += f" (for another {time_left(at)})"
    except ValueError as error:
        print(f"hello: {error}", file=sys.stderr)
        return 2
    print(line)
    return 0
