"""bash and python in real sandboxes: what lasts from call to call, and what is told to the model."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import ToolRefused
from fbench.engine.seams import OpenSandbox, SandboxSpec, ToolContext, ToolOutcome
from fbench.engine.tools.bash import BashArguments, BashTool
from fbench.engine.tools.python import PythonArguments, PythonTool
from fbench.sandboxes import bubblewrap, local

Bash = Callable[..., "AbstractAsyncContextManager[Shell]"]
KINDS: dict[str, OpenSandbox] = {"local": local.open_sandbox, "bubblewrap": bubblewrap.open_sandbox}


class Shell:
    """The two tools on one sandbox."""

    def __init__(self, context: ToolContext) -> None:
        self.context = context

    async def outcome(self, command: str, timeout_s: float = 30) -> ToolOutcome:
        return await BashTool().run(BashArguments(command=command, timeout_s=timeout_s), self.context)

    async def bash(self, command: str, timeout_s: float = 30) -> str:
        return (await self.outcome(command, timeout_s)).output

    async def python(self, code: str, timeout_s: float = 30) -> str:
        return (await PythonTool().run(PythonArguments(code=code, timeout_s=timeout_s), self.context)).output


@pytest.fixture(params=sorted(KINDS))
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, need_bubblewrap: Callable[[], None]
) -> Callable[..., AbstractAsyncContextManager[Shell]]:
    if request.param == "bubblewrap":
        need_bubblewrap()
    for name in ("workspace", "scratch", "baseline"):
        (tmp_path / name).mkdir()

    @asynccontextmanager
    async def open_shell(keep_bytes: int = 10_000, remaining_s: float | None = None) -> AsyncIterator[Shell]:
        spec = SandboxSpec("run", tmp_path / "workspace", tmp_path / "scratch", env={"BASE": "kept"})
        async with KINDS[request.param](spec) as sandbox:
            yield Shell(
                ToolContext(
                    sandbox=sandbox,
                    workspace=ConfinedFolder(tmp_path / "workspace", sandbox.workspace),
                    baseline=tmp_path / "baseline",
                    remaining_s=lambda: remaining_s,
                    keep_bytes=keep_bytes,
                    emit_output=lambda _data: None,
                    notes={},
                )
            )

    return open_shell


async def test_folder_and_exports_last_and_other_variables_do_not(opened: Bash) -> None:
    async with opened() as shell:
        assert (
            await shell.bash(
                "mkdir -p a/'b c'\ncd a/'b c'; export X=$'1\\n\"2\" $HOME' E=; Y=2; f() { echo f; }; export -f f"
            )
            == "[no output]"
        )
        assert (
            await shell.bash('basename "$PWD"; echo "$X|${E-unset}|${Y-unset}"; f') == 'b c\n1\n"2" $HOME||unset\nf\n'
        )
        assert await shell.bash('cd - >/dev/null; basename "$PWD"') == "workspace\n"


async def test_nothing_of_the_wrapper_shows_in_the_environment(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("set -a; Z=1; trap 'true' EXIT")
        assert await shell.bash("env | grep -i __fbench; echo $Z $# ${BASH_SUBSHELL}") == "1 0 0\n"


async def test_what_was_unset_stays_unset(opened: Bash) -> None:
    async with opened() as shell:
        assert await shell.bash("echo $BASE; unset BASE") == "kept\n"
        assert await shell.bash("echo ${BASE-gone}; echo ${FBENCH_WORKSPACE:+there}") == "gone\nthere\n"


async def test_variables_of_the_sandbox_are_new_in_each_call(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("export FBENCH_WORKSPACE=/elsewhere FBENCH_MORE=1")
        assert await shell.bash('[ -d "$FBENCH_WORKSPACE" ] && echo ${FBENCH_MORE-no}') == "no\n"


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("exit 4", "[exit code 4]"),
        ("set -e; false; echo not here", "[exit code 1]"),
        ("set -eu; echo $nothing_of_this_name; echo not here", "[exit code 1]"),
        ("trap 'echo trapped $?' EXIT", "trapped 0\n"),
        ("trap 'echo trapped $?' EXIT; exit 5", "trapped 5\n[exit code 5]"),
        ("trap 'echo trapped; exit 6' 0; exit 5", "trapped\n[exit code 6]"),
        ("set -e; trap 'echo trapped $?' EXIT; false", "trapped 1\n[exit code 1]"),
        ("trap 'echo no' EXIT; trap - EXIT; (trap 'echo sub' EXIT; true)", "sub\n"),
        ("trap 'echo hup' HUP; kill -HUP $$; trap -p HUP", "hup\ntrap -- 'echo hup' SIGHUP\n"),
        ("set -x; true", "++ true\n"),
        ("set -o posix; exit 2", "[exit code 2]"),
        ("set -C -f; IFS=x; true", "[no output]"),
        ("echo 'unclosed", "[exit code"),
    ],
)
async def test_the_state_lasts_however_the_command_ends(opened: Bash, ending: str, said: str) -> None:
    async with opened() as shell:
        first = await shell.bash(f"mkdir -p d; cd d; export V=kept\n{ending}")
        if "unclosed" in ending:
            assert "unexpected EOF" in first
            return
        assert first.endswith(said) if "$nothing" in ending else first == said
        assert await shell.bash("basename $PWD; echo $V") == "d\nkept\n"


async def test_exec_and_timeouts_leave_the_state_before(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("export V=1")
        assert await shell.bash("export V=2; exec echo gone") == "gone\n"
        assert await shell.bash("echo $V") == "1\n"
        outcome = await shell.outcome("export V=3; echo started; sleep 60", timeout_s=1)
        assert outcome.timed_out
        assert outcome.exit_code is None
        assert outcome.output.startswith("started\n[timed out after 1 s; ")
        assert "in the background with &" in outcome.output
        assert await shell.bash("echo $V") == "1\n"


async def test_a_folder_that_is_gone_is_said(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("mkdir d; cd d; rmdir ../d")
        said = await shell.bash("basename $PWD")
        assert said.startswith("[the working folder ")
        assert said.endswith("\nworkspace\n")
        assert await shell.bash("basename $PWD") == "workspace\n"


async def test_a_damaged_state_is_not_used(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("export V=1; cd /")
        await shell.bash("exec bash -c 'echo \"declare -x V=\" > ~/.fbench_shell_state'")
        assert await shell.bash("echo ${V-none} $BASE") == (
            "[the saved working folder and environment were damaged and are not used]\nnone kept\n"
        )


async def test_an_exported_posix_mode_lasts_and_breaks_nothing(opened: Bash) -> None:
    async with opened() as shell:
        assert await shell.bash("export POSIXLY_CORRECT=yes; mkdir -p sub; cd sub") == "[no output]"
        assert await shell.bash("echo $POSIXLY_CORRECT; shopt -oq posix && echo on; cd ..") == "yes\non\n"
        assert await shell.bash("basename $PWD; unset POSIXLY_CORRECT; cd sub") != "sub\n"
        assert await shell.bash("echo ${POSIXLY_CORRECT-gone}; shopt -oq posix || echo off; basename $PWD") == (
            "gone\noff\nsub\n"
        )


async def test_a_path_without_programs_lasts_and_can_be_mended(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("export OLD=$PATH PATH=/nowhere")
        assert "command not found" in await shell.bash("ls")
        assert await shell.bash("export PATH=$OLD; ls") == "[no output]"


async def test_long_commands_and_odd_characters_arrive(opened: Bash) -> None:
    async with opened() as shell:
        long = "x" * 300_000
        assert await shell.bash(f"v='{long}'; echo ${{#v}}; read -r line; echo \"[$line]\"") == "300000\n[]\n"
        assert await shell.bash("echo 'é \"q\" \\ $'; printf '%s\\n' \"$0\"") == 'é "q" \\ $\nbash\n'
        assert (
            await shell.bash("true\nno_such_command")
            == "bash: line 2: no_such_command: command not found\n[exit code 127]"
        )


@pytest.mark.parametrize("text", ["echo \0", "echo \ud800"])
async def test_what_no_program_takes_is_refused(opened: Bash, text: str) -> None:
    async with opened() as shell:
        with pytest.raises(ToolRefused, match="command holds"):
            await shell.bash(text)
        with pytest.raises(ToolRefused, match="code holds"):
            await shell.python(text)


async def test_long_output_loses_its_middle(opened: Bash) -> None:
    async with opened(keep_bytes=1000) as shell:
        outcome = await shell.outcome("seq 100000")
        assert outcome.output.startswith("1\n2\n")
        assert outcome.output.endswith("100000\n")
        assert "bytes left out ...]" in outcome.output
        assert outcome.dropped_bytes > 100_000
        assert len(outcome.output) < 1200


async def test_no_call_takes_longer_than_the_run_has_left(opened: Bash) -> None:
    async with opened(remaining_s=0.5) as shell:
        assert "[timed out after 0.5 s" in await shell.bash("sleep 60", timeout_s=50)


async def test_a_background_job_lives_on_and_the_call_returns(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("(while [ ! -f go ]; do sleep 0.05; done; echo done >result) >/dev/null 2>&1 &")
        assert (
            await shell.bash("touch go; for i in $(seq 100); do [ -s result ] && break; sleep 0.05; done; cat result")
            == "done\n"
        )


async def test_python_has_the_state_of_bash(opened: Bash) -> None:
    async with opened() as shell:
        await shell.bash("mkdir d; cd d; export V='a b'; echo 'X = 7' > own.py; unset BASE")
        code = "import os, own\nprint(os.path.basename(os.getcwd()), os.environ['V'], own.X, 'BASE' in os.environ)"
        assert await shell.python(code) == "d a b 7 False\n"
        assert await shell.python("import os; os.chdir('/'); os.environ['V'] = 'x'") == "[no output]"
        assert await shell.bash("basename $PWD; echo $V") == "d\na b\n"


async def test_python_errors_exits_and_timeouts_are_told(opened: Bash) -> None:
    async with opened() as shell:
        assert (await shell.python("1/0")).endswith("ZeroDivisionError: division by zero\n[exit code 1]")
        assert await shell.python("import sys; print('ü'); sys.exit(9)") == "ü\n[exit code 9]"
        assert (await shell.python("print('early')\nwhile True: pass", timeout_s=1)).startswith("early\n[timed out")
