"""Metrics computed from predictions and held-out labels: inside real sandboxes, by scikit-learn."""

import csv
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fbench.judging import inside, metrics_inside

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any

pytest.importorskip("sklearn", reason="scikit-learn is not installed: `uv sync --extra mle`")

PREDICTIONS = "out/predictions.csv"


def table(*rows: tuple[Any, ...]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def metric(name: str, op: str = ">=", threshold: float = 0.5, **fields: Any) -> dict[str, Any]:
    asked = {"type": "metric_check", "predictions": PREDICTIONS, "labels": "grader/labels.csv", "id_column": "id"}
    return {**asked, "metric": name, "op": op, "threshold": threshold, **fields}


def compute(folder: Path, labels: str | bytes, predictions: str | bytes, name: str, **fields: Any) -> dict[str, Any]:
    """What the program inside answers, run here: the same text that a sandbox runs."""
    for place, content in ((folder / "labels.csv", labels), (folder / "work" / "p.csv", predictions)):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    job = dict.fromkeys(("label_column", "prediction_column", "positive_label", "average", "class_columns"))
    job |= {"group_column": None, "k": None, "id_column": "id", "metric": name, **fields}
    places = {"grader": str(folder), "labels": "labels.csv", "workspace": str(folder / "work"), "predictions": "p.csv"}
    return metrics_inside.answer({**job, **places})


GUESS = table(("id", "y"), ("a", 1), ("b", 1), ("c", 1), ("d", 0))
BINARY = table(("id", "y"), ("a", 1), ("b", 0), ("c", 1), ("d", 0))


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "fields", "value"),
    [
        ("accuracy", BINARY, table(("id", "y"), ("d", 0), ("c", "1.0"), ("b", 1), ("a", 1)), {}, 0.75),
        ("accuracy", "id,y\na,cat\nb,1\n", "id,y\na,cat\nb,1.0\n", {}, 0.5),
        ("f1", BINARY, GUESS, {}, 0.8),
        ("f1", BINARY, GUESS, {"positive_label": "0"}, 2 / 3),
        ("f1", BINARY, GUESS, {"average": "macro"}, (0.8 + 2 / 3) / 2),
        ("f1", BINARY, "id,y\na,?\nb,0\nc,1\nd,0\n", {"average": "macro"}, (2 / 3 + 1) / 3),
        ("roc_auc", BINARY, table(("id", "y"), ("a", 9), ("b", -3), ("c", 2), ("d", 4)), {}, 0.75),
        ("log_loss", BINARY, table(("id", "y"), ("a", 0.8), ("b", 0.2), ("c", 0.8), ("d", 0.2)), {}, -math.log(0.8)),
        ("rmse", BINARY, table(("id", "y"), ("a", 1), ("b", 2), ("c", 1), ("d", 0)), {}, 1.0),
        ("mae", BINARY, table(("id", "y"), ("a", 1), ("b", 2), ("c", 1), ("d", 0)), {}, 0.5),
        ("r2", BINARY, table(("id", "y"), ("a", 1), ("b", 2), ("c", 1), ("d", 0)), {}, -3.0),
    ],
)  # fmt: skip
def test_each_metric_has_its_known_value(
    tmp_path: Path, name: str, labels: str, predictions: str, fields: dict[str, Any], value: float
) -> None:
    answer = compute(tmp_path, labels, predictions, name, **fields)
    assert answer["value"] == pytest.approx(value, rel=1e-12)
    assert answer["rows"] == len(labels.splitlines()) - 1


LETTERS = table(("id", "y"), (1, "x"), (2, "y"), (3, "z"), (4, "x"))
CLASSES = {"z": "p_z", "x": "p_x", "y": "p_y"}
CHANCES: list[tuple[Any, ...]] = [
    ("id", "p_x", "p_y", "p_z"),
    (2, 0.2, 0.7, 0.1),
    (1, 0.5, 0.25, 0.25),
    (3, 0, 0.5, 0.5),
    (4, 0.1, 0.8, 0.1),
]


def test_classes_have_a_column_each_and_it_does_not_matter_in_which_order(tmp_path: Path) -> None:
    answer = compute(tmp_path, LETTERS, table(*CHANCES), "log_loss", class_columns=CLASSES)
    assert answer["value"] == pytest.approx(-(math.log(0.7) + 2 * math.log(0.5) + math.log(0.1)) / 4)
    # One class against the rest: x wins 3 of 4 pairs, y 2 of 3, z all.
    answer = compute(tmp_path, LETTERS, table(*CHANCES), "roc_auc", class_columns=CLASSES)
    assert answer["value"] == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    two = table(("id", "y"), (1, "x"), (2, "y"), (3, "y"), (4, "x"))
    chances = table(("id", "n", "p"), (1, 0.5, 0.5), (2, 0.4, 0.6), (3, 0.6, 0.4), (4, 0.9, 0.1))
    assert compute(tmp_path, two, chances, "roc_auc", class_columns={"x": "n", "y": "p"})["value"] == 0.75


def test_probabilities_are_rounded_by_whoever_wrote_them_and_divided_by_their_sum(tmp_path: Path) -> None:
    rounded = [CHANCES[0], *((row[0], *(float(cell) * 0.995 for cell in row[1:])) for row in CHANCES[1:])]
    exact = compute(tmp_path, LETTERS, table(*CHANCES), "log_loss", class_columns=CLASSES)["value"]
    answer = compute(tmp_path, LETTERS, table(*rounded), "log_loss", class_columns=CLASSES)
    assert answer["value"] == pytest.approx(exact)
    doubled = [CHANCES[0], (1, 0.5, 0.5, 0.5), *CHANCES[1:2], *CHANCES[3:]]
    answer = compute(tmp_path, LETTERS, table(*doubled), "log_loss", class_columns=CLASSES)
    assert answer == {
        "failed": "the predictions file has '1.5' for the id '1', which is not 1, as the sum of its probabilities"
    }


def test_ndcg_is_the_mean_over_groups_of_two_or_more_rows(tmp_path: Path) -> None:
    labels = table(("id", "q", "rel"), (1, "a", 3), (2, "a", 0), (3, "b", 0), (4, "b", 1), (5, "c", 9))
    predictions = table(("id", "rel"), (1, 0.9), (2, 0.1), (3, 0.9), (4, 0.1), (5, 0))
    expected = (1 + 1 / math.log2(3)) / 2
    assert compute(tmp_path, labels, predictions, "ndcg", group_column="q")["value"] == pytest.approx(expected)
    assert compute(tmp_path, labels, predictions, "ndcg", group_column="q", k=1)["value"] == pytest.approx(0.5)
    lonely = compute(tmp_path, labels, predictions, "ndcg", group_column="id", label_column="rel")
    assert lonely == {"error": "no group of the labels has two rows, and ndcg judges their order"}


def test_without_an_id_column_the_rows_stand_in_the_order_of_the_labels(tmp_path: Path) -> None:
    labels = table(("y",), (1,), (0,), (0,))
    assert compute(tmp_path, labels, table(("y",), (1,), (0,), (1,)), "mae", id_column=None)["value"] == pytest.approx(
        1 / 3
    )
    short, long = (compute(tmp_path, labels, table(("y",), *[(1,)] * n), "mae", id_column=None) for n in (2, 4))
    assert short == {"failed": "the predictions file has 2 rows, the labels have 3"}
    assert long == {"failed": "the predictions file has more rows than the labels, which have 3"}


@pytest.mark.parametrize(
    ("name", "predictions", "why"),
    [
        ("accuracy", "", "has no header"),
        ("accuracy", "\n\n", "has no header"),
        ("accuracy", "y,id\n", "lacks 4 of the 4 ids: 'a', 'b', 'c', 'd'"),
        ("accuracy", "id,z\na,1\n", "has no column 'y'; its header is 'id', 'z'"),
        ("accuracy", "id,y,y\na,1,1\n", "has twice the column 'y'"),
        ("accuracy", "y\n1\n0\n1\n0\n", "has no column 'id'"),
        ("accuracy", "id,y\na,1\nb,1\na,0\n", "has the id 'a' twice, again in row 3"),
        ("accuracy", "id,y\na,1\ne,1\n", "has in row 2 the id 'e', which is none of the labels'"),
        ("accuracy", "id,y\na,1\nb,0\nc\nd,1\n", "has 1 cells in row 3, and 2 in its header"),
        ("accuracy", "id,y\na,1\nb,\nc,1\nd,1\n", "has '' for the id 'b', which is no class"),
        ("f1", "id,y\na,1\nb,\nc,1\nd,1\n", "has '' for the id 'b', which is no class"),
        ("rmse", "id,y\na,1\nb,nan\nc,1\nd,1\n", "has 'nan' for the id 'b', which is no finite number"),
        ("rmse", "id,y\na,1\nb,1e999\nc,1\nd,1\n", "has '1e999' for the id 'b', which is no finite number"),
        ("rmse", "id,y\na,1\nb,1_0\nc,1\nd,1\n", "which is no finite number"),
        ("rmse", "id,y\na,1\nb,\u0661\nc,1\nd,1\n", "which is no finite number"),
        ("rmse", "id,y\na,1e308\nb,1\nc,1\nd,1\n", "the predictions are so far off that rmse is inf"),
        ("r2", "id,y\na,-1e308\nb,1e308\nc,1\nd,1\n", "the predictions are so far off that r2 is"),
        ("roc_auc", "id,y\na,inf\nb,1\nc,1\nd,1\n", "which is no finite number"),
        ("log_loss", "id,y\na,1.01\nb,1\nc,1\nd,1\n", "has '1.01' for the id 'a', which is no probability"),
        ("accuracy", b"id,y\na,\xff\n", "is not UTF-8"),
        ("accuracy", "id,y\na,1\n".encode("utf-16"), "is not UTF-8"),
        ("accuracy", "id,y\na," + "1" * 2000, "has a prediction of more than 1000 characters"),
        ("accuracy", "id,y\na," + "1" * 140_000, "is no CSV: field larger than field limit"),
        ("accuracy", "id,y\na,1" + " " * 2_000_000, "has a line of 1048576 characters or more"),
        ("accuracy", b"\x00" * 2_000_000, "has a line of 1048576 characters or more"),
        ("accuracy", 'id,y\na,"1\n', "has '"),
    ],
)  # fmt: skip
def test_wrong_predictions_have_failed_with_a_reason(
    tmp_path: Path, name: str, predictions: str | bytes, why: str
) -> None:
    answer = compute(tmp_path, BINARY, predictions, name)
    assert list(answer) == ["failed"] or (predictions == 'id,y\na,"1\n' and "failed" in answer)
    assert why in answer["failed"] or "lacks 3 of the 4 ids" in answer["failed"]


@pytest.mark.parametrize(
    ("name", "labels", "fields", "why"),
    [
        ("accuracy", "", {}, "the labels file has no header"),
        ("accuracy", "id,y\n", {}, "the labels file has no rows"),
        ("accuracy", "id,y\na,1\na,0\n", {}, "the labels file has the id 'a' twice"),
        ("accuracy", "id,y\na,1\nb,\n", {}, "the labels file has no label in row 2"),
        ("accuracy", "id,y,z\na,1,1\n", {}, "has not one column of labels but 2: name it as `label_column`"),
        ("accuracy", "id,y\na,1\n", {"label_column": "w"}, "the labels file has no column 'w'"),
        ("f1", "id,y\na,x\nb,z\n", {}, "name it as `positive_label`; the classes are 'x', 'z'"),
        ("f1", "id,y\na,1\nb,2\nc,3\n", {}, "name it as `positive_label`; the classes are '1', '2', '3'"),
        ("f1", "id,y\na,1\nb,0\n", {"positive_label": "true"}, "no label is 'true'"),
        ("roc_auc", "id,y\na,1\nb,1\n", {}, "all labels are of one class"),
        ("roc_auc", "id,y\na,1\nb,1\n", {"class_columns": {"1": "p", "0": "q"}}, "is no label"),
        ("log_loss", "id,y\na,1\nb,2\n", {"class_columns": {"1": "p", "0": "q"}}, "must name each class of the labels"),
        ("log_loss", "id,y\na,1\nb,2\n", {"class_columns": {"1": "p", "1.0": "q"}}, "must name each class"),
        ("r2", "id,y\na,1\nb,1.0\n", {}, "all labels are equal"),
        ("rmse", "id,y\na,one\n", {}, "the labels file has 'one' in row 1, which is no finite number"),
        ("ndcg", "id,y\na,-1\nb,1\n", {}, "a relevance below 0"),
    ],
)  # fmt: skip
def test_labels_that_no_predictions_could_fit_are_an_error(
    tmp_path: Path, name: str, labels: str, fields: dict[str, Any], why: str
) -> None:
    ids = [line.split(",")[0] for line in labels.splitlines()[1:]]
    predictions = table(("id", "y", "w", "p", "q"), *((key, 1, 1, 0.5, 0.5) for key in dict.fromkeys(ids)))
    answer = compute(tmp_path, labels, predictions, name, **fields)
    assert list(answer) == ["error"]
    assert why in answer["error"]


def test_each_metric_is_the_same_number_20_times(tmp_path: Path) -> None:
    rows = [(number, number * 37 % 101 > 50, f"{(number * 53 % 97) / 97:.4f}") for number in range(500)]
    labels = table(("id", "y"), *((key, int(label)) for key, label, _ in rows))
    predictions = table(("id", "y"), *((key, guess) for key, _, guess in reversed(rows)))
    for name in metrics_inside.MEASURES:
        answers = [compute(tmp_path, labels, predictions, name) for _ in range(20)]
        assert "value" in answers[0]
        assert answers.count(answers[0]) == 20


HOSTILE = st.sampled_from(
    [
        "",
        "NaN",
        "inf",
        "-1e308",
        "1e999",
        "1_0",
        "0x1",
        '"',
        '"a\nb"',
        "a,b",
        "\x00",
        "\ufeff",
        "\u0661",
        "1" * 50,
        "\r",
    ]
)
CELLS = st.one_of(HOSTILE, st.integers(0, 1).map(str), st.floats(0, 1).map(repr), st.text(max_size=4))
SOUND = [["a", "1"], ["b", "0"], ["c", "1"], ["d", "0"]]
WITH_HOSTILE_ROWS = st.lists(st.one_of(st.sampled_from(SOUND), st.lists(CELLS, max_size=3)), max_size=6)
SOUND_BUT_FOR_CELLS = st.lists(CELLS, min_size=4, max_size=4).map(
    lambda cells: [[row[0], cell] for row, cell in zip(SOUND, cells, strict=True)]
)
TABLES = st.tuples(
    st.sampled_from(["id,y", "y,id", "id", "", "id,y,z"]), st.one_of(SOUND_BUT_FOR_CELLS, WITH_HOSTILE_ROWS)
)
FILES = st.one_of(
    st.binary(max_size=80),
    TABLES.map(lambda table: "\n".join([table[0], *map(",".join, table[1])]).encode("utf-8", "surrogatepass")),
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predictions=FILES, name=st.sampled_from(sorted(metrics_inside.MEASURES)))
def test_no_predictions_crash_the_metric_or_are_laid_at_the_tasks_door(
    tmp_path: Path, predictions: bytes, name: str
) -> None:
    answer = compute(tmp_path, BINARY, predictions, name)
    assert set(answer) in ({"failed"}, {"value", "rows", "versions"})
    assert math.isfinite(answer.get("value", 0))
    assert len(json.dumps(answer)) < 2000


# -------------------------------------------------------------------------------------------------- through a sandbox


async def test_a_metric_is_computed_in_the_grading_sandbox_and_nothing_of_the_workspace_is_imported(
    either: Bench,
) -> None:
    names = ("sklearn.py", "numpy.py", "json.py", "csv.py", "sitecustomize.py", "usercustomize.py", "fbench.py")
    either.write(either.final, dict.fromkeys(names, "raise SystemExit('imported')\n"))
    either.write(either.task, {"grader/labels.csv": BINARY})
    either.write(either.final, {PREDICTIONS: table(("id", "y"), ("d", 0), ("c", 1), ("b", 1), ("a", 1))})
    verdict = await either.judge(
        metric("accuracy", threshold=0.75),
        metric("accuracy", threshold=0.95, baseline=0.35, medals={"bronze": 0.6, "silver": 0.7, "gold": 0.8}),
    )
    assert [(result.status, result.score) for result in verdict.checks] == [("passed", 1.0), ("failed", 2 / 3)]
    assert verdict.checks[1].detail == "accuracy = 0.75, wanted >= 0.95 (silver medal)"
    seen = json.loads((either.outputs / "check2.json").read_text())
    assert (seen["value"], seen["rows"], seen["medal"], seen["medals"]["gold"]) == (0.75, 4, "silver", 0.8)
    assert seen["versions"]["python"] == sys.version.split()[0]
    assert "medal" not in json.loads((either.outputs / "check1.json").read_text())


async def test_what_is_no_regular_file_of_the_workspace_has_failed(either: Bench, tmp_path: Path) -> None:
    either.write(either.task, {"grader/labels.csv": BINARY})
    place = either.final / PREDICTIONS
    place.parent.mkdir()
    check = metric("accuracy")

    async def judged() -> tuple[str, str]:
        result = await either.check(**check)
        return result.status, result.detail

    absent = ("failed", f"{PREDICTIONS!r} is no regular file of the final workspace")
    assert await judged() == absent
    os.mkfifo(place)
    assert await judged() == absent
    place.unlink()
    place.symlink_to(tmp_path / "task" / "grader" / "labels.csv")  # the answers themselves
    assert await judged() == absent
    place.unlink()
    place.symlink_to("/grader/labels.csv")
    assert await judged() == absent
    place.unlink()
    (either.final / "elsewhere.csv").write_text(BINARY)
    place.symlink_to("../elsewhere.csv")
    assert (await judged())[0] == "passed"
    place.unlink()
    with place.open("wb") as file:
        file.truncate(5 * 1024**3)
    status, detail = await judged()
    assert (status, "has a line of 1048576 characters or more" in detail) == ("failed", True)


async def test_a_sandbox_without_scikit_learn_is_an_error_with_advice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = inside._text_of("metrics_inside")
    assert program.count("import sklearn  #") == 1
    without = program.replace("import sklearn  #", "import no_such_sklearn  #")
    monkeypatch.setattr(inside, "_text_of", lambda _: without)
    bench.write(bench.task, {"grader/labels.csv": BINARY})
    bench.write(bench.final, {PREDICTIONS: BINARY})
    result = await bench.check(**metric("accuracy"))
    assert result.status == "error"
    assert "has no scikit-learn" in result.detail
    assert "fbench/mle:1" in result.detail


async def test_a_metric_out_of_time_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "STARTING_S", 0.0)
    bench.write(bench.task, {"grader/labels.csv": BINARY})
    bench.write(bench.final, {PREDICTIONS: BINARY})
    result = await bench.check(**metric("accuracy", timeout_s=0.01))
    assert (result.status, result.detail) == (
        "error",
        "computing the metric did not end within its timeout_s of 0.01 s",
    )
