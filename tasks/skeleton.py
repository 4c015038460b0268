"""A task to begin from: small, whole, and valid as it stands. `fbench new-task` writes it."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fbench.tasks.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID = re.compile(r"[a-z0-9_]{1,100}")

_TASK = """\
id: {task_id}
title: {title}
description: One or two sentences for lists.
difficulty: easy          # easy | medium | hard
domain: software_engineering
tags: []

environment:
  image: fbench/mle:1
  resources: {{cpus: 1.0, memory: 1g, pids: 256}}
  modules: []             # Python modules that must import in the sandbox

agent:
  prompt: prompt.md
  max_turns: 20

tools:
  style: native
  allow: [bash, python, text_editor]

budget: {{tokens: 60000, tool_calls: 30, wall_time_s: 600, cost_usd: 0.30}}

grader:
  pass_threshold: 1.0
  checks:
    # An untouched workspace scores 0: without the file nothing else counts.
    - {{id: wrote_it, type: file_present, path: total.py, gating: true, weight: 0}}
    # Half the inputs right is half the score.
    - {{id: cases, type: metric_check, command: 'python -I -B "$FBENCH_GRADER/judge.py"',
       metric: share, op: ">=", threshold: 1.0, baseline: 0.0, timeout_s: 120}}

solution: solution/solve.sh
exploits: [exploits/*.sh]
"""

_PROMPT = """\
Write `total.py`. `python total.py FILE` prints the sum of the whole numbers in FILE, one number a line, and nothing
else. Blank lines and lines that begin with `#` are left out. `example.txt` is such a file; its sum is 42.
"""

_README = """\
# {task_id}

What it measures: say in a line or two what a model has to be able to do.

How it resists gaming: `total.py` runs on files that are drawn anew for each check; the expected sums are in no file and
in no process but the judge's. Each cheat in `exploits/` scores what an untouched workspace scores.

`fbench validate --task .` says whether the task holds what it promises.
"""

_JUDGE = '''\
"""Runs total.py on numbers it has not seen, and prints the share of sums that are right.

Started with `python -I -B`, so that nothing of the workspace is imported here. The judged program runs in a child
process and hands back data; what is right is decided here, in a process that no other can look into.
"""

import ctypes
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = 20
SECONDS = 10
MOST_BYTES = 1000
PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """From here on this process's memory is closed to the program it starts, which could change it else."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def draw(dice: random.Random) -> tuple[str, int]:
    """A file's text, and its sum."""
    numbers = [dice.randint(-1000, 1000) for _ in range(dice.randint(1, 20))]
    lines = [str(number) for number in numbers]
    for _ in range(dice.randint(1, 5)):
        lines.insert(dice.randint(0, len(lines)), dice.choice(["", "   ", "# 17", "#"]))
    return "\\n".join(lines) + "\\n", sum(numbers)


def answer(file: Path) -> int | None:
    """What total.py prints, None when that is no number."""
    try:
        done = subprocess.run(
            [sys.executable, "total.py", str(file)],
            cwd=os.environ["FBENCH_WORKSPACE"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return int(done.stdout[:MOST_BYTES]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None


def main() -> None:
    hide_memory()
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbits(32)
    dice = random.Random(seed)
    right = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(CASES):
            text, total = draw(dice)
            file = Path(folder, f"{number}.txt")
            file.write_text(text)
            right += answer(file) == total
    print(json.dumps({"share": right / CASES, "seed": seed}))


main()
'''

_SOLVE = """\
cat > total.py <<'PY'
import sys
from pathlib import Path

lines = map(str.strip, Path(sys.argv[1]).read_text().splitlines())
print(sum(int(line) for line in lines if line and not line.startswith("#")))
PY
"""

_CONSTANT = """\
# The answer of the example, whatever is asked.
echo 'print(42)' > total.py
"""

_FORGE = """\
# A verdict of one's own, and a module that every Python started here would import.
echo 'print("{\\"share\\": 1.0}")' > sitecustomize.py
cp sitecustomize.py json.py
cp sitecustomize.py total.py
"""


def skeleton_files(task_id: str, title: str) -> "Mapping[str, str]":
    """The files of a new task, by their path in its folder."""
    return {
        "task.yaml": _TASK.format(task_id=_as_yaml(task_id), title=_as_yaml(title)),
        "prompt.md": _PROMPT,
        "README.md": _README.format(task_id=task_id),
        "workspace/example.txt": "# an example\n40\n\n-3\n5\n",
        "grader/judge.py": _JUDGE,
        "solution/solve.sh": _SOLVE,
        "exploits/constant.sh": _CONSTANT,
        "exploits/forge_the_verdict.sh": _FORGE,
    }


def _as_yaml(text: str) -> str:
    """The text as YAML reads it back: in quotes where it would else be a number or a mapping."""
    try:
        is_plain = yaml.safe_load(text) == text
    except yaml.YAMLError:
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def write_skeleton(folder: Path, title: str) -> list[Path]:
    """Write a new task into `folder`, whose name is its id; the files, in order. Blocking.

    Raises:
        TaskError: the name is no id, something is there already, or the folder cannot be written.
    """
    if not _ID.fullmatch(folder.name):
        msg = f"{folder.name!r} is no id of a task: at most 100 lower-case letters, digits and '_', as in word_count"
        raise TaskError(msg)
    written = []
    try:
        folder.mkdir(parents=True)
        for name, text in skeleton_files(folder.name, title).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except FileExistsError:
        msg = f"{folder} is there already and is left as it is; choose another name, or remove it"
        raise TaskError(msg) from None
    except OSError as error:
        msg = f"cannot make the task in {folder}: {error.strerror or error}"
        raise TaskError(msg) from error
    return written
