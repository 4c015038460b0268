"""Judge one group of behaviours of the `hello` package in the workspace (the current folder).

    python -I -B "$FBENCH_GRADER/check.py" GROUP [SEED]

Exit code 0: every answer was right. 1: one was wrong, and the output says which. GROUP is one of questions.GROUPS, or
`visible_tests` for the repository's own tests as they were before the agent came. The verdict is reached in this
process, which runs no code of the workspace: see probe.py.
"""

import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import questions  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter

PROBE_TIMEOUT_S = 15.0
PYTEST_TIMEOUT_S = 30.0
MAX_SOURCE_BYTES = 1_000_000
MAX_SOURCES = 300
MAX_ANSWER_BYTES = 4_000_000


class Unacceptable(Exception):
    """The workspace cannot be asked, or gave a wrong answer."""


def read_sources(root):
    """Texts of the workspace's modules by relative path; links are not followed, so nothing from outside comes in."""
    sources, size = {}, 0
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in {"tests", "__pycache__"})
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix != ".py" or not stat.S_ISREG(path.lstat().st_mode):
                continue
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                data = stream.read(MAX_SOURCE_BYTES - size + 1)
            size += len(data)
            if size > MAX_SOURCE_BYTES or len(sources) >= MAX_SOURCES:
                raise Unacceptable(f"the workspace has more than {MAX_SOURCE_BYTES} bytes or {MAX_SOURCES} modules")
            sources[path.relative_to(root).as_posix()] = data.decode("utf-8", "surrogateescape")
    if "hello/__init__.py" not in sources:
        raise Unacceptable("hello/__init__.py is missing from the workspace, or is a link")
    return sources


def ask(sources, asked):
    """What the package answers, one JSON value each; read with a deadline from a process that has its own session."""
    questions_in, questions_out = os.pipe()
    answers_in, answers_out = os.pipe()
    deadline = time.monotonic() + PROBE_TIMEOUT_S
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", (HERE / "probe.py").read_text(encoding="utf-8"),
             str(questions_in), str(answers_out)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={}, cwd="/",
            pass_fds=(questions_in, answers_out), start_new_session=True,
        )
        os.close(questions_in)
        os.close(answers_out)
        try:
            send(questions_out, json.dumps({"sources": sources, "questions": asked}).encode(), deadline)
            data = receive(answers_in, deadline)
        finally:
            os.close(answers_in)
            kill_group(process)
        log.seek(0)
        said = log.read(2000).decode(errors="replace").strip()
    try:
        answers = json.loads(data)
    except (ValueError, RecursionError):
        answers = None
    if not isinstance(answers, list) or len(answers) != len(asked):
        raise Unacceptable(f"the package ended without answering. It said: {said or 'nothing'}")
    return answers


def send(descriptor, data, deadline):
    os.set_blocking(descriptor, False)
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(descriptor, view):]
            except BlockingIOError:
                wait_a_little(deadline)
            except BrokenPipeError:
                return
    finally:
        os.close(descriptor)


def receive(descriptor, deadline):
    """Bytes until end of file."""
    os.set_blocking(descriptor, False)
    data = bytearray()
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except BlockingIOError:
            wait_a_little(deadline)
            continue
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise Unacceptable(f"the package answered more than {MAX_ANSWER_BYTES} bytes")


def wait_a_little(deadline):
    if time.monotonic() > deadline:
        raise Unacceptable(f"the package did not answer within {PROBE_TIMEOUT_S:g} s")
    time.sleep(0.005)


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def is_same(given, right):
    """Equal in value and in exact JSON type, all the way down: 1 is not True."""
    if isinstance(right, list | tuple):
        return isinstance(given, list) and len(given) == len(right) and all(map(is_same, given, right))
    return type(given) is type(right) and given == right


def is_right(given, right):
    if not isinstance(given, dict):
        return False
    if isinstance(right, questions.Raises):
        return isinstance(given.get("error"), list) and right.name in given["error"]
    return "value" in given and "error" not in given and is_same(given["value"], right)


def check_group(sources, group, seed):
    pairs = questions.draw(group, seed)
    answers = ask(sources, [question for question, _ in pairs])
    wrong = [(*pair, given) for pair, given in zip(pairs, answers, strict=True) if not is_right(given, pair[1])]
    for question, right, given in wrong[:5]:
        print(f"asked {question}\n  expected {right}\n  got      {given}")
    if wrong:
        raise Unacceptable(f"{len(wrong)} of {len(pairs)} answers were wrong")
    print(f"all {len(pairs)} answers were right")


def check_visible_tests(sources, seed):
    """Run the original tests on the package.

    pytest shares its process with the package, which could fake its verdict. So this counts only when everything the
    tests look at is also right when asked through the probe.
    """
    for group in ("night_greeting", "time_left", "unchanged", "public_interface"):
        check_group(sources, group, seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for place, text in sources.items():
            if place.startswith("hello/"):
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                (root / place).write_text(text, encoding="utf-8", errors="surrogateescape")
        (root / "tests").mkdir()
        for test in sorted((HERE / "visible_tests").glob("test_*.py")):
            (root / "tests" / test.name).write_bytes(test.read_bytes())
        (root / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider",
             "-c", str(root / "pytest.ini"), "--rootdir", str(root), str(root / "tests")],
            stdin=subprocess.DEVNULL, cwd=root, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": name, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        try:
            code = process.wait(PYTEST_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unacceptable(f"the visible tests did not end within {PYTEST_TIMEOUT_S:g} s") from None
        finally:
            kill_group(process)
    if code != 0:
        raise Unacceptable(f"pytest ended with exit code {code}")


def main(argv):
    group, seed = argv[0], argv[1] if len(argv) > 1 else secrets.token_hex(8)
    print(f"{group}, seed {seed}", flush=True)
    try:
        sources = read_sources(Path.cwd())
        if group == "visible_tests":
            check_visible_tests(sources, seed)
        else:
            check_group(sources, group, seed)
    except (Unacceptable, OSError) as problem:
        print(f"not passed: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
