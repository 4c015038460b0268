"""Reads a `.env` file: `NAME=value` a line, `export` allowed, `#` comments, single or double quotes."""

import re
from pathlib import Path

from fbench.engine.errors import UsageError

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
        (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^'"\s][^\n]*?)?)
        \s*(?:\s\#.*)?$""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_dotenv(path: str | Path) -> dict[str, str]:
    """The variables a `.env` file sets; nothing in it is expanded or run.

    Raises:
        UsageError: the file cannot be read, or a line is none of the above.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {error}; mend it or move it away"
        raise UsageError(msg) from error
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            msg = f"{path}:{number}: not of the form NAME=value; quote values with spaces at their ends"
            raise UsageError(msg)
        if match["double"] is not None:
            value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), match["double"])
        else:
            value = match["single"] if match["single"] is not None else re.sub(r"\s+#.*$", "", match["bare"] or "")
        values[match["name"]] = value
    return values
