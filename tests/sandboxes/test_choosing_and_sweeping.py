"""Choosing a sandbox, limits without groups, owners, and what is swept."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fbench.engine.errors import SandboxFailed, SandboxLost, UsageError
from fbench.engine.owner import Owner
from fbench.engine.scratch import make_scratch_folder, scratch_root
from fbench.engine.seams import Limits, SandboxSpec
from fbench.sandboxes import cgroups, choose, limits, surroundings, watching
from fbench.sandboxes.choose import SandboxChoice, choose_sandbox
from fbench.sandboxes.link import SUPERVISOR_FILE
from fbench.sandboxes.sweep import sweep_scratch
from fbench.tasks.manifest import Environment

PLAIN = Environment()
SERVICES = Environment.model_validate({"services": {"db": {"image": "postgres"}}})
ONLINE = Environment.model_validate({"network": {"allow": ["internet"]}})
CONTAINER = Environment(container_only=True)


async def _usable() -> str | None:
    return None


async def _unusable() -> str | None:
    return "bubblewrap is not in PATH"


async def _no_engine() -> str | None:
    return "no Docker engine at unix:///nowhere"


async def _no_compose() -> str | None:
    return "Docker's command line has no Compose plugin: install the plugin"


async def _has_image(_name: str) -> bool:
    return True


async def _has_no_image(_name: str) -> bool:
    return False


def probes(**given: Any) -> dict[str, Any]:
    """What there is on a machine: nothing, but an image, and what is given."""
    nothing = {"probe_engine": _no_engine, "probe_compose": _no_compose, "probe_bubblewrap": _unusable}
    return {**nothing, "probe_image": _has_image, **given}


NOTHING = probes()
WITHOUT_DOCKER = probes(probe_bubblewrap=_usable)
EVERYTHING = probes(probe_engine=_usable, probe_compose=_usable, probe_bubblewrap=_usable)
WITHOUT_IMAGE = {**EVERYTHING, "probe_image": _has_no_image}


@pytest.mark.parametrize("is_fake", [True, False])
async def test_auto_takes_docker_then_bubblewrap(is_fake: bool) -> None:
    choice = await choose_sandbox("auto", PLAIN, model_is_fake=is_fake, **EVERYTHING)
    assert choice == SandboxChoice("docker")
    choice = await choose_sandbox("auto", PLAIN, model_is_fake=is_fake, **WITHOUT_DOCKER)
    assert choice == SandboxChoice("bubblewrap")


async def test_auto_passes_an_engine_by_that_has_not_our_own_image() -> None:
    choice = await choose_sandbox("auto", PLAIN, model_is_fake=False, **WITHOUT_IMAGE)
    assert choice.kind == "bubblewrap"
    assert "fbench images build" in str(choice.warning)


@pytest.mark.parametrize(
    ("requested", "environment"), [("docker", PLAIN), ("auto", CONTAINER), ("auto", Environment(image="their/own:1"))]
)
async def test_a_missing_image_that_was_asked_for_is_not_passed_by(requested: str, environment: Environment) -> None:
    choice = await choose_sandbox(requested, environment, model_is_fake=True, **WITHOUT_IMAGE)
    assert choice.kind == "docker"


async def test_a_real_model_without_image_and_bubblewrap_is_told_of_both() -> None:
    with pytest.raises(UsageError, match="fbench images build"):
        await choose_sandbox("auto", PLAIN, model_is_fake=False, **{**WITHOUT_IMAGE, "probe_bubblewrap": _unusable})


async def test_a_fake_model_without_docker_and_bubblewrap_runs_locally_with_a_warning() -> None:
    choice = await choose_sandbox("auto", PLAIN, model_is_fake=True, **NOTHING)
    assert choice.kind == "local"
    assert "bubblewrap is not in PATH" in str(choice.warning)


async def test_a_real_model_never_runs_unisolated_unasked() -> None:
    with pytest.raises(UsageError, match="apt-get install bubblewrap") as caught:
        await choose_sandbox("auto", PLAIN, model_is_fake=False, **NOTHING)
    assert "unix:///nowhere" in str(caught.value)
    asked = await choose_sandbox("local", PLAIN, model_is_fake=False, **NOTHING)
    assert asked.kind == "local"
    assert "without isolation" in str(asked.warning)


@pytest.mark.parametrize("requested", ["auto", "docker"])
@pytest.mark.parametrize(
    ("environment", "kind"), [(PLAIN, "docker"), (CONTAINER, "docker"), (SERVICES, "compose"), (ONLINE, "compose")]
)
async def test_what_the_task_needs_decides_between_docker_and_compose(
    requested: str, environment: Environment, kind: str
) -> None:
    assert await choose_sandbox(requested, environment, model_is_fake=False, **EVERYTHING) == SandboxChoice(kind)


@pytest.mark.parametrize("requested", ["bubblewrap", "local"])
@pytest.mark.parametrize(
    ("environment", "word"), [(SERVICES, "Compose"), (ONLINE, "Compose"), (CONTAINER, "container_only")]
)
async def test_what_needs_containers_is_refused_elsewhere(requested: str, environment: Environment, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        await choose_sandbox(requested, environment, model_is_fake=True, **EVERYTHING)
    assert "--sandbox docker" in str(caught.value)


@pytest.mark.parametrize("requested", ["auto", "docker"])
@pytest.mark.parametrize(
    ("environment", "word"), [(SERVICES, "Compose"), (ONLINE, "Compose"), (CONTAINER, "container_only")]
)
async def test_what_needs_containers_never_falls_back(requested: str, environment: Environment, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        await choose_sandbox(requested, environment, model_is_fake=True, **WITHOUT_DOCKER)
    assert "unix:///nowhere" in str(caught.value)
    assert "install Docker Engine" in str(caught.value)


async def test_docker_that_was_asked_for_is_not_replaced() -> None:
    with pytest.raises(UsageError, match="install Docker Engine"):
        await choose_sandbox("docker", PLAIN, model_is_fake=True, **WITHOUT_DOCKER)


async def test_only_services_need_the_compose_plugin() -> None:
    without = {**EVERYTHING, "probe_compose": _no_compose}
    with pytest.raises(UsageError, match="no Compose plugin"):
        await choose_sandbox("auto", SERVICES, model_is_fake=True, **without)
    assert (await choose_sandbox("auto", ONLINE, model_is_fake=True, **without)).kind == "compose"
    assert (await choose_sandbox("auto", PLAIN, model_is_fake=True, **without)).kind == "docker"


async def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="auto, docker, bubblewrap"):
        await choose_sandbox("vm", PLAIN, model_is_fake=True, **EVERYTHING)


async def test_an_asked_for_but_unusable_bubblewrap_is_refused() -> None:
    with pytest.raises(UsageError, match="not in PATH"):
        await choose_sandbox("bubblewrap", PLAIN, model_is_fake=True, **NOTHING)


async def test_an_absent_engine_is_noticed_at_once_without_loading_its_client(tmp_path: Path) -> None:
    code = (
        "import sys, time, anyio; from fbench.sandboxes.choose import probe_engine\n"
        "async def look():\n"
        "    start = time.monotonic(); said = await probe_engine(); print(time.monotonic() - start); print(said)\n"
        "anyio.run(look); print('aiodocker' in sys.modules, 'python_on_whales' in sys.modules)"
    )
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = await anyio.run_process([sys.executable, "-P", "-c", code], env=env)
    took, said, loaded = done.stdout.decode().splitlines()
    assert float(took) < 0.05
    assert f"{tmp_path}/none.sock" in said
    assert loaded == "False False"


async def test_a_silent_engine_is_asked_once_and_its_answer_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def count(_address: object) -> str | None:
        nonlocal asked
        asked += 1
        return "it said nothing"

    monkeypatch.setattr(choose, "ping", count)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/one.sock")
    assert await choose.probe_engine() == await choose.probe_engine() == "it said nothing"
    assert asked == 1
    monkeypatch.setattr(choose, "KEEP_ANSWER_S", 0.0)
    await choose.probe_engine()
    assert asked == 2
    monkeypatch.setenv("DOCKER_HOST", "ssh://nowhere")
    assert "ssh" in str(await choose.probe_engine())


def test_without_groups_rlimits_do_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "make_groups", lambda _: None)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    asked = Limits(cpus=1.5, memory_bytes=100, pids=7, disk_bytes=50)
    found = limits.enforce(asked, own_user_namespace=False)
    assert found.how == {"cpus": "affinity", "memory": "rlimit", "pids": "rlimit", "disk": "watched"}
    assert found.rlimits == {"RLIMIT_CORE": 0, "RLIMIT_DATA": 100, "RLIMIT_NPROC": 7, "RLIMIT_FSIZE": 50}
    assert len(found.cpus) == 2
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert limits.enforce(asked, own_user_namespace=True).how["pids"] == ""
    assert set(limits.enforce(Limits(), own_user_namespace=True).how.values()) == {""}


async def test_what_is_described_is_what_a_sandbox_does(open_local: Any) -> None:
    described = await limits.describe_enforcement(own_user_namespace=False)
    asked = Limits(cpus=1.0, memory_bytes=1 << 30, pids=64, disk_bytes=1 << 30)
    async with open_local(limits=asked) as sandbox:
        assert sandbox.capabilities.limits == described


def test_both_versions_of_groups_are_found(tmp_path: Path) -> None:
    memory, unified = tmp_path / "memory", tmp_path / "unified"
    (memory / "job").mkdir(parents=True)
    (unified / "user" / "job").mkdir(parents=True)
    for folder, subtree in ((unified / "user" / "job", ""), (unified / "user", "cpu memory pids")):
        (folder / "cgroup.controllers").write_text("cpu memory pids io")
        (folder / "cgroup.subtree_control").write_text(subtree)
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(
        f"35 31 0:32 / {memory} rw - cgroup cgroup rw,memory\n"
        f"41 31 0:38 /user {unified / 'user'} rw - cgroup2 cgroup2 rw\n1 0 8:1 / / rw - ext4 /dev/x rw\n"
    )
    own.write_text("4:memory:/job\n1:name=systemd:/\n0::/user/job\n")
    found = cgroups.find_hierarchies(mounts, own)
    assert (found[0].version, found[0].parent, found[0].controllers) == (1, memory / "job", frozenset({"memory"}))
    assert {(h.version, h.parent) for h in found[1:]} >= {(2, unified / "user")}
    assert cgroups.find_hierarchies(tmp_path / "nothing", own) == ()


async def test_version_2_groups_get_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_mkdir = Path.mkdir

    def mkdir(folder: Path, *args: Any, **more: Any) -> None:
        real_mkdir(folder, *args, **more)
        for name in ("cgroup.procs", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"):
            (folder / name).touch()
        (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    where = cgroups.Hierarchy(2, tmp_path, frozenset(cgroups.CONTROLLERS))
    groups = cgroups.make_groups(Limits(cpus=0.5, memory_bytes=1000, pids=5), (where,))
    assert groups is not None
    folder = groups.folders["memory"]
    assert (folder / "memory.max").read_text() == "1000"
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert (folder / "pids.max").read_text() == str(5 + cgroups.OWN_PIDS)
    assert groups.count_oom_kills() == 2


def test_owners_are_told_alive_from_dead() -> None:
    me = Owner.this_process()
    assert Owner.parse(str(me)) == me
    assert Owner.from_file_name(me.as_file_name()) == me
    assert me.is_alive()
    assert not Owner(me.host, me.pid, me.start + 1).is_alive()
    assert Owner("elsewhere", 1, 1).is_alive()
    for nonsense in ("", "a", "a:b:c", ":1:2", "1:2"):
        assert Owner.parse(nonsense) is None


def test_folders_of_dead_owners_are_swept_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "from fbench.engine.scratch import make_scratch_folder; print(make_scratch_folder('dead'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    dead = Path(done.stdout.strip())
    root = dead.parent
    assert root == scratch_root()
    mine = make_scratch_folder("mine")
    just_made, abandoned, linked = root / "just_made", root / "abandoned", root / "linked"
    just_made.mkdir()
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    linked.symlink_to(dead)
    me = Owner.this_process()
    half_made = root / f".owner-{me.as_file_name()}-half"
    half_removed = root / f".owner-{me.pid}-{me.start + 1}-half"
    half_made.mkdir()
    half_removed.mkdir()
    assert set(sweep_scratch()) >= {dead, abandoned, half_removed}
    assert sorted(path.name for path in root.iterdir()) == [half_made.name, "just_made", "linked", "mine"]
    assert mine.is_dir()


def test_used_bytes_follow_no_link_and_count_hard_links_once(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1_000_000))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").write_bytes(os.urandom(500_000))
    os.link(inside / "a", inside / "b")
    (inside / "c").symlink_to(big)
    with (inside / "sparse").open("wb") as file:
        file.truncate(10**9)
    assert 500_000 <= watching.used_bytes([inside]) < 600_000


def test_a_full_host_disk_stops_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_free_bytes", lambda _: 100)
    assert "disk is almost full" in str(watching.DiskWatch([tmp_path], None).look())


def test_missing_programs_get_a_shim_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(surroundings, "scripts_folder", lambda: tmp_path / "empty")
    assert surroundings.write_shims(tmp_path / "shims")
    for program, arguments, expected in (("python", ["-c", "print(1)"], "1"), ("pytest", ["--version"], "pytest")):
        done = subprocess.run([tmp_path / "shims" / program, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(expected)


async def test_groups_of_dead_owners_are_swept() -> None:
    asked = Limits(memory_bytes=1 << 30, pids=64)
    code = (
        "from fbench.sandboxes.cgroups import make_groups; from fbench.engine.seams import Limits;"
        "g = make_groups(Limits(memory_bytes=1 << 30, pids=64));"
        "print(*(set(g.folders.values()) if g else ()), sep='\\n')"
    )
    done = await anyio.run_process([sys.executable, "-c", code])
    left = [Path(line) for line in done.stdout.decode().split()]
    mine = cgroups.make_groups(asked)
    assert bool(left) == (mine is not None)
    assert all(folder.is_dir() for folder in left)
    assert set(left) <= set(cgroups.sweep_groups())
    assert not any(folder.exists() for folder in left)
    if mine is not None:
        assert all(folder.is_dir() for folder in mine.folders.values())
        await mine.remove()
        assert not any(folder.exists() for folder in mine.folders.values())


async def test_a_local_sandbox_has_a_supervisor_with_its_first_command_and_not_before(
    open_local: Any, run: Any, alive: Callable[[str], list[int]], spec: SandboxSpec
) -> None:
    asked = Limits(cpus=1.0, memory_bytes=1 << 30, pids=64, disk_bytes=1 << 30)
    async with open_local(limits=asked) as sandbox:
        foreseen = dict(sandbox.capabilities.limits)
        await sandbox.end_processes()
        assert sandbox.begun is None
        assert not (spec.scratch / "home").exists()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(run, sandbox, "true")
        assert own_supervisors(alive) == [(await sandbox.begin()).link.pid]
        assert dict(sandbox.capabilities.limits) == foreseen
    assert own_supervisors(alive) == []


async def test_a_command_after_the_end_of_a_sandbox_begins_nothing(
    open_local: Any, run: Any, alive: Callable[[str], list[int]]
) -> None:
    async with open_local() as sandbox:
        pass
    with pytest.raises(SandboxLost, match="closed"):
        await run(sandbox, "true")
    assert own_supervisors(alive) == []


async def test_a_sandbox_that_closes_while_its_first_command_begins_leaves_nothing(
    open_local: Any, run: Any, alive: Callable[[str], list[int]]
) -> None:
    """As with a tool that starts commands from tasks of its own."""
    has_ended = anyio.Event()

    async def first_command(sandbox: Any) -> None:
        with suppress(SandboxLost):
            await run(sandbox, "sleep 60")
        has_ended.set()

    async with anyio.create_task_group() as group:
        async with open_local(limits=Limits(pids=64)) as sandbox:
            group.start_soon(first_command, sandbox)
            while sandbox.begun is None and not own_supervisors(alive):
                await anyio.lowlevel.checkpoint()
            assert sandbox.begun is None
        with anyio.fail_after(20):
            await has_ended.wait()
    assert own_supervisors(alive) == []
    assert not cgroups_of_this_process()


async def test_first_commands_that_are_cancelled_leave_nothing_and_the_next_one_runs(
    open_local: Any, run: Any, alive: Callable[[str], list[int]]
) -> None:
    async with open_local() as sandbox:
        for turns in range(12):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(run, sandbox, "sleep 60")
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        with anyio.fail_after(20):
            assert (await run(sandbox, "echo up")).output == b"up\n"
    assert own_supervisors(alive) == []


async def test_a_local_sandbox_without_a_command_leaves_nothing(
    open_local: Any, alive: Callable[[str], list[int]]
) -> None:
    async with open_local() as sandbox:
        assert sandbox.capabilities.has_bash
        assert own_supervisors(alive) == []
    assert sandbox.is_cleared


async def test_a_supervisor_that_cannot_start_is_told_and_tried_again(
    open_local: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_local() as sandbox:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nonexistent/python")
            with pytest.raises(SandboxFailed, match="local sandbox could not be started"):
                await run(sandbox, "true")
        assert not cgroups_of_this_process()
        assert (await run(sandbox, "echo up")).output == b"up\n"


async def test_a_machine_without_bash_is_told_before_a_command_needs_it(
    open_local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(surroundings, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(surroundings, "scripts_folder", lambda: tmp_path)
    with pytest.raises(SandboxFailed, match="no bash"):
        async with open_local():
            pass


def own_supervisors(alive: Callable[[str], list[int]]) -> list[int]:
    """Those whose parent is this process; other tests run beside this one."""
    found = []
    for pid in alive(str(SUPERVISOR_FILE)):
        with suppress(FileNotFoundError):  # it was another's, and has ended
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(pid)
    return found


def cgroups_of_this_process() -> list[Path]:
    """The groups that this process has made and not removed."""
    mine = f"{cgroups.PREFIX}{Owner.this_process().as_file_name()}-*"
    return [folder for where in cgroups.find_hierarchies() for folder in where.parent.glob(mine)]
