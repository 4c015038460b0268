"""The transcript: one JSON event a line, appended and flushed as it happens."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self


def utc_now() -> str:
    """Now, as `2026-05-13T20:40:21.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
"""A value as one line of JSON, by an encoder that is made once: it is called several times a turn."""


class LineFile:
    """A file that grows by whole lines: each is one write, so a crash can tear at most the last one."""

    def __init__(self, path: Path) -> None:
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write_line(self, text: str) -> None:
        """Append `text` and a newline. A lone surrogate becomes its JSON escape.

        Raises:
            OSError: disk full; nothing of the line stays, so that a later one does not begin in its middle.
        """
        if self._fd is None:
            msg = "the file has been closed"
            raise ValueError(msg)
        line = memoryview(text.encode("utf-8", errors="backslashreplace") + b"\n")
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Transcript:
    """Writes `transcript.jsonl`. `redact` is applied to every line, so that no secret is ever stored."""

    def __init__(self, path: Path, *, redact: Callable[[str], str]) -> None:
        self._file = LineFile(path)
        self._redact = redact
        self._seq = 0

    def write(self, type_: str, /, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Append one event; `seq` and `time` are added."""
        self._seq += 1
        event = {"seq": self._seq, "time": utc_now(), "type": type_, **facts}
        self._file.write_line(self._redact(compact_json(event)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
