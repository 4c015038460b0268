"""The same workspace judged again and again: the verdict and what each check saw are the same to the letter."""

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any

TIMES = 20
OF_A_CLOCK = ("duration_s",)
ROWS = [(number, number * 37 % 101 / 10, "xyz"[number % 3]) for number in range(60)]
TABLE = "k,x,c\n" + "".join(f"{k},{x},{c}\n" for k, x, c in ROWS)
SHUFFLED = "k,x,c\n" + "".join(f"{k},{x + 0.004},{c}\n" for k, x, c in sorted(ROWS, key=lambda row: row[1]))
LENIENT = {"abs": 0.01, "ignore_row_order": True}
REFERENCE: dict[str, Any] = {"type": "reference_output", "reference": "grader/table.csv"}
METRIC: dict[str, Any] = {"type": "metric_check", "op": ">="}
MEDALS = {"bronze": 0.2, "silver": 0.5, "gold": 0.9}

CHECKS: list[dict[str, Any]] = [
    {"type": "file_present", "path": "out/table.csv"},
    {"type": "command_exit_zero", "command": "ls -U out; grep -c x out/table.csv; exit 3"},
    {**METRIC, "command": 'echo "{\\"m\\": 0.3}"', "metric": "m", "threshold": 0.9, "baseline": 0.1, "medals": MEDALS},
    {**METRIC, "path": "metrics.json", "metric": "a.b", "threshold": 0.9, "baseline": 0.1},
    {
        **METRIC,
        "predictions": "out/predictions.csv",
        "labels": "grader/labels.csv",
        "id_column": "id",
        "metric": "roc_auc",
        "threshold": 0.99,
        "baseline": 0.1,
    },
    {"type": "sql_check", "dsn": "sqlite:///out/app.db", "query": "select k, x from t", "expect": [[1, 3.7], [2, 0.5]]},
    {**REFERENCE, "path": "out/table.csv", "format": "csv", "tolerance": LENIENT},
    {**REFERENCE, "path": "out/table.csv", "format": "csv", "columns": {"k": "integer", "c": "text"}},
    {**REFERENCE, "path": "metrics.json", "reference": "grader/metrics.json", "format": "json"},
    {**REFERENCE, "command": "sort out/table.csv"},
]  # fmt: skip
STATUSES = "passed failed failed failed failed failed passed failed failed failed"


async def test_the_same_workspace_judged_20_times_gives_20_identical_verdicts(walled: Bench) -> None:
    labels = "id,y\n" + "".join(f"{k},{int(x > 5)}\n" for k, x, _ in ROWS)
    predictions = "id,y\n" + "".join(f"{k},{(x + k % 7) / 17:.3f}\n" for k, x, _ in reversed(ROWS)) + "59,0\n"
    walled.write(walled.task / "grader", {"table.csv": TABLE, "labels.csv": labels, "metrics.json": '{"a": {"b": 1}}'})
    files = {"out/table.csv": SHUFFLED, "out/predictions.csv": predictions, "metrics.json": '{"a": {"b": 0.5}, "z": 1}'}
    walled.write(walled.final, files)
    with sqlite3.connect(walled.final / "out" / "app.db") as connection:
        connection.execute("create table t (k integer, x real)")
        connection.executemany("insert into t values (?, ?)", [row[:2] for row in ROWS])
    connection.close()
    seen = []
    for _ in range(TIMES):
        verdict = await walled.judge(*CHECKS)
        seen.append((verdict, what_was_seen(walled.outputs)))
    assert [check.status for check in seen[0][0].checks] == STATUSES.split()
    assert "has the id '59' twice" in seen[0][0].checks[4].detail
    assert all(again == seen[0] for again in seen[1:])


def what_was_seen(folder: Path) -> dict[str, Any]:
    """Every check's evidence but what a clock says."""
    seen = {}
    for path in folder.iterdir():
        document = json.loads(path.read_text())
        seen[path.name] = {key: value for key, value in document.items() if key not in OF_A_CLOCK}
    assert len(seen) == len(CHECKS)
    return seen
