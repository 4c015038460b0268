"""Which image a container runs: the named one as the engine has it, or one built from the task's own folder.

Nothing is ever pulled: what a task names is either there, mapped to another name, or a clear error before any model is
asked. A build happens once for each content: its tag holds the hash of all that goes into it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio
import anyio.to_thread

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.sandboxes.image_build import build_image, hold_build_lock
from fbench.sandboxes.image_context import (
    DOCKERFILE,
    HASH_DIGITS,
    ContextFile,
    ImageBuildFailed,
    hash_context,
    read_context,
)
from fbench.sandboxes.image_dockerfile import read_dockerfile

if TYPE_CHECKING:
    from aiodocker import Docker

OWN_PREFIX = "fbench/"
TASK_PREFIX = "fbench/task-"
LABEL_IMAGE = "fbench.image"
LABEL_TASK = "fbench.task"
LABEL_CONTENT = "fbench.content"
"""What images carry. Not `fbench.owner`: a container inherits its image's labels, and must not be taken for a leftover
of whoever built the image."""

NEVER_IN_IMAGES = ("grader", "solution", "exploits", "task.yaml", "task.lock", ".git")
"""What of a task's folder no build may see, also when the build folder is the task's own folder."""

log = get_logger(__name__)


class ImageMissing(SandboxFailed):
    """An image is not on the engine, and fbench does not fetch it by itself."""

    kind = "image_missing"


class ImageRef(NamedTuple):
    """An image on the engine: its name for people, its id to make containers from."""

    name: str
    id: str


class NeedsImage(Protocol):
    """A task's environment, or one of its services."""

    @property
    def image(self) -> str | None: ...

    @property
    def build(self) -> str | None: ...


TellProgress = Callable[[str], None]


async def resolve_image(
    docker: "Docker",
    environment: NeedsImage,
    task_folder: Path,
    image_map: Mapping[str, str],
    *,
    on_event: TellProgress | None = None,
) -> ImageRef:
    """The image of an environment or a service, built first when it has a `build` folder that is not built yet.

    Concurrent calls, of other processes too, build the same content once. Cancelling ends the build.

    Args:
        docker: the engine.
        environment: says `image` or `build`.
        task_folder: where `build` is found; its name is in the tag.
        image_map: exact names, and the images to use in their place, in FROM lines too.
        on_event: told in words what takes long, and the build's output line by line.

    Raises:
        ImageMissing: it is not on the engine, or what the build starts from is not.
        ImageBuildFailed: the build failed; the text has its last lines.
        SandboxFailed: the engine does not answer as it should.
    """
    if environment.image is not None:
        return await _named_image(docker, environment.image, image_map)
    assert environment.build is not None, "the manifest has either image or build"
    return await _built_image(docker, task_folder, environment.build, image_map, on_event or _ignore)


async def find_image(docker: "Docker", name: str) -> ImageRef | None:
    """The image of that name, None when the engine has none."""
    from aiodocker import DockerError  # noqa: PLC0415 - costs 0.3 s, and only runs in containers need it

    try:
        found = await docker.images.inspect(name)
    except DockerError as error:
        if error.status in {400, 404}:  # 400: no reference at all, so nothing can be called that
            return None
        msg = f"the Docker engine cannot say whether it has the image {name}: {error.message}"
        raise SandboxFailed(msg) from error
    return ImageRef(name, found["Id"])


async def list_images(docker: "Docker", label: str) -> list[Mapping[str, Any]]:
    """Images with a label (`name` or `name=value`). Docker 20.10 answers 500 while another process removes one of
    its images; it is then asked again, for a bounded time. Raises SandboxFailed."""
    from aiodocker import DockerError  # noqa: PLC0415 - see find_image

    for pause_s in (0.1, 0.2, 0.5, 1.0, 2.0, None):
        try:
            return list(await docker.images.list(filters={"label": [label]}))
        except DockerError as error:
            if pause_s is None:
                msg = f"the Docker engine does not list its images: {error.message}; try again"
                raise SandboxFailed(msg) from error
            await anyio.sleep(pause_s)
    raise AssertionError  # the last round returned or raised


def missing_image(name: str, *, why: str = "") -> ImageMissing:
    """The error that says how to get the image. `why` tells who needs it, when it is not the task directly."""
    if name.startswith(OWN_PREFIX) and not name.startswith(TASK_PREFIX):
        short = name.removeprefix(OWN_PREFIX).partition(":")[0]
        advice = f"build it with `fbench images build {short}`"
    else:
        advice = (
            f"get it with `docker pull {name}`, or use another one in its place with `--image-map {name}=OTHER` "
            f"(FBENCH_IMAGE_MAP)"
        )
    return ImageMissing(f"the image {name} is not on this Docker engine{f', and {why}' if why else ''}: {advice}")


async def require_base_images(docker: "Docker", names: Iterable[str], what: str) -> list[str]:
    """The ids of the images that a build starts from. Raises ImageMissing: the engine would pull them by itself."""
    ids = []
    for name in names:
        found = await find_image(docker, name)
        if found is None:
            raise missing_image(name, why=f"{what} starts from it")
        ids.append(found.id)
    return ids


async def _named_image(docker: "Docker", written: str, image_map: Mapping[str, str]) -> ImageRef:
    name = image_map.get(written, written)
    if found := await find_image(docker, name):
        return found
    raise missing_image(name, why=f"the image map puts it in the place of {written}" if name != written else "")


async def _built_image(
    docker: "Docker", task_folder: Path, build: str, image_map: Mapping[str, str], tell: TellProgress
) -> ImageRef:
    files, base_images = await anyio.to_thread.run_sync(_read_task_build, task_folder, build, image_map)
    what = f"the image of {task_folder.name} ({build})"
    base_ids = await require_base_images(docker, base_images, what)
    content = await anyio.to_thread.run_sync(hash_context, files, *base_ids)
    name = f"{TASK_PREFIX}{_slug(task_folder.name)}:{content[:HASH_DIGITS]}"
    if found := await find_image(docker, name):
        return found
    async with hold_build_lock(content, on_wait=lambda: tell(f"waiting for another build of {name}")):
        if found := await find_image(docker, name):
            return found
        tell(f"building {what}")
        labels = {LABEL_IMAGE: "task", LABEL_TASK: task_folder.name, LABEL_CONTENT: content}
        image_id = await build_image(docker, files, tag=name, what=what, labels=labels, on_line=tell)
    log.info("image.built", image=name, task=task_folder.name)
    return ImageRef(name, image_id)


def _read_task_build(
    task_folder: Path, build: str, image_map: Mapping[str, str]
) -> tuple[list[ContextFile], tuple[str, ...]]:
    """The context of a task's build folder and the images it starts from. Blocking."""
    task_folder = task_folder.resolve()
    folder = (task_folder / build).resolve()
    forbidden = [task_folder / name for name in NEVER_IN_IMAGES]
    if not folder.is_relative_to(task_folder) or any(folder.is_relative_to(path) for path in forbidden):
        msg = f"{task_folder / build} cannot be built from: a build folder lies in the task and is no grader material"
        raise ImageBuildFailed(msg)
    try:
        text = (folder / DOCKERFILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {folder / DOCKERFILE}: {error}; a `build` folder needs a Dockerfile"
        raise ImageBuildFailed(msg) from error
    dockerfile = read_dockerfile(text, args={}, image_map=image_map)
    files = read_context(folder, without=forbidden, replace={DOCKERFILE: dockerfile.text.encode()})
    return files, dockerfile.base_images


def _slug(task_id: str) -> str:
    """A task's id as part of an image's name, where no more than two underscores may follow each other."""
    return re.sub(r"_{3,}", "__", task_id.lower()).strip("_") or "task"


def _ignore(_text: str) -> None:
    pass
