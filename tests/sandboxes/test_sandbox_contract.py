"""What every sandbox does: one suite, run on `local`, `bubblewrap`, `compose` and `docker`, with a supervisor and
without."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from fbench.engine.errors import SandboxFailed, SandboxLost
from fbench.engine.seams import ExecRequest, Limits, Mount, SandboxSpec
from fbench.sandboxes import local, supervised

TREE = """
sleep {tag} &
setsid sleep {tag} >/dev/null 2>&1 &
python3 -c '
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execvp("sleep", ["sleep", "{tag}"])
    os._exit(0)
os.wait()
'
echo ready
"""


async def test_output_and_exit_code_are_the_commands(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, "echo out; echo err >&2; exit 7")
        assert (done.exit.exit_code, done.exit.signal, done.text) == (7, None, "out\nerr")


async def test_stderr_can_be_told_apart(opener: Any) -> None:
    async with (
        opener() as sandbox,
        sandbox.exec(ExecRequest(("bash", "-c", "echo out; echo err >&2"), merge_stderr=False)) as running,
    ):
        chunks = [chunk async for chunk in running]
        assert {(c.stream, c.data) for c in chunks} == {("stdout", b"out\n"), ("stderr", b"err\n")}


async def test_output_arrives_while_the_command_runs(opener: Any) -> None:
    async with opener() as sandbox, sandbox.exec(ExecRequest(("bash", "-c", "echo one; sleep 5; echo two"))) as running:
        began = time.monotonic()
        async for chunk in running:
            assert chunk.data == b"one\n"
            break
        assert time.monotonic() - began < 3


async def test_stdin_is_fed_and_ends(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        assert (await run(sandbox, "wc -c", stdin=b"x" * 3_000_000)).text == "3000000"
        assert (await run(sandbox, "cat", stdin=None)).output == b""
        assert (await run(sandbox, "exit 3", stdin=b"x" * 3_000_000)).exit.exit_code == 3


async def test_commands_see_the_promised_environment_and_no_other(
    opener: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    async with opener(env={"TZ": "UTC"}) as sandbox:
        text = (await run(sandbox, "env", env={"MINE": "ü"})).text
        seen = dict(line.split("=", 1) for line in text.splitlines())
        assert seen["TZ"] == "UTC"
        assert seen["MINE"] == "ü"
        assert seen["FBENCH_WORKSPACE"] == sandbox.workspace
        assert seen["TERM"] == "dumb"
        assert set(seen) - {"PWD", "SHLVL", "_", "FBENCH_SANDBOX", "FBENCH_EXEC"} == {
            "PATH", "HOME", "TMPDIR", "LANG", "TERM", "SHELL", "USER", "LOGNAME", "PYTHONDONTWRITEBYTECODE", "TZ",
            "MINE", "FBENCH_WORKSPACE",
        }  # fmt: skip


async def test_python_and_pytest_are_those_of_fbench(host_opener: Any, run: Any) -> None:
    async with host_opener() as sandbox:
        for program in ("python", "python3"):
            assert (await run(sandbox, (program, "-c", "import sys; print(sys.prefix)"))).text == sys.prefix
        assert (await run(sandbox, ("pytest", "--version"))).text == f"pytest {pytest.__version__}"


async def test_home_and_tmp_can_be_written_and_stay_in_the_scratch_folder(
    opener: Any, run: Any, spec: SandboxSpec
) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, 'echo a > "$HOME/a"; echo b > "$TMPDIR/b"; echo c > c')
        assert done.exit.exit_code == 0
    assert (spec.scratch / "home" / "a").read_text() == "a\n"
    assert (spec.scratch / "tmp" / "b").read_text() == "b\n"
    assert (spec.workspace / "c").read_text() == "c\n"


async def test_the_workdir_below_the_workspace_is_made(opener: Any, run: Any, spec: SandboxSpec) -> None:
    async with opener(workdir="/workspace/deep/er") as sandbox:
        assert (await run(sandbox, "pwd")).text == f"{sandbox.workspace}/deep/er"
    assert (spec.workspace / "deep" / "er").is_dir()


async def test_mounts_are_named_and_readable(opener: Any, run: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("expected")
    async with opener(mounts=(Mount("grader", tmp_path / "secret"),)) as sandbox:
        assert (await run(sandbox, 'cat "$FBENCH_GRADER/x"')).text == "expected"


async def test_a_signal_gives_128_and_its_number(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, "kill -TERM $$")
        assert (done.exit.exit_code, done.exit.signal) == (143, signal.SIGTERM)


async def test_signals_have_their_default_action(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, "grep -E 'Sig(Blk|Ign)' /proc/self/status")
        assert [line.split()[1] for line in done.text.splitlines()] == ["0" * 16, "0" * 16]


async def test_a_command_holds_no_descriptors_but_its_own(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        assert (await run(sandbox, ("ls", "/proc/self/fd"))).text.split() == ["0", "1", "2", "3"]


async def test_bytes_come_through_unchanged(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        data = bytes(range(256)) * 100
        assert (await run(sandbox, "cat", stdin=data)).output == data


async def test_much_output_flows_in_little_memory(opener: Any) -> None:
    async with opener() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = 0
        async with sandbox.exec(ExecRequest(("head", "-c", "200000000", "/dev/zero"))) as running:
            async for chunk in running:
                total += len(chunk.data)
        assert total == 200_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_unread_output_holds_the_command_back(opener: Any, spec: SandboxSpec) -> None:
    async with opener() as sandbox:
        command = "head -c 50000000 /dev/zero; touch through"
        async with sandbox.exec(ExecRequest(("bash", "-c", command))) as running:
            await anyio.sleep(0.5)
            assert not (spec.workspace / "through").exists()
            assert sum([len(chunk.data) async for chunk in running]) == 50_000_000
        assert (spec.workspace / "through").exists()


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        (("no-such-program",), 127, "not found"),
        (("/etc",), 126, "Permission denied"),
        ((), 126, "no program"),
        (("echo", "a\0b"), 126, "NUL"),
        (("echo", "x" * 200_000), 126, "too long"),
        (("echo", *["x" * 100_000] * 40), 126, "too long"),
    ],
)
async def test_what_cannot_start_is_a_value_with_a_reason(
    opener: Any, run: Any, argv: tuple[str, ...], code: int, reason: str
) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, argv)
        assert done.exit.exit_code == code
        assert reason in done.exit.reason
        assert (await run(sandbox, "echo still here")).text == "still here"


async def test_a_missing_working_folder_is_a_value_with_a_reason(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, "true", cwd="/no/such/folder")
        assert done.exit.exit_code == 126
        assert "working folder" in done.exit.reason


async def test_long_commands_and_odd_texts_arrive(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        done = await run(sandbox, ("bash", "-c", 'echo $#; printf %s "$1"', "-", "\udcff", *["y" * 100_000] * 5))
        assert done.output == b"6\n\xff"
        assert (await run(sandbox, ("printf", "%s", "\ud800"))).output == b"?"


async def test_leaving_a_running_exec_ends_its_whole_tree(until: Any, opener: Any, alive: Any, tag: str) -> None:
    async with opener() as sandbox:
        async with sandbox.exec(ExecRequest(("bash", "-c", TREE.format(tag=tag) + f"sleep {tag}"))) as running:
            async for chunk in running:
                if b"ready" in chunk.data:
                    break
            assert await until(lambda: len(alive(tag)) >= 4)
        assert alive(tag) == []


async def test_a_cancelled_exec_ends_its_tree_and_the_cancellation_goes_on(
    opener: Any, run: Any, alive: Any, tag: str
) -> None:
    async with opener() as sandbox:
        began = time.monotonic()
        with anyio.move_on_after(1) as scope:
            await run(sandbox, f"trap '' TERM; {TREE.format(tag=tag)} sleep {tag}")
        assert scope.cancelled_caught
        assert time.monotonic() - began < 4
        assert alive(tag) == []
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_kill_reports_signal_nine(opener: Any, alive: Any, tag: str) -> None:
    async with opener() as sandbox, sandbox.exec(ExecRequest(("sleep", tag))) as running:
        await running.kill()
        assert alive(tag) == []
        assert (await running.wait()).exit_code == 137


async def test_kill_ends_what_an_ended_command_left_behind(until: Any, opener: Any, alive: Any, tag: str) -> None:
    async with opener() as sandbox, sandbox.exec(ExecRequest(("bash", "-c", TREE.format(tag=tag)))) as running:
        assert b"".join([c.data async for c in running]) == b"ready\n"
        assert await until(lambda: len(alive(tag)) == 3)
        await running.kill()
        assert alive(tag) == []


async def test_a_fork_storm_can_be_ended(opener: Any, alive: Any, tag: str) -> None:
    async with opener(limits=Limits(pids=150)) as sandbox:
        limit = "ulimit -u 2000; " if sandbox.capabilities.limits["pids"] == "" else ""
        storm = f"{limit}f() {{ f {tag} & f {tag} & }}; f 2>/dev/null; for i in 1 2 3 4 5; do sleep 1; done # {tag}"
        began = time.monotonic()
        async with sandbox.exec(ExecRequest(("bash", "-c", storm))):
            await anyio.sleep(0.5)
        assert alive(tag) == []
        assert time.monotonic() - began < 12


async def test_a_background_job_outlives_its_exec_and_dies_at_close(
    until: Any, opener: Any, run: Any, alive: Any, tag: str
) -> None:
    async with opener() as sandbox:
        began = time.monotonic()
        assert (await run(sandbox, f"sleep {tag} & echo started")).text == "started"
        assert time.monotonic() - began < 5
        await run(sandbox, "true")
        assert await until(lambda: len(alive(tag)) == 1)
    assert alive(tag) == []


async def test_a_background_job_may_go_on_writing(opener: Any, run: Any, spec: SandboxSpec, until: Any) -> None:
    async with opener() as sandbox:
        await run(sandbox, "(for i in 1 2 3 4 5 6; do head -c 300000 /dev/zero; sleep 0.1; done; touch wrote) &")
        assert await until((spec.workspace / "wrote").exists)


async def test_end_processes_leaves_a_usable_sandbox(until: Any, opener: Any, run: Any, alive: Any, tag: str) -> None:
    async with opener() as sandbox:
        await run(sandbox, TREE.format(tag=tag))
        assert await until(lambda: len(alive(tag)) == 3)
        await sandbox.end_processes()
        assert alive(tag) == []
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_a_killed_monitor_loses_nobody(supervised_opener: Any, run: Any, alive: Any, tag: str) -> None:
    async with supervised_opener() as sandbox:
        done = await run(sandbox, f"sleep {tag} & kill -KILL $PPID; sleep 0.2; exit 5")
        assert done.exit.exit_code == 5
        async with sandbox.exec(ExecRequest(("bash", "-c", f"setsid sleep {tag} & kill -KILL $PPID; sleep {tag}"))):
            await anyio.sleep(0.3)
        assert alive(tag) == []


async def test_a_stopped_monitor_still_reports(supervised_opener: Any, run: Any) -> None:
    async with supervised_opener() as sandbox:
        assert (await run(sandbox, "kill -STOP $PPID; exit 4")).exit.exit_code == 4


async def test_twenty_sandboxes_live_at_once(opener: Any, run: Any, tmp_path: Path) -> None:
    texts: list[str] = []

    async def one(number: int) -> None:
        folder = tmp_path / str(number)
        (folder / "workspace").mkdir(parents=True)
        async with opener(workspace=folder / "workspace", scratch=folder / "scratch") as sandbox:
            texts.append((await run(sandbox, f"echo {number} > mine; cat mine")).text)
            await anyio.sleep(0.5)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)
    assert sorted(texts, key=int) == [str(number) for number in range(20)]


async def test_a_gigabyte_of_output_is_all_there(opener: Any) -> None:
    async with opener() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = 0
        async with sandbox.exec(ExecRequest(("head", "-c", "1000000000", "/dev/zero"))) as running:
            async for chunk in running:
                total += len(chunk.data)
            assert (await running.wait()).exit_code == 0
        assert total == 1_000_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_the_network_is_closed_where_the_sandbox_says_so(opener: Any, run: Any) -> None:
    server = await anyio.create_tcp_listener(local_host="0.0.0.0")
    port = server.extra(anyio.abc.SocketAttribute.local_port)
    code = f"""
import socket, pathlib
for address in ("127.0.0.1", "172.17.0.1", "{_own_address()}"):
    try: socket.create_connection((address, {port}), 2); print("reached", address)
    except OSError: pass
print("done")
"""
    async with server, opener() as sandbox:
        text = (await run(sandbox, ("python3", "-c", code))).text
        if sandbox.capabilities.limits["network"] == "namespace":
            assert text == "done"
        else:
            assert "reached" in text
            assert not sandbox.capabilities.isolated


async def test_what_is_not_limited_is_not_claimed(opener: Any) -> None:
    async with opener() as sandbox:
        claimed = {name for name, how in sandbox.capabilities.limits.items() if how and name != "network"}
        assert claimed == set()
        assert set(sandbox.capabilities.limits) == {"cpus", "memory", "pids", "disk", "network"}


async def test_fifty_commands_run_at_once(opener: Any, run: Any) -> None:
    async with opener() as sandbox:
        texts: list[str] = []

        async def one(number: int) -> None:
            texts.append((await run(sandbox, f"sleep 0.2; echo {number}")).text)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        assert sorted(texts, key=int) == [str(number) for number in range(50)]


async def test_cancelling_the_start_leaves_nothing(opener: Any, alive: Any, spec: SandboxSpec) -> None:
    descriptors = len(_descriptors())
    for delay in (0.0, 0.001, 0.003, 0.005, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05):
        with anyio.move_on_after(delay):
            async with opener():
                await anyio.sleep_forever()
    assert alive(str(spec.scratch)) == []
    assert len(_descriptors()) <= descriptors + 1
    _assert_no_child_left()


async def test_a_cancelled_body_sees_its_cancellation_and_leaves_nothing(opener: Any, alive: Any, tag: str) -> None:
    went_on = False
    with anyio.CancelScope() as scope:
        async with opener() as sandbox, sandbox.exec(ExecRequest(("sleep", tag))):
            scope.cancel()
            await anyio.sleep_forever()
        went_on = True
    assert scope.cancelled_caught
    assert not went_on
    assert alive(tag) == []


async def test_cancellation_during_close_waits_for_the_close(opener: Any, run: Any, alive: Any, tag: str) -> None:
    with anyio.CancelScope() as scope:
        async with opener() as sandbox:
            await run(sandbox, f"sleep {tag} &")
            scope.cancel()
    assert alive(tag) == []
    _assert_no_child_left()


async def test_an_error_of_the_body_comes_out_as_it_is(opener: Any) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with opener():
            raise error
    assert caught.value is error


async def test_a_lost_supervisor_is_an_error_and_no_hang(
    supervised_opener: Any, run: Any, alive: Any, tag: str
) -> None:
    with anyio.fail_after(20):
        async with supervised_opener() as sandbox:
            await run(sandbox, f"sleep {tag} &")
            async with sandbox.exec(ExecRequest(("sleep", tag))) as running:
                os.kill(sandbox.begun.link.pid, signal.SIGKILL)
                with pytest.raises(SandboxLost, match="supervisor is gone"):
                    await running.wait()
            with pytest.raises(SandboxLost):
                await run(sandbox, "true")
    assert alive(tag) == []
    _assert_no_child_left()


async def test_a_stopped_supervisor_and_monitor_keep_no_process_alive(
    open_local: Any, alive: Any, until: Any, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "KILL_GRACE_S", 0.5)
    script = f"""setsid sleep {tag} &
        for pid in $(awk '/^PPid/ {{print $2}}' /proc/$PPID/status) $PPID; do kill -STOP $pid; done; sleep {tag}"""
    with anyio.fail_after(20):
        async with open_local() as sandbox:
            async with sandbox.exec(ExecRequest(("bash", "-c", script))):
                await until(lambda: len(alive(f"sleep\0{tag}")) == 2)
            mark = sandbox._surroundings.env[local.MARK]
    assert alive(tag) == []
    assert alive(mark) == []
    _assert_no_child_left()


HOST = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from fbench.engine.owner import owner_identity
from fbench.engine.seams import ExecRequest, SandboxSpec

@asynccontextmanager
async def open_docker(spec):
    from fbench.sandboxes.docker import open_container_sandbox
    from fbench.sandboxes.docker_engine import open_container_host
    async with open_container_host() as host:
        async with open_container_sandbox(host, spec, image={image!r}, owner=owner_identity()) as sandbox:
            yield sandbox

async def main():
    spec = SandboxSpec(run_id="r", workspace=Path({workspace!r}), scratch=Path({scratch!r}))
    if {kind!r} == "docker":
        open_sandbox = open_docker
    else:
        from fbench.sandboxes.{module} import open_sandbox
    async with open_sandbox(spec) as sandbox:
        async with sandbox.exec(ExecRequest(("bash", "-c", {command!r}))) as running:
            async for chunk in running:
                print(chunk.data.decode(), end="", flush=True)
        await asyncio.sleep(100)

asyncio.run(main())
"""


async def test_a_killed_host_process_leaves_nobody(
    supervised_kind: str, spec: SandboxSpec, alive: Any, until: Any, tag: str, image: str
) -> None:
    code = HOST.format(
        kind=supervised_kind,
        module="local" if supervised_kind == "docker" else supervised_kind,
        image=image,
        workspace=str(spec.workspace),
        scratch=str(spec.scratch),
        command=TREE.format(tag=tag),
    )
    with subprocess.Popen(  # noqa: ASYNC220 - a host process to kill, started once
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        assert await until(lambda: len(alive(f"sleep\0{tag}")) == 3)
        host.kill()
        assert await until(lambda: alive(tag) == [], 5)


async def test_opening_and_closing_many_times_leaks_nothing(opener: Any, kind: str) -> None:
    times = 50 if kind in {"local", "bubblewrap"} else 12  # of containers, each costs 0.5 s
    async with opener():
        pass
    descriptors = _descriptors()
    for _ in range(times):
        async with opener():
            pass
    assert _descriptors() == descriptors
    _assert_no_child_left()


async def test_execs_leak_no_descriptors(opener: Any, run: Any, until: Any) -> None:
    async with opener() as sandbox:
        await run(sandbox, "true")
        descriptors = len(_descriptors())
        for _ in range(30):
            await run(sandbox, "true", stdin=b"x")
            await run(sandbox, ("no-such-program",))
        assert await until(lambda: len(_descriptors()) <= descriptors)


async def test_a_sandbox_opens_in_the_loop_of_another_thread(opener: Any, run: Any) -> None:
    async def inside() -> str:
        async with opener() as sandbox:
            return str((await run(sandbox, "echo there")).text)

    assert await anyio.to_thread.run_sync(lambda: anyio.run(inside)) == "there"


async def test_memory_over_the_limit_is_told(opener: Any, run: Any) -> None:
    async with opener(limits=Limits(memory_bytes=200 * 1024**2)) as sandbox:
        done = await run(sandbox, ("python", "-c", "x = bytearray(600 * 1024**2); print(len(x))"))
        assert done.exit.exit_code != 0
        if sandbox.capabilities.limits["memory"] == "cgroup":
            assert done.exit.out_of_memory
            assert done.exit.exit_code == 137
        else:
            assert "MemoryError" in done.text
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_a_kill_that_was_not_for_memory_is_not_called_so(opener: Any, run: Any) -> None:
    async with opener(limits=Limits(memory_bytes=200 * 1024**2)) as sandbox:
        assert not (await run(sandbox, "kill -KILL $$")).exit.out_of_memory


async def test_processes_over_the_limit_are_refused(opener: Any, run: Any) -> None:
    async with opener(limits=Limits(pids=20)) as sandbox:
        if sandbox.capabilities.limits["pids"] == "":
            pytest.skip("NOT TESTED HERE: this machine lets us limit no processes")
        code = (
            "import os, signal\ncount = 0\ntry:\n  while count < 60:\n"
            "    if os.fork() == 0: signal.pause()\n    count += 1\nfinally: print(count, flush=True)"
        )
        done = await run(sandbox, ("python", "-c", code))
        assert done.exit.exit_code == 1
        assert 10 <= int(done.text.splitlines()[0]) < 30
        await sandbox.end_processes()
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_cpu_time_is_shared_out(opener: Any, run: Any) -> None:
    async with opener(limits=Limits(cpus=0.2)) as sandbox:
        if sandbox.capabilities.limits["cpus"] != "cgroup":
            pytest.skip("NOT TESTED HERE: this machine gives us no cpu groups")
        code = "import os,time\ne=time.time()+2\nwhile time.time()<e: pass\nprint(sum(os.times()[:2]))"
        assert float((await run(sandbox, ("python", "-c", code))).text) < 1.0


async def test_writing_over_the_disk_limit_ends_the_command(opener: Any, run: Any, spec: SandboxSpec) -> None:
    async with opener(limits=Limits(disk_bytes=50 * 1024**2)) as sandbox:
        command = "for i in $(seq 300); do head -c 10000000 /dev/urandom > f$i; sleep 0.1; done"
        done = await run(sandbox, command)
        assert done.exit.exit_code == 137
        assert "disk limit" in done.exit.reason
        assert (await run(sandbox, "sleep 1.5; rm -f f*; echo clean")).text == "clean"
    assert list(spec.workspace.iterdir()) == []


async def test_one_file_over_the_disk_limit_is_cut(opener: Any, run: Any, spec: SandboxSpec) -> None:
    async with opener(limits=Limits(disk_bytes=10 * 1024**2)) as sandbox:
        assert (await run(sandbox, "head -c 30000000 /dev/zero > big")).exit.exit_code != 0
    assert (spec.workspace / "big").stat().st_size <= 10 * 1024**2


async def test_control_groups_are_gone_after_close(supervised_opener: Any) -> None:
    async with supervised_opener(limits=Limits(memory_bytes=1 << 30, pids=100, cpus=1.0)) as sandbox:
        groups = (await sandbox.begin()).found.groups
        folders = set(groups.folders.values()) if groups else set()
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)


async def test_a_missing_workspace_is_refused_in_words(opener: Any, tmp_path: Path) -> None:
    with pytest.raises(SandboxFailed, match="missing or no folder"):
        async with opener(workspace=tmp_path / "nowhere"):
            pass


async def test_the_contract_holds_beside_a_service(
    until: Any, open_beside_a_service: Any, run: Any, alive: Any, tag: str, spec: SandboxSpec
) -> None:
    """The kinds above have no service; with one, each promise once."""
    async with open_beside_a_service(limits=Limits(memory_bytes=200 * 1024**2)) as sandbox:
        done = await run(sandbox, "cat; echo err >&2; exit 7", stdin=b"in\xff\n")
        assert (done.exit.exit_code, done.output) == (7, b"in\xff\nerr\n")
        assert (await run(sandbox, ("no-such-program",))).exit.exit_code == 127
        assert (await run(sandbox, "kill -TERM $$")).exit.signal == signal.SIGTERM
        assert "STORE" not in (await run(sandbox, "env")).text
        assert (await run(sandbox, "cat /proc/[0-9]*/cmdline | grep -ac 'http.serve[r]'")).text == "0"
        assert (await run(sandbox, ("python3", "-c", REACH))).text == "store answers\nno one else"
        async with sandbox.exec(ExecRequest(("bash", "-c", TREE.format(tag=tag) + f"sleep {tag}"))) as running:
            async for chunk in running:
                if b"ready" in chunk.data:
                    break
            assert await until(lambda: len(alive(tag)) >= 4)
        assert alive(tag) == []
        done = await run(sandbox, ("python3", "-c", "x = bytearray(600 * 1024**2)"))
        assert (done.exit.exit_code, done.exit.out_of_memory) == (137, True)
        await run(sandbox, f"sleep {tag} & echo mine > c")
        assert await until(lambda: len(alive(tag)) == 1)
        await sandbox.end_processes()
        assert alive(tag) == []
        assert (await run(sandbox, ("python3", "-c", REACH))).text == "store answers\nno one else"
        await run(sandbox, f"sleep {tag} &")
    assert alive(tag) == []
    assert ((spec.workspace / "c").read_text(), (spec.workspace / "c").stat().st_uid) == ("mine\n", os.geteuid())


REACH = """
import socket
socket.create_connection(("store", 80), 5)
print("store answers")
try: print(socket.create_connection(("192.0.2.1", 80), 2))
except OSError: print("no one else")
"""


def _own_address() -> str:
    """An address of this machine others could reach it by, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def _assert_no_child_left() -> None:
    """No zombie and no running child of this process that is a supervisor."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == os.getpid():
                assert stat[0] != "Z"
                assert b"supervisor.py" not in command
