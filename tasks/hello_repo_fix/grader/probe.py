"""The program the workspace's package runs in: it answers questions and knows no answers.

Started by check.py as `python -I -S -B -c <this text> QUESTIONS_FD ANSWERS_FD`. It reads one JSON document with the
package's sources and the questions, gives up the right to open files, imports the package from memory and writes one
JSON document with what the package said. Whatever the package does to this process, to builtins or to json, changes
only its own answers.
"""

import ast
import contextlib
import importlib
import importlib.abc
import importlib.util
import io
import json
import os
import resource
import sys

# Imported before the files are gone, for what the standard library itself imports late; what the package imports is added.
PRELOADED = (
    "abc argparse array ast bisect builtins calendar cmath codecs collections collections.abc contextlib copy datetime "
    "_strptime dataclasses decimal difflib enum errno fnmatch fractions functools gettext graphlib heapq inspect "
    "itertools keyword locale logging math numbers operator pathlib pprint queue random re reprlib runpy shutil signal "
    "statistics string stringprep struct textwrap threading time traceback types typing unicodedata warnings weakref "
    "zoneinfo encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8_sig"
).split()
PRIVATE = ("__future__", "_strptime")


class MemoryFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules in a table of relative paths and texts; comes after the standard library."""

    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, fullname, path=None, target=None):
        place = self._place(fullname)
        if place is None:
            return None
        return importlib.util.spec_from_loader(
            fullname, self, origin=place, is_package=place.endswith("__init__.py")
        )

    def get_source(self, fullname):
        return self.sources[self._place(fullname)]

    def get_code(self, fullname):
        return compile(self.get_source(fullname), self._place(fullname), "exec", dont_inherit=True)

    def is_package(self, fullname):
        return self._place(fullname).endswith("__init__.py")

    def _place(self, fullname):
        stem = fullname.replace(".", "/")
        return next((place for place in (f"{stem}/__init__.py", f"{stem}.py") if place in self.sources), None)


def preload(sources):
    """Import what the standard library holds of the package's imports, none of which could be found later.

    Not `ctypes`, which reads the judge's memory without opening anything, nor a module that brings it along: without
    `_ctypes` it cannot be imported, and once the files are gone that one cannot come back.
    """
    sys.modules["_ctypes"] = None
    for name in PRELOADED:
        import_one(name)
    for text in sources.values():
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the package's own error, when it is imported
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    import_one(alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                import_one(node.module, [alias.name for alias in node.names])


def import_one(name, wanted=()):
    """Import a module of the standard library, if there is one; private ones are left, `__main__` among them."""
    parts = name.split(".")
    if parts[0] not in sys.stdlib_module_names or any(part.startswith("_") and part not in PRIVATE for part in parts):
        return
    with contextlib.suppress(Exception):
        __import__(name, fromlist=[part for part in wanted if not part.startswith("_")])


def plain(value):
    """The value as JSON types, exactly; what is none becomes a text that equals no answer."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) in (list, tuple):
        return [plain(item) for item in value]
    return f"<an object of type {type(value).__name__}>"


def window_facts(window):
    return [plain(window.greeting), plain(window.start), plain(window.end)]


def answer(question):
    hello = importlib.import_module("hello")
    match question["ask"]:
        case "call":
            kwargs = dict(question["kwargs"])
            if "schedule" in kwargs:
                kwargs["schedule"] = hello.Schedule.parse(kwargs["schedule"])
            return plain(getattr(hello, question["name"])(*question["args"], **kwargs))
        case "window":
            window = hello.Window(**question["window"])
            return plain(getattr(window, question["method"])(minute=question["minute"]))
        case "window_facts":
            window = hello.Window(*question["window"])
            twin = hello.Window(*question["window"])
            return [*window_facts(window), plain(window == twin), plain(hash(window) == hash(twin))]
        case "parsed":
            return [window_facts(window) for window in hello.Schedule.parse(question["text"]).windows]
        case "at":
            return window_facts(hello.Schedule.parse(question["text"]).at(minute=question["minute"]))
        case "built":
            windows = [hello.Window(*facts) for facts in question["windows"]]
            return window_facts(hello.Schedule(windows).at(question["minute"]))
        case "default":
            return [window_facts(window) for window in hello.DEFAULT.windows]
        case "public":
            return [name in hello.__all__ and hasattr(hello, name) for name in question["names"]]
        case "main":
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = importlib.import_module("hello.cli").main(question["argv"])
            return [plain(code), out.getvalue()]
        case other:
            raise AssertionError(other)


def main():
    questions_fd, answers_fd = int(sys.argv[1]), int(sys.argv[2])
    with open(questions_fd, encoding="utf-8") as stream:
        task = json.load(stream)
    preload(task["sources"])
    sys.meta_path.append(MemoryFinder(task["sources"]))
    # With no descriptor left to give, nothing can be opened any more: not the grader's files, not by a child either.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    answers = []
    for question in task["questions"]:
        try:
            answers.append({"value": answer(question)})
        except Exception as error:
            answers.append({"error": [kind.__name__ for kind in type(error).__mro__], "text": str(error)[:300]})
    os.write(answers_fd, json.dumps(answers).encode())


main()
