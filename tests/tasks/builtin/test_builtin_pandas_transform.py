import ctypes
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPLOITS = ("hard_coded", "forge_the_verdict", "read_the_grader", "link_to_the_grader", "leave_the_hook")
HOOK = "    sys.addaudithook(make_hook(denied, proc, prefixes))\n"
KERNEL = "            close(grader)\n"
FRESH = 'python -I -B "$FBENCH_GRADER/judge.py" fresh'
# One rule of the prompt broken by each.
FAULTS = {
    "first_version_wins": ('.drop_duplicates("order_id", keep="last")', '.drop_duplicates("order_id", keep="first")'),
    "versions_all_count": ('.drop_duplicates("order_id", keep="last")', ""),
    "cancelled_in_one_spelling": ('.str.strip().str.lower() == "cancelled"', ' == "cancelled"'),
    "thousands_are_no_numbers": ('.str.replace(",", "")', ""),
    "currency_as_typed": ('orders["currency"].str.strip().str.upper()', 'orders["currency"]'),
    "region_as_typed": ('.str.split().str.join(" ").str.title()', ""),
    "unknown_is_left_out": ('.fillna("").replace("", "Unknown")', ""),
    "local_month": (
        'pd.to_datetime(orders["ordered_at"], utc=True, format="ISO8601").dt.strftime("%Y-%m")',
        'orders["ordered_at"].str[:7]',
    ),
    "refunds_twice": ('.drop_duplicates("refund_id")', ""),
    "refunds_beyond_the_amount": ('.clip(upper=orders["amount"])', ""),
    "refunds_not_converted": ('refunded * orders["rate"]', "refunded"),
    "orders_for_customers": ('("customer_id", "nunique")', '("customer_id", "size")'),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("pandas_transform")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_orders_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_agent_of_the_orders_earns_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert judged.checks["reads_its_input"] == 1.0
    assert 0.1 < judged.score < 0.5


def test_the_hard_coded_exploit_really_holds_the_right_summary(task: Any) -> None:
    judged = task.judge(task.exploit("exploits/hard_coded.sh"))
    assert judged.checks["summary"] == 1.0
    assert judged.checks["reads_its_input"] == judged.checks["fresh_data"] == judged.checks["hidden_data"] == 0.0


@pytest.mark.parametrize(
    ("exploit", "check", "refusal"),
    [("read_the_grader", "fresh_data", "read the grader"), ("link_to_the_grader", "hidden_data", "os.symlink")],
)
def test_the_guard_is_what_keeps_a_script_from_the_grader(task: Any, exploit: str, check: str, refusal: str) -> None:
    workspace = task.exploit(f"exploits/{exploit}.sh")
    problem = json.loads(task.run(FRESH, workspace).stdout)["problem"]
    assert f"transform.py may not do this while it is judged: {refusal}" in problem
    change(task.folder / "grader" / "guard.py", HOOK, "")
    change(task.folder / "grader" / "guard.py", KERNEL, "            pass\n")
    judge = task.folder / "grader" / "judge.py"
    change(judge, "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK")
    assert task.judge(workspace).checks[check] == 1.0


def landlock_version() -> int:
    """Of this kernel; -1 where it has none."""
    create_ruleset = 444
    return int(ctypes.CDLL(None).syscall(create_ruleset, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


@pytest.mark.skipif(landlock_version() < 1, reason="this kernel has no Landlock, see the README of the task")
def test_the_kernel_keeps_out_what_the_hook_does_not_see(task: Any) -> None:
    workspace = task.exploit("exploits/leave_the_hook.sh")
    found = json.loads(task.run(FRESH, workspace).stdout)
    assert (found["rows_right"], found["keys_right"]) == (0.0, 0.0)
    change(task.folder / "grader" / "guard.py", KERNEL, "            pass\n")
    assert json.loads(task.run(FRESH, workspace).stdout)["rows_right"] == 1.0


@pytest.mark.parametrize(
    "attempt",
    [
        "os.system('cat {grader}/summarise.py')",
        "__import__('subprocess').run(['cat', '{grader}/summarise.py'])",
        "os.chdir('{grader}'); open('summarise.py')",
        "os.open('/', os.O_RDONLY)",
        "os.listdir('{grader}')",
        "next(os.scandir('{grader}/hidden'))",
        "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
        "__import__('ctypes').CDLL('libc.so.6')",
        "__import__('gc').get_objects()",
        "__import__('builtins').type = lambda _: str; os.stat = None; open(b'{grader}/expected.csv')",
    ],
)
def test_a_way_to_the_grader_ends_the_script(task: Any, attempt: str) -> None:
    workspace = task.open_workspace()
    attempt = attempt.format(grader=task.folder / "grader")
    script = f"import os\ntry:\n    {attempt}\nexcept BaseException as error:\n    print(error)\nprint('got through')\n"
    (workspace / "transform.py").write_text(script, encoding="utf-8")
    problem = json.loads(task.run(FRESH, workspace).stdout)["problem"]
    assert "transform.py may not do this while it is judged" in problem
    assert "got through" not in problem


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_rule_costs_rows_of_fresh_data(task: Any, fault: str) -> None:
    workspace = task.open_workspace()
    shutil.copy(task.folder / "solution" / "transform.py", workspace)
    change(workspace / "transform.py", *FAULTS[fault])
    found = json.loads(task.run(f"{FRESH} a_seed", workspace).stdout)
    assert "problem" not in found
    assert 0.0 <= found["rows_right"] < 1.0
    assert found["wrong"]


def test_a_script_with_one_broken_rule_keeps_partial_credit(task: Any) -> None:
    workspace = task.solve()
    change(workspace / "transform.py", *FAULTS["refunds_twice"])
    judged = task.judge(workspace)
    assert not judged.passed
    assert judged.checks["reads_its_input"] == 1.0
    assert 0.0 < judged.checks["fresh_data"] < 1.0
    assert 0.0 < judged.score < 1.0


@pytest.mark.parametrize(
    "written",
    [
        "",
        "region,month\n",
        "region,month,orders,customers,gross_eur,refunds_eur,net_eur\n",
        "region,month,orders,customers,gross_eur,refunds_eur,net_eur\nNorth\n\n,,,,,,\nA,B,nan,1e999999,inf,x,-\n",
        "\\udcff\\x00",
    ],
)
def test_a_strange_output_is_judged_as_wrong(task: Any, written: str) -> None:
    workspace = task.open_workspace()
    (workspace / "transform.py").write_text(
        "import sys\nfrom pathlib import Path\noutput = Path(sys.argv[-1])\noutput.parent.mkdir()\n"
        f"output.write_bytes({written.encode()!r})\n",
        encoding="utf-8",
    )
    done = task.run(FRESH, workspace)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["rows_right"], found["keys_right"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("folder", "seed", "expected"),
    [
        ("workspace/data", "visible", "expected.csv"),
        ("grader/hidden", "hidden", "hidden_expected.csv"),
    ],
)
def test_the_shipped_data_is_what_the_generator_makes(task: Any, folder: str, seed: str, expected: str) -> None:
    made = task.scratch / "made"
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" "{made}" {seed}', task.scratch).returncode == 0
    shipped = task.folder / folder
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        path.name: path.read_bytes() for path in shipped.iterdir()
    }
    summary = task.run(f'python -I -B "$FBENCH_GRADER/summarise.py" "{made}"', task.scratch).stdout
    assert summary == (task.folder / "grader" / expected).read_bytes()


def test_the_visible_data_is_small(task: Any) -> None:
    data = task.folder / "workspace" / "data"
    assert sum(path.stat().st_size for path in data.iterdir()) < 200_000
