"""Makes an open sandbox what the task needs before the first turn: bash is there, setup has run, modules import."""

import json

from fbench.engine.errors import ModuleMissing, SandboxFailed, SetupFailed
from fbench.engine.execs import run_exec
from fbench.engine.seams import ExecRequest, Sandbox
from fbench.tasks.manifest import Environment

SETUP_TIMEOUT_S = 600.0
"""For one setup command: long enough to install packages, short enough that an unattended suite ends."""

MODULES_TIMEOUT_S = 120.0
BASH_TIMEOUT_S = 60.0
"""For a command that does nothing: only a machine that hangs takes so long, and then the run says so itself."""
_NOT_STARTED = {126, 127}
_KEEP_BYTES = 4000
_IMPORT = """\
import importlib, json, sys
missing = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        missing[name] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(missing))
"""


async def prepare_sandbox(sandbox: Sandbox, environment: Environment) -> None:
    """See that commands can run, run `environment.setup`, then import `environment.modules`.

    Raises:
        SandboxFailed: there is no bash, without which no tool and no check would do anything.
        SetupFailed: a command ended with another exit code than 0, or took too long.
        ModuleMissing: a module does not import.
    """
    await _need_bash(sandbox)
    for command in environment.setup:
        request = ExecRequest(("bash", "-c", command))
        done = await run_exec(sandbox, request, timeout_s=SETUP_TIMEOUT_S, keep_bytes=_KEEP_BYTES)
        if done.timed_out or done.exit_code != 0:
            how = f"took over {SETUP_TIMEOUT_S:.0f} s" if done.timed_out else f"exited with {done.exit_code}"
            msg = f"the setup command {command!r} {how}: {(done.reason or done.output).strip() or 'no output'}"
            raise SetupFailed(msg)
    if environment.modules:
        await _import_modules(sandbox, environment.modules)


async def _need_bash(sandbox: Sandbox) -> None:
    if sandbox.capabilities.has_bash:
        return
    request = ExecRequest(("bash", "-c", ":"))
    done = await run_exec(sandbox, request, timeout_s=BASH_TIMEOUT_S, keep_bytes=_KEEP_BYTES)
    if done.exit_code in _NOT_STARTED and done.reason:
        msg = f"the {sandbox.kind} sandbox has no bash, which tools and checks need: {done.reason}; add it to the image"
        raise SandboxFailed(msg)


async def _import_modules(sandbox: Sandbox, modules: tuple[str, ...]) -> None:
    request = ExecRequest(("python", "-c", _IMPORT, *modules), merge_stderr=False)
    done = await run_exec(sandbox, request, timeout_s=MODULES_TIMEOUT_S, keep_bytes=_KEEP_BYTES)
    try:
        missing = json.loads(done.output.strip().splitlines()[-1]) if done.exit_code == 0 else None
    except (ValueError, IndexError):
        missing = None
    if missing is None:
        how = "took too long" if done.timed_out else (done.reason or done.stderr or done.output).strip()
        msg = f"could not check the modules {', '.join(modules)} in the {sandbox.kind} sandbox: {how}"
        raise ModuleMissing(msg)
    if missing:
        why = "; ".join(f"{name} ({error})" for name, error in missing.items())
        remedy = (
            "they come with the extra `mle`: `uv run --extra mle fbench ...`, or `pip install 'factory-bench[mle]'`"
            if sandbox.kind in {"local", "bubblewrap"}
            else "take an image that has them"
        )
        msg = f"modules of the task do not import in the {sandbox.kind} sandbox: {why}; {remedy}"
        raise ModuleMissing(msg)
