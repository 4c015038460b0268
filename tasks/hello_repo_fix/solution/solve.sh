# Count around the clock: a window whose end is not after its start goes on past midnight.
set -eu
python3 - <<'PYTHON'
from pathlib import Path

path = Path("hello/schedule.py")
text = path.read_text(encoding="utf-8")
for old, new in (
    ("import format_clock, parse_clock", "import MINUTES_PER_DAY, format_clock, parse_clock"),
    (
        "        return self.start <= minute < self.end\n",
        "        if self.start < self.end:\n"
        "            return self.start <= minute < self.end\n"
        "        return minute >= self.start or minute < self.end\n",
    ),
    (
        "        return self.end - minute\n",
        "        return (self.end - minute) % MINUTES_PER_DAY or MINUTES_PER_DAY\n",
    ),
):
    if text.count(old) != 1:
        raise SystemExit(f"{path} is not as the solution expects it: {old!r} occurs {text.count(old)} times")
    text = text.replace(old, new)
path.write_text(text, encoding="utf-8")
PYTHON
python3 -m pytest -q -p no:cacheprovider
