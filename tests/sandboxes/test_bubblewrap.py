"""What only bubblewrap does: hide the host, the keys and the graders."""

import importlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fbench.engine.errors import SandboxFailed
from fbench.engine.seams import Limits, Mount, SandboxSpec, SiteSpec
from fbench.sandboxes import bubblewrap, visible
from fbench.sandboxes.bubblewrap import open_site
from fbench.sandboxes.surroundings import real
from fbench.tasks.manifest import Environment

EVERYWHERE = "cat /proc/[0-9]*/environ /proc/self/environ 2>/dev/null; env; cat /proc/*/cmdline 2>/dev/null"


async def test_a_key_of_the_host_is_nowhere(open_bubblewrap: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    async with open_bubblewrap() as sandbox:
        output = (await run(sandbox, EVERYWHERE)).output
        assert b"FBENCH_WORKSPACE" in output
        assert b"sk-very-secret" not in output
        assert b"OPENAI" not in output


async def test_only_the_sandbox_is_in_proc(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap() as sandbox:
        pids = (await run(sandbox, "ls -d /proc/[0-9]*")).text.split()
        assert len(pids) <= 4
        text = (await run(sandbox, "for f in mem environ fd/0 fd/3 fd/4 fd/5; do cat /proc/1/$f; done")).text
        assert text.count("Permission denied") == 6


async def test_the_kernel_cannot_be_set_from_inside(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap() as sandbox:
        find = "find /proc /sys -path '/proc/[0-9]*' -prune -o -path '/proc/self' -prune -o -type f -print 2>/dev/null"
        code = (
            "import os, sys\nfor name in sys.stdin.read().split():\n"
            "  try: os.close(os.open(name, os.O_WRONLY)); print(name)\n  except OSError: pass"
        )
        done = await run(sandbox, f'{find} | python -c "{code}"')
        assert (done.exit.exit_code, done.text) == (0, "")
        assert (await run(sandbox, "test -e /proc/sys/kernel/core_pattern")).exit.exit_code == 0


async def test_commands_have_no_rights_and_cannot_get_any(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap() as sandbox:
        status = dict(
            line.split(":\t")
            for line in (await run(sandbox, "cat /proc/self/status")).text.splitlines()
            if ":\t" in line
        )
        assert status["CapEff"] == status["CapBnd"] == status["CapPrm"] == "0" * 16
        assert status["NoNewPrivs"] == "1"
        assert (await run(sandbox, "unshare -U true")).exit.exit_code != 0
        assert (await run(sandbox, "id -u; id -un")).text == "1000\nagent"


async def test_fbench_and_its_graders_cannot_be_read(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap() as sandbox:
        for part in visible.PARTS:
            assert (await run(sandbox, ("python", "-c", f"import fbench.{part}"))).exit.exit_code == 1
        for folder in visible.own_folders():
            assert (await run(sandbox, ("ls", "-A", str(folder)))).text in {
                "",
                f"ls: cannot access '{folder}': No such file or directory",
            }


async def test_a_package_in_site_packages_is_covered(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    package = prefix / "lib" / "python3.11" / "site-packages" / "fbench"
    package.mkdir(parents=True)
    (package / "score.py").touch()
    shown = [(prefix, str(prefix)), (tmp_path / "else", "/else")]
    assert visible.covered([package, package / "score.py", tmp_path], shown) == [(str(package), True)]
    assert visible.covered([package / "score.py"], shown) == [(str(package / "score.py"), False)]


async def test_hidden_paths_are_empty_through_every_name(
    open_bubblewrap: Any, run: Any, spec: SandboxSpec, tmp_path: Path
) -> None:
    (spec.workspace / "tasks").mkdir()
    (spec.workspace / "tasks" / "answer").write_text("42")
    (spec.workspace / "key").write_text("secret")
    (tmp_path / "alias").symlink_to(spec.workspace)
    hidden = (tmp_path / "alias" / "tasks", spec.workspace / "key", tmp_path)
    async with open_bubblewrap(hidden=hidden) as sandbox:
        assert (await run(sandbox, "ls -A tasks; cat key; touch tasks/x")).text.endswith("Read-only file system")
        assert (await run(sandbox, "cat key tasks/answer 2>/dev/null; ls -d /tmp/*")).text.count("42") == 0
    assert (spec.workspace / "key").read_text() == "secret"


async def test_the_host_is_not_there(open_bubblewrap: Any, run: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    async with open_bubblewrap() as sandbox:
        for path in (
            tmp_path / "outside",
            "/etc/shadow",
            "/sys/kernel",
            "/var/lib",
            "/boot",
            "/root/.ssh",
            "/run/docker.sock",
        ):
            assert (await run(sandbox, ("ls", str(path)))).exit.exit_code == 2
        for path in ("/", "/usr", "/etc", "/dev", str(sys.prefix), "/run"):
            assert "Read-only" in (await run(sandbox, f"touch {path}/x")).text


async def test_mounts_are_read_only_and_at_their_place(open_bubblewrap: Any, run: Any, tmp_path: Path) -> None:
    (tmp_path / "material").mkdir()
    (tmp_path / "material" / "x").write_text("expected")
    async with open_bubblewrap(mounts=(Mount("grader", tmp_path / "material"),)) as sandbox:
        done = await run(sandbox, 'echo "$FBENCH_GRADER"; cat /grader/x; echo bad > /grader/x')
        assert done.text.splitlines()[0] == "/grader"
        assert "Read-only" in done.text
    assert (tmp_path / "material" / "x").read_text() == "expected"


async def test_there_is_no_network_but_loopback(open_bubblewrap: Any, run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        own = (
            "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname());"
            "print('ok')"
        )
        async with open_bubblewrap() as sandbox:
            assert "refused" in (await run(sandbox, ("python", "-c", code))).text
            assert (await run(sandbox, ("python", "-c", own))).text == "ok"
            assert (await run(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1")).text == "lo"


async def test_killing_everything_inside_ends_only_the_agents_own(
    open_bubblewrap: Any, run: Any, alive: Any, until: Any, tag: str
) -> None:
    async with open_bubblewrap() as sandbox:
        await run(sandbox, f"sleep {tag} &")
        done = await run(sandbox, "kill -9 -1; kill -9 1; echo alive; exit 3")
        assert (done.exit.exit_code, done.text) == (3, "alive")
        assert await until(lambda: alive(f"sleep\0{tag}") == [])
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_shared_memory_works_and_is_bounded(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap(limits=Limits(memory_bytes=128 * 1024**2)) as sandbox:
        code = "import multiprocessing as m\nwith m.Pool(2) as p: print(p.map(abs, [-1, -2]))"
        assert (await run(sandbox, ("python", "-c", code))).text == "[1, 2]"
        assert "No space" in (await run(sandbox, "head -c 100000000 /dev/zero > /dev/shm/x")).text


async def test_another_workdir_is_where_the_workspace_is(open_bubblewrap: Any, run: Any) -> None:
    async with open_bubblewrap(workdir="/srv/app") as sandbox:
        assert sandbox.workspace == "/srv/app"
        assert (await run(sandbox, 'pwd; echo "$FBENCH_WORKSPACE"; touch x')).text == "/srv/app\n/srv/app"


@pytest.mark.parametrize("workdir", ["/usr/app", "/etc", "/tmp", "/proc/x"])
async def test_a_workdir_over_programs_is_refused(open_bubblewrap: Any, workdir: str) -> None:
    with pytest.raises(SandboxFailed, match=r"environment\.workdir"):
        async with open_bubblewrap(workdir=workdir):
            pass


async def test_an_opened_network_is_refused(tmp_path: Path) -> None:
    environment = Environment.model_validate({"network": {"allow": ["internet"]}})
    with pytest.raises(SandboxFailed, match="network"):
        async with open_site(SiteSpec("run", "owner", tmp_path, environment, tmp_path)):
            pass


async def test_bubblewrap_that_fails_says_why(
    open_bubblewrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "bwrap"
    fake.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(SandboxFailed, match="setting up uid map"):
        async with open_bubblewrap():
            pass
    assert "setting up uid map" in str(await bubblewrap.probe())


async def test_a_missing_bubblewrap_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install bubblewrap" in str(await bubblewrap.probe())


async def test_the_modules_of_the_environment_import(open_bubblewrap: Any, run: Any) -> None:
    names = [name for name in ("pytest", "pandas", "sklearn") if importlib.util.find_spec(name)]
    async with open_bubblewrap() as sandbox:
        done = await run(sandbox, ("python", "-c", f"import {', '.join(names)}; print('ok')"))
        assert done.text.endswith("ok")


SLOW_BWRAP = """#!{python} -ISu
# As bubblewrap starts: the child waits on an eventfd until its parent wakes it, here for a whole second.
import ctypes, os, sys, time
wake = os.eventfd(0)
if os.fork() == 0:
    os.read(wake, 8)
    os._exit(0)
if "--die-with-parent" in sys.argv:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
open("{marks}/" + str(os.getpid()), "w").close()
time.sleep(1)
os.write(wake, (1).to_bytes(8, "little"))
os.wait()
"""
STARTER = """
import sys
from pathlib import Path
import anyio
from fbench.engine.seams import SandboxSpec
from fbench.sandboxes import bubblewrap

async def main():
    if sys.argv[1] == "probe":
        await bubblewrap.probe()
    else:
        async with bubblewrap.open_sandbox(SandboxSpec("r", Path(sys.argv[2], "w"), Path(sys.argv[2], "s"))):
            pass

async def cancelled_after_a_start():
    async with anyio.create_task_group() as group:
        group.start_soon(main)
        while not any(Path(sys.argv[2], "marks").iterdir()):
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()

anyio.run(cancelled_after_a_start if sys.argv[3] == "cancelled" else main)
"""


@pytest.mark.parametrize("end", ["killed", "cancelled"])
@pytest.mark.parametrize("what", ["probe", "sandbox"])
async def test_an_end_while_bubblewrap_starts_leaves_nobody_waiting(
    tmp_path: Path, alive: Any, until: Any, what: str, end: str
) -> None:
    marks = tmp_path / "marks"
    for folder in (marks, tmp_path / "bin", tmp_path / "w"):
        folder.mkdir()
    slow = tmp_path / "bin" / "bwrap"
    slow.write_text(SLOW_BWRAP.format(python=real(Path(sys.executable)), marks=marks))
    slow.chmod(0o755)
    env = {**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-c", STARTER, what, tmp_path, end], env=env) as starter:  # noqa: ASYNC220
        if end == "killed":
            assert await until(lambda: any(marks.iterdir()))
            starter.kill()
    assert any(marks.iterdir())
    assert await until(lambda: not alive(str(slow)))


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
from fbench.engine.seams import ExecRequest, Limits, SandboxSpec
from fbench.sandboxes import bubblewrap, local

async def main():
    for module in (bubblewrap, local):
        spec = SandboxSpec("r", Path(sys.argv[1], "w"), Path(sys.argv[1], "s"),
                           limits=Limits(cpus=1, memory_bytes=400 * 1024**2, pids=64, disk_bytes=1 << 30))
        async with module.open_sandbox(spec) as sandbox:
            for code in ("import os; print(os.getuid())", "bytearray(10**9)"):
                async with sandbox.exec(ExecRequest(("/usr/bin/python3", "-c", code))) as running:
                    output = b"".join([c.data async for c in running])
                    print(module.__name__, (await running.wait()).exit_code, output.decode().split()[-1])

asyncio.run(main())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else; everybody else tests this anyway")
def test_a_user_without_rights_gets_both_sandboxes(needs_bubblewrap: None) -> None:
    """Memory and processes are limited by rlimits then. Takes an interpreter and folders that everybody may read."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}")
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    check = "import os, sys; sys.exit(not os.access(sys.executable, os.R_OK))"
    interpreter = next(
        (name for name in candidates if subprocess.run([*become, name, "-c", check], check=False).returncode == 0), None
    )
    if interpreter is None:
        pytest.skip("NOT TESTED HERE: no interpreter of our version that everybody may run")
    with tempfile.TemporaryDirectory(dir="/tmp") as own:
        Path(own).chmod(0o755)
        for name in ("w", "s"):
            Path(own, name).mkdir()
            os.chown(Path(own, name), 65534, 65534)
        Path(own, "fbench").mkdir()
        for part in ("engine", "sandboxes"):
            source = Path(importlib.import_module(f"fbench.{part}").__path__[0])
            shutil.copytree(source, Path(own, "fbench", part))
        path = os.pathsep.join([own, sysconfig.get_path("purelib")])
        done = subprocess.run(
            [*become, interpreter, "-c", UNPRIVILEGED, own],
            capture_output=True, text=True, check=False, timeout=60, cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        )  # fmt: skip
    assert done.stderr == "", done.stderr
    assert done.stdout.splitlines() == [
        "fbench.sandboxes.bubblewrap 0 1000",
        "fbench.sandboxes.bubblewrap 1 MemoryError",
        "fbench.sandboxes.local 0 65534",
        "fbench.sandboxes.local 1 MemoryError",
    ]
