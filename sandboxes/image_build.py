"""One build on the engine: the context sent, the output read, one at a time for each content, ended when cancelled."""

import fcntl
import json
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from fbench.engine.errors import SandboxFailed
from fbench.engine.scratch import scratch_root
from fbench.sandboxes.image_context import HASH_DIGITS, ContextFile, ImageBuildFailed, pack_context

if TYPE_CHECKING:
    from aiodocker import Docker

BUILD_PATIENCE_S = 1800.0
"""A build that installs a machine-learning stack over a slow network takes minutes; half an hour is a hung one."""
TAIL_LINES = 30
MAX_LINE = 1000
LOCK_POLL_S = 0.1
HTTP_REFUSED = 400
MAX_REFUSAL_BYTES = 64 * 1024

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""The engine paints what a step says on stderr red."""
BUILDKIT_WORDS = ("requires buildkit", "unknown flag: mount", "unknown instruction")
BUILDKIT_HINT = "\nfbench builds without BuildKit: RUN --mount, COPY --link and heredocs have to be written otherwise"


async def build_image(
    docker: "Docker",
    files: Collection[ContextFile],
    *,
    tag: str,
    what: str,
    labels: Mapping[str, str],
    build_args: Mapping[str, str] | None = None,
    use_cache: bool = True,
    on_line: Callable[[str], None],
    patience_s: float = BUILD_PATIENCE_S,
) -> str:
    """The id of a new image, tagged. Cancelling ends the build and its containers; what was built stays as cache.

    Args:
        docker: the engine.
        files: the context, with its Dockerfile.
        tag: the image's name.
        what: what is being built, for messages.
        labels: the image's.
        build_args: values for the Dockerfile's ARG lines.
        use_cache: whether steps built before are used again.
        on_line: told each line of output.
        patience_s: seconds the build may take.

    Raises:
        ImageBuildFailed: with the last lines of output.
    """
    import aiohttp  # noqa: PLC0415 - late, as aiodocker: only runs in containers need them
    from aiodocker import DockerError  # noqa: PLC0415

    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        with anyio.fail_after(patience_s), await anyio.to_thread.run_sync(pack_context, files) as packed:
            parameters = {
                "t": tag,
                "labels": json.dumps(dict(labels)),
                "buildargs": json.dumps(dict(build_args or {})),
                "nocache": str(not use_cache).lower(),
                "rm": "true",
                "forcerm": "true",
            }
            async with aclosing(_run_build(docker, parameters, packed)) as messages:
                async for message in messages:
                    if error := message.get("error"):
                        raise ImageBuildFailed(_failure(what, str(error), tail))
                    for line in _lines(message):
                        tail.append(line)
                        on_line(line)
            return str((await docker.images.inspect(tag))["Id"])
    except DockerError as error:
        raise ImageBuildFailed(_failure(what, error.message, tail)) from error
    except TimeoutError as error:
        raise ImageBuildFailed(_failure(what, f"it took more than {patience_s:.0f} s", tail)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: cut or foreign JSON
        raise ImageBuildFailed(
            _failure(what, f"the engine broke off ({error or type(error).__name__})", tail)
        ) from error


@asynccontextmanager
async def hold_build_lock(key: str, *, on_wait: Callable[[], None], folder: Path | None = None) -> AsyncIterator[None]:
    """Exclusive among all processes of this user on this machine that build the same `key`.

    The lock dies with its holder. `folder` is where its file lies, this user's scratch root if None.
    """
    path = (folder or _lock_folder()) / f"build-{key[:HASH_DIGITS]}.lock"
    has_told = False
    while (held := _try_lock(path)) is None:
        if not has_told:
            on_wait()
            has_told = True
        await anyio.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waited on it sees that it is gone, and makes a new one
        os.close(held)


async def _run_build(
    docker: "Docker", parameters: Mapping[str, str], packed: IO[bytes]
) -> AsyncGenerator[dict[str, Any], None]:
    """The messages of a build. The engine ends a build when its connection closes; aiodocker's own call keeps the
    connection open after a cancellation, and the build would go on."""
    from aiodocker import DockerError  # noqa: PLC0415 - costs 0.3 s
    from aiohttp import ClientTimeout  # noqa: PLC0415

    url = f"{docker.docker_host}/{docker.api_version}/build"
    headers = {"Content-Type": "application/x-tar"}
    response = await docker.session.post(
        url, params=parameters, data=packed, headers=headers, timeout=ClientTimeout(total=None)
    )
    try:
        if response.status >= HTTP_REFUSED:
            text = (await response.content.read(MAX_REFUSAL_BYTES)).decode(errors="replace")
            raise DockerError(response.status, _message_of(text))
        pending = bytearray()
        async for data, _ in response.content.iter_chunks():
            pending += data
            *complete, rest = pending.split(b"\n")
            pending = rest
            for line in complete:
                if line.strip():
                    yield json.loads(line)
    finally:
        response.close()


def _message_of(refusal: str) -> str:
    try:
        return str(json.loads(refusal)["message"])
    except (ValueError, KeyError, TypeError):
        return refusal.strip()


def _try_lock(path: Path) -> int | None:
    """The open file when the lock is ours, None when somebody else has it."""
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot lock {path} for a build: {error.strerror}; set TMPDIR to a folder of your own"
        raise SandboxFailed(msg) from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(opened).st_ino:
            return opened
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(opened)
    return None


def _lock_folder() -> Path:
    root = scratch_root()
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        msg = f"cannot make {root}: {error.strerror}; set TMPDIR to a folder with room"
        raise SandboxFailed(msg) from error
    if root.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        msg = f"{root} belongs to somebody else or others may write to it; remove it, or set TMPDIR"
        raise SandboxFailed(msg)
    return root


def _lines(message: Mapping[str, Any]) -> list[str]:
    """The lines of output in one message of the engine."""
    text = _COLOUR.sub("", str(message.get("stream") or message.get("status") or ""))
    return [line.rstrip()[:MAX_LINE] for line in text.splitlines() if line.strip()]


def _failure(what: str, why: str, tail: Collection[str]) -> str:
    hint = BUILDKIT_HINT if any(word in why.lower() for word in BUILDKIT_WORDS) else ""
    shown = "".join(f"\n  {line}" for line in tail)
    return f"{what} could not be built: {why.strip()}{hint}" + (f"; the build's last lines:{shown}" if shown else "")
