"""What a command takes from its start to its end, measured by a small process: a child's peak begins with what its
parent had when it forked. `python -m tests.benchmarks.peers.start_up COMMAND ARGUMENTS...` prints one JSON object."""

import json
import os
import sys
import time


def measure(argv: list[str]) -> dict[str, float]:
    """Run it, its output thrown away. Exits as it did where it failed."""
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(argv[0], argv)
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.perf_counter() - begun
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
