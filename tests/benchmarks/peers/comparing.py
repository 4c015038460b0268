"""What is measured side by side, in which order, and what of it stands in the table."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.rounds import BARE, Arms, Comparison, Measured, all_cpu_s, flat, median, row
from tests.benchmarks.peers.sides import ArmFailed, Side, serving
from tests.benchmarks.peers.table import Bar, Row

BARE_AIO = "bare, aiohttp"
RUNS = 200
TURNS, SHORT_TURNS = 10, 2
LATENCY_S, LONG_LATENCY_S = 0.05, 1.0
MANY_RUNS, MANY_TURNS = 1000, 20
KILL_LIMIT_S = 4
KILL_PATIENCE_S = 60.0
"""More than Harbor's longest way to the end of its container; what is alive then stays."""
LATENCY_OF_MANY_S = 6.0
"""So long that the last run is in its turns before the first one has ended."""


def start_up(session: Comparison) -> list[Row]:
    """`--help`: what it takes to be there."""
    sides = session.sides
    arms = {"fbench": sides.fbench.start_up, "inspect": sides.inspect.start_up, "harbor": sides.harbor.start_up}
    for start in arms.values():
        start()  # compiles what has never been imported
    found = session.alternate("--help", arms, rounds=session.rounds * 2 + 1)
    fbench, inspect, harbor = (median("cpu_s")(found[name]) for name in arms)
    bars = (
        Bar("10 times less than Inspect", inspect / fbench, least=10),
        Bar("10 times less than Harbor", harbor / fbench, least=10),
    )
    return [
        row("`--help`, CPU s", found, "cpu_s", bars),
        row("`--help`, s", found, "wall_s"),
        row("`--help`, peak memory MiB", found, "peak_mib"),
    ]


def bare_loop(session: Comparison) -> list[Row]:
    """A fake model and a tool in this process."""
    found = _loops(session, "bare loop", tool="view", conversations=10)
    fbench, inspect = (median("own_cpu_ms")(found[name]) for name in ("fbench", "inspect"))
    bars = (Bar("at most 0.7", fbench, most=0.7), Bar("12 times less than Inspect", inspect / fbench, least=12))
    return [
        row("bare loop, CPU ms a turn", found, "own_cpu_ms", bars),
        row("a conversation of one turn, CPU ms with what is started", found, "cpu_ms_of_one"),
    ]


def local_loop(session: Comparison) -> list[Row]:
    """A fake model and `bash` with `true` as a process of this machine; the CPU of what it starts counts."""
    found = _loops(session, "local sandbox", tool="bash", conversations=4)
    return [
        row("loop with `bash: true`, local, CPU ms a turn", found, "cpu_ms"),
        row("the same, of it the evaluating process", found, "own_cpu_ms"),
        row("the same, ms a turn", found, "wall_ms"),
    ]


def _loops(session: Comparison, title: str, **arguments: Any) -> Measured:
    lengths = {"short": 10, "long": 60}
    return session.alternate(
        title,
        {
            "fbench": lambda: session.sides.fbench.arm("loop", **lengths, **arguments),
            "inspect": lambda: session.sides.inspect.arm("loop", **lengths, **arguments),
        },
    )


def http(session: Comparison) -> list[Row]:
    """Many conversations at once with one server, over HTTP; and what the same calls cost by the SDK alone."""
    with tempfile.TemporaryDirectory(prefix="fbench-bench-") as folder:
        bodies = Path(folder) / "bodies.json"
        _http(session.sides.fbench, TURNS, LATENCY_S, conversations=1, keep=bodies)
        found = _http_rounds(session, bodies)
    names = _http_sides(session)
    turn = {name: _cost_of_a_turn_ms(found[name], found[f"{name}, short"]) for name in names}
    whole = {name: median("cpu_s")(found[name]) / (RUNS * TURNS) * 1000 for name in names}
    title = f"{RUNS} x {TURNS} turns over HTTP, {LATENCY_S * 1000:.0f} ms"
    bars = (Bar("1.4 of the bare call on its transport", turn["fbench"] / turn[BARE_AIO], most=1.4),)
    return [
        row(f"{title}: s", found, "wall_s"),
        Row(
            "the same, CPU ms a turn; the bare call over aiohttp",
            turn["fbench"],
            turn["inspect"],
            None,
            turn[BARE_AIO],
            bars,
        ),
        Row("the same; the bare call over httpx", turn["fbench"], turn["inspect"], None, turn[BARE]),
        Row("the same with all that a conversation takes", whole["fbench"], whole["inspect"], None, whole[BARE]),
        row("the same, peak memory MiB", found, "peak_mib"),
        row("the same, CPU ms of the server a call", found, "server_cpu_ms"),
    ]


def _http_sides(session: Comparison) -> dict[str, Side]:
    sides = session.sides
    return {
        "fbench": sides.fbench,
        "inspect": sides.inspect,
        BARE: sides.bare(),
        BARE_AIO: sides.bare(aiohttp=True),
    }


def _http_rounds(session: Comparison, bodies: Path) -> Measured:
    arms: Arms = {}
    for name, side in _http_sides(session).items():
        more: dict[str, Any] = {}
        if name.startswith(BARE):
            more = {"bodies": str(bodies), "transport": "aiohttp" if name == BARE_AIO else "httpx2"}
        for key, turns in ((name, TURNS), (f"{name}, short", SHORT_TURNS)):
            arms[key] = partial(_http, side, turns, LATENCY_S, **more)
    return session.alternate("HTTP", arms)


def _http(
    side: Side, turns: int, latency_s: float, *, conversations: int = RUNS, keep: Path | None = None, **more: Any
) -> dict[str, Any]:
    """One arm over HTTP, with what its server saw. Raises ArmFailed."""
    serves: dict[str, Any] = {"turns": turns, "latency_s": latency_s, "keep": None if keep is None else str(keep)}
    if side.module == "inspect_arms":
        serves |= {"tool": "view", "arguments": {"path": "readme.txt"}}
    else:
        serves |= {"tool": "text_editor", "arguments": {"command": "view", "path": "readme.txt"}}
    with serving(side.python, serves) as server:
        facts = side.arm("http", url=server.url, turns=turns, conversations=conversations, **more)
    warm_up = 1 if more.get("is_warm") else 0
    if server.seen["requests_by_turn"] != [conversations + warm_up] * turns:
        msg = f"{side.name}: the server was not asked once a turn: {server.seen}"
        raise ArmFailed(msg)
    return {**facts, "server_cpu_ms": server.seen["cpu_s"] / server.seen["requests"] * 1000}


def _cost_of_a_turn_ms(long: Sequence[Mapping[str, Any]], short: Sequence[Mapping[str, Any]]) -> float:
    """CPU, of the evaluating process: what long conversations take more than short ones."""
    more = median("cpu_s")(long) - median("cpu_s")(short)
    return more / (RUNS * (TURNS - SHORT_TURNS)) * 1000


def slow_server(session: Comparison) -> list[Row]:
    """A server that takes a second: how much longer than the answers alone do runs take? Inspect has imported what it
    needs when its clock starts, so that fbench has, too; what that takes has a row of its own."""
    sides = session.sides
    arms = {
        "fbench": lambda: _http(sides.fbench, TURNS, LONG_LATENCY_S, is_warm=True),
        "fbench, new process": lambda: _http(sides.fbench, TURNS, LONG_LATENCY_S),
        "inspect": lambda: _http(sides.inspect, TURNS, LONG_LATENCY_S),
    }
    found = session.alternate("HTTP, 1 s", arms)
    ideal_s = TURNS * LONG_LATENCY_S
    bars = (Bar("1.2 of the answers' time", median("wall_s")(found["fbench"]) / ideal_s, most=1.2),)
    wall = {name: median("wall_s")(found[name]) for name in arms}
    title = f"{RUNS} x {TURNS} turns, {LONG_LATENCY_S:.0f} s"
    acting_s = median("acting_s")(found["fbench"])
    return [
        Row(f"{title}: s", wall["fbench"], wall["inspect"], None, ideal_s, bars),
        Row("the same, with what a new process imports", wall["fbench, new process"], None, None, ideal_s),
        Row("the same, a run's first turn to its last answer", acting_s, None, None, ideal_s),
    ]


def docker(session: Comparison) -> list[Row]:
    """A trial of three commands, and twenty of five."""
    sides = session.sides
    one = {
        "fbench": lambda: sides.fbench.arm("docker", trials=3, calls=3, at_once=1),
        "harbor": lambda: sides.harbor.arm("docker", trials=1, calls=3),
        BARE: lambda: sides.fbench.arm("docker_floor", trials=3, execs=[3, 1]),
    }
    found = session.alternate("Docker trial", one)
    fbench, harbor, floor = (statistics.median(flat(found[name], "trials_s")) for name in one)
    many = {
        "fbench": lambda: sides.fbench.arm("docker", trials=20, calls=5, at_once=4),
        "inspect": lambda: sides.inspect.arm("docker", trials=20, calls=5, at_once=4),
    }
    twenty = session.alternate("20 in Docker", many, rounds=2)
    bars = (
        Bar("8 times shorter than Harbor's", harbor / fbench, least=8),
        Bar("1.5 of the engine's floor", fbench / floor, most=1.5),
    )
    return [
        Row("a Docker trial of 3 commands, graded: s", fbench, None, harbor, floor, bars),
        row("20 in Docker of 5 commands, 4 at once: s", twenty, "wall_s"),
        row("the same, CPU s with what is started", twenty, all_cpu_s),
    ]


def kill(session: Comparison) -> list[Row]:
    """How long after its time limit the last process of a command is gone."""
    sides = session.sides
    limits: dict[str, Any] = {"limit_s": KILL_LIMIT_S, "patience_s": KILL_PATIENCE_S}
    local = session.alternate(
        "kill, local",
        {
            "fbench": lambda: sides.fbench.arm("kill", sandbox="local", **limits),
            "inspect": lambda: sides.inspect.arm("kill", sandbox="local", **limits),
        },
        rounds=2,
    )
    contained = session.alternate(
        "kill, Docker",
        {
            "fbench": lambda: sides.fbench.arm("kill", sandbox="docker", **limits),
            "inspect": lambda: sides.inspect.arm("kill", sandbox="docker", **limits),
            "harbor": lambda: sides.harbor.arm("kill", **limits),
        },
        rounds=2,
    )
    return [
        row("from a time limit to the last process gone, local: s", local, _late),
        row("the same, Docker: s", contained, _late),
    ]


def memory(session: Comparison) -> list[Row]:
    """A thousand conversations at once."""
    arguments: dict[str, Any] = {"runs": MANY_RUNS, "turns": MANY_TURNS, "latency_s": LATENCY_OF_MANY_S}
    arms = {
        "fbench": lambda: session.sides.fbench.arm("memory", **arguments),
        "inspect": lambda: session.sides.inspect.arm("memory", **arguments),
    }
    found = session.alternate("memory", arms, rounds=1)
    bars = (Bar("less than 400", median("peak_mib")(found["fbench"]), most=400),)
    return [
        row(f"{MANY_RUNS:,} x {MANY_TURNS} turns at once, peak memory MiB", found, "peak_mib", bars),
        row("the same, KiB a conversation", found, _memory_of_one),
        row("the same, under way at one moment", found, "most_at_once"),
        row("the same, s", found, "wall_s"),
        row("the same, CPU s with what is started", found, all_cpu_s),
    ]


PARTS: Mapping[str, Callable[[Comparison], list[Row]]] = {
    "start_up": start_up,
    "bare_loop": bare_loop,
    "local_loop": local_loop,
    "http": http,
    "slow_server": slow_server,
    "docker": docker,
    "kill": kill,
    "memory": memory,
}


def _memory_of_one(facts: Sequence[Mapping[str, Any]]) -> float:
    return float(statistics.median(fact["peak_mib"] - fact["before_mib"] for fact in facts)) * 1024 / MANY_RUNS


def _late(facts: Sequence[Mapping[str, Any]]) -> float | str:
    """The median; in words where something stayed."""
    left = sum(fact["left"] for fact in facts)
    if left:
        return f"never: {left} of {sum(fact['seen'] for fact in facts)} processes alive after {KILL_PATIENCE_S:.0f} s"
    return median("late_s")(facts)
