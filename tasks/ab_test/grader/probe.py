"""The program the workspace's analysis runs in: it answers one look at an experiment after the other.

Started by judge.py as `python -I -B -c <this text> ANSWERS_FD`. The first line on stdin is the module's text as JSON,
each further one an experiment, sent when the one before is answered. What the module prints goes to the log.
"""

import json
import os
import sys
import types


def plain(value):
    """The value as JSON types; numpy's scalars as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return value if value is None or type(value) in (bool, int, float, str) else f"<{type(value).__name__}>"


def main():
    answers_fd, questions = int(sys.argv[1]), sys.stdin
    sys.stdin = None
    module = types.ModuleType("analysis")
    sys.modules["analysis"] = module
    exec(compile(json.loads(questions.readline()), "analysis.py", "exec", dont_inherit=True), module.__dict__)
    for line in questions:
        try:
            answer = {"value": plain(module.analyse(json.loads(line)))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        os.write(answers_fd, json.dumps(answer).encode() + b"\n")


main()
