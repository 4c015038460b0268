"""The program the workspace's module runs in: it answers questions and knows no answers.

Started by judge.py as `python -I -S -B -c <this text> ANSWERS_FD` with one JSON document on stdin: the module's text and
the cases, each a list of steps. It gives up the right to open files, makes the module from its text and writes what each step
gives as JSON. Whatever the module does to this process, to builtins or to json, changes only its own answers.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import types

# Imported before the files are gone. `ctypes` is left out on purpose.
PRELOADED = (
    "__future__ abc argparse array ast base64 bisect builtins calendar cmath codecs collections collections.abc "
    "concurrent.futures contextlib copy csv dataclasses datetime decimal difflib enum errno fnmatch fractions functools "
    "gc glob hashlib heapq inspect io itertools keyword linecache locale logging math numbers operator os.path pathlib "
    "pprint queue random re reprlib shutil signal statistics string struct sys tempfile textwrap threading time "
    "timeit tokenize traceback types typing unicodedata unittest uuid warnings weakref zlib bz2 codeop graphlib gzip hmac html "
    "numbers opcode pickle platform posixpath secrets select selectors stringprep subprocess sysconfig "
    "concurrent.futures.thread encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8_sig encodings.cp1252"
).split()
MAX_OUTPUT_BYTES = 8_000_000


def plain(value):
    """The value as JSON types, exactly; what is none becomes a text that equals no answer."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key if type(key) is str else f"<{type(key).__name__}>": plain(item) for key, item in value.items()}
    return f"<an object of type {type(value).__name__}>"


def play(module, steps):
    """What each step of a case gives; the first error ends it."""
    feeds, running, said = {}, {}, []
    for what, name, *arguments in steps:
        try:
            match what:
                case "new":
                    size, batch_size, options = arguments
                    feeds[name] = module.Feed(size, batch_size, **options)
                    value = None
                case "epochs":
                    value = [list(feeds[name]) for _ in range(arguments[0])]
                case "take":
                    # As in a loop: the body runs while the iterator waits behind its last batch.
                    running[name] = iter(feeds[name])
                    value = [next(running[name]) for _ in range(arguments[0])]
                case "len":
                    value = len(feeds[name])
                case "state":
                    value = feeds[name].state()
                case "restore":
                    state, size, batch_size, options = arguments
                    given = json.loads(json.dumps(feeds[state].state() if isinstance(state, str) else state))
                    feeds[name] = module.Feed.restore(given, size, batch_size, **options)
                    value = None
                case other:
                    raise AssertionError(other)
        except Exception as error:
            said.append({"error": [kind.__name__ for kind in type(error).__mro__], "text": str(error)[:200]})
            break
        said.append({"value": plain(value)})
    return said


def main():
    answers_fd = int(sys.argv[1])
    task = json.load(sys.stdin)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES))
    # With no descriptor left to give, nothing can be opened any more: not the grader's files, not by a child either.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    module = types.ModuleType("feed")
    sys.modules["feed"] = module
    exec(compile(task["source"], "feed.py", "exec", dont_inherit=True), module.__dict__)
    answers = [play(module, steps) for steps in task["cases"]]
    data = json.dumps(answers).encode()
    while data:
        data = data[os.write(answers_fd, data):]


main()
