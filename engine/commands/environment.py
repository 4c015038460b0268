"""Hides this process's keys from its own `/proc/<pid>/environ`.

A process in the `local` sandbox runs as the same user and can read the block of variables this process was started
with. Python keeps its own copy in `os.environ`, so the block itself can be blanked.
"""

import re
from collections.abc import Collection
from pathlib import Path

_SECRET = re.compile(rb"[^=]*(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)[^=]*=", re.IGNORECASE)


def blank_secrets_in_proc(also: Collection[str] = ()) -> int:
    """Overwrite values of secret-looking variables, and of `also`, in this process's initial environment block.

    Returns how many; 0 where there is no /proc or the block is not where the kernel says. `os.environ` stays as it is.
    """
    try:
        block = Path("/proc/self/environ").read_bytes()
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[47]), int(fields[48])  # env_start, env_end: fields 50 and 51 of proc(5)
    except (OSError, ValueError, IndexError):
        return 0
    hits = [
        (offset + match.end(), len(entry) - match.end())
        for offset, entry in _entries(block)
        if (match := _SECRET.match(entry) or _named(entry, also)) and len(entry) > match.end()
    ]
    if not hits or end - start < len(block):
        return 0
    import ctypes  # noqa: PLC0415 - only where there is something to hide

    if ctypes.string_at(start, len(block)) != block:
        return 0
    for offset, length in hits:
        ctypes.memset(start + offset, ord("x"), length)
    return len(hits)


def _named(entry: bytes, names: Collection[str]) -> re.Match[bytes] | None:
    match = re.match(rb"[^=]*=", entry)
    return match if match and match[0][:-1].decode(errors="replace") in names else None


def _entries(block: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    for entry in block.split(b"\0"):
        found.append((offset, entry))
        offset += len(entry) + 1
    return found
