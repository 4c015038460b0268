"""What all arms share: meters, the slope between two lengths, one line of JSON. Only the standard library is imported,
for each side's own interpreter runs this."""

import contextlib
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Arm = Callable[..., Mapping[str, Any]]


class Cost(NamedTuple):
    """Seconds of the clock; of CPU, this process's with all its threads, and that of children which have ended."""

    wall_s: float
    cpu_s: float
    children_cpu_s: float

    @property
    def all_cpu_s(self) -> float:
        """With the children's."""
        return self.cpu_s + self.children_cpu_s


class Meter:
    """Measures from its making on."""

    def __init__(self) -> None:
        gc.collect()  # what was left over before is not this measurement's
        self._begun = self._now()

    def read(self) -> Cost:
        return Cost(*(now - then for now, then in zip(self._now(), self._begun, strict=True)))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def peak_mib() -> float:
    """The most memory this process has had resident so far, MiB; that of children is not in it. From /proc, for
    `ru_maxrss` begins with what the parent had when it forked."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError  # every Linux has it


def cost_of_a_turn(converse: Callable[[int], object], *, short: int, long: int, conversations: int) -> dict[str, float]:
    """What one turn costs, milliseconds: `converse(turns)` holds that many conversations of so many turns, and what it
    takes more for long ones than for short ones is the turns' alone. `cpu_ms_of_one` is a conversation of one turn."""
    converse(1)
    costs = {}
    for turns in (1, short, long):
        meter = Meter()
        converse(turns)
        costs[turns] = meter.read()
    turns_more = (long - short) * conversations
    cpu, whole, wall = (
        (getattr(costs[long], name) - getattr(costs[short], name)) / turns_more * 1000
        for name in ("cpu_s", "all_cpu_s", "wall_s")
    )
    one = costs[1].all_cpu_s / conversations * 1000
    return {"own_cpu_ms": cpu, "cpu_ms": whole, "wall_ms": wall, "cpu_ms_of_one": one, "peak_mib": peak_mib()}


def raise_open_files() -> None:
    """As many open files as this user may have: a thousand runs need several each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require(claim: bool, message: object) -> None:
    """Ends the arm where the work was not done: what it took says nothing then."""
    if not claim:
        print(f"the work was not done: {message}", file=sys.stderr)
        sys.exit(1)


def main(arms: Mapping[str, Arm]) -> None:
    """Runs the arm that the command line names, with its arguments as a JSON object; prints what it gives. Whatever
    else is printed meanwhile goes to stderr."""
    name, arguments = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        facts = arms[name](**json.loads(arguments))
    print(json.dumps(facts))
