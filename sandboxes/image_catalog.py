"""The images fbench brings itself: what they are built from, and how it is known that they work."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from fbench.engine.errors import UnknownNameError
from fbench.engine.logs import get_logger
from fbench.sandboxes.image_build import build_image, hold_build_lock
from fbench.sandboxes.image_context import DOCKERFILE, ContextFile, hash_image_folder, read_context
from fbench.sandboxes.image_dockerfile import read_dockerfile
from fbench.sandboxes.image_machine import MachineSettings
from fbench.sandboxes.image_store import LABEL_CONTENT, LABEL_IMAGE, ImageRef, find_image, require_base_images

if TYPE_CHECKING:
    from aiodocker import Docker

BASE_NAME = "fbench/base:1"
LABEL_STAGE = "fbench.stage"
"""What stages carry that see the machine's settings; they are removed after a build, the settings with them."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OwnImage:
    """One of fbench's images.

    Attributes:
        key: what the command line calls it; its folder's name.
        name: its name on the engine.
        purpose: one line for lists.
        probe: a bash script, run in the image, that prints `NAME<tab>FINDING` lines and `NAME<tab>!FAULT` for a fault.
        user: whom the probe runs as; "" is the image's own user.
        is_read_only: whether it has to work with a read-only root, as agents' sandboxes have.
    """

    key: str
    name: str
    purpose: str
    probe: str
    user: str = ""
    is_read_only: bool = False


_PROGRAM = """
program() {
  if found=$("$@" 2>&1 | head -n 1) && [ -n "$found" ] && command -v "$1" >/dev/null; then
    printf '%s\\t%s\\n' "$1" "$found"
  else
    printf '%s\\t!%s\\n' "$1" "${found:-not found}"
  fi
}
"""

_MLE_PROBE = (
    _PROGRAM
    + r"""
printf 'uid\t%s\n' "$(id -u)"
[ -e /build ] && printf 'machine\t!the settings of the machine that built it are in it, in /build\n'
program bash --version
program git --version
program pytest --version
program psql --version
python3 - <<'PY' || printf 'python\t!does not run\n'
import importlib, sys
version = ".".join(map(str, sys.version_info[:3]))
print("python", version if sys.version_info >= (3, 11) else f"!{version} is older than 3.11", sep="\t")
for name in ("numpy", "scipy", "pandas", "sklearn", "pytest", "pg8000", "sqlite3"):
    try:
        module = importlib.import_module(name)
        print(name, getattr(module, "__version__", "imports"), sep="\t")
    except Exception as error:
        print(name, f"!{type(error).__name__}: {error}".replace("\n", " "), sep="\t")
import json
import sklearn.linear_model
model = sklearn.linear_model.LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
good = abs(float(model.predict([[3.0]])[0]) - 7.0) < 1e-9
print("fit", "a regression fits" if good else "!a regression gives a wrong answer", sep="\t")
PY
test "$(command -v python)" && python -c 'import pandas' || printf 'python\t!`python` is not the python3 with pandas\n'
"""
)

_POSTGRES_PROBE = (
    _PROGRAM
    + r"""
printf 'uid\t%s\n' "$(id -u)"
program postgres --version
program pg_isready --version
docker-entrypoint.sh postgres >/tmp/log 2>&1 &
for _ in $(seq 300); do pg_isready -q -U tester && break; sleep 0.1; done
if pg_isready -q -U tester; then
  answer=$(PGPASSWORD=check psql -X -A -t -h 127.0.0.1 -U tester -d things -c 'select 6 * 7' 2>&1)
  [ "$answer" = 42 ] && printf 'query\tanswers\n' || printf 'query\t!%s\n' "$(printf '%s' "$answer" | tail -n 1)"
else
  printf 'server\t!%s\n' "$(tail -n 1 /tmp/log)"
fi
kill -INT %1; wait
"""
)

_BASE_PROBE = _PROGRAM + "program bash --version\nprogram git --version\nprogram python3 --version\n"

OWN_IMAGES: tuple[OwnImage, ...] = (
    OwnImage("base", BASE_NAME, "Debian with Python and git, for machines without a registry", _BASE_PROBE),
    OwnImage(
        "mle",
        "fbench/mle:1",
        "what tasks run in unless they name another",
        _MLE_PROBE,
        user="1000:1000",
        is_read_only=True,
    ),
    OwnImage("postgres", "fbench/postgres:1", "PostgreSQL for machines without a registry", _POSTGRES_PROBE),
)
BUILT_UNASKED = tuple(image for image in OWN_IMAGES if image.name != BASE_NAME)
"""What `fbench images build` makes when nothing is named: the base is one choice of several to start from."""


def find_own_image(text: str) -> OwnImage:
    """The image called `text`, by its key or by its name. Raises UnknownNameError."""
    for image in OWN_IMAGES:
        if text in {image.key, image.name, image.name.partition(":")[0]}:
            return image
    msg = f"there is no image {text!r}: fbench has {', '.join(image.key for image in OWN_IMAGES)}"
    raise UnknownNameError(msg)


@asynccontextmanager
async def open_image_folder(image: OwnImage) -> AsyncIterator[Path]:
    """The folder with the image's Dockerfile, also where fbench is installed from a wheel."""
    with as_file(files("fbench.sandboxes").joinpath("images", image.key)) as folder:
        yield folder


async def is_current(docker: "Docker", image: OwnImage, found: ImageRef) -> bool:
    """Whether the image on the engine is made of what this fbench ships."""
    async with open_image_folder(image) as folder:
        content = await anyio.to_thread.run_sync(hash_image_folder, folder)
    labels = (await docker.images.inspect(found.id))["Config"].get("Labels") or {}
    made_of = labels.get(LABEL_CONTENT)
    is_made_from_packages = image.name == BASE_NAME and made_of is None  # by .ci/docker/base.sh
    return bool(made_of == content or is_made_from_packages)


async def build_own_image(
    docker: "Docker",
    image: OwnImage,
    *,
    base: str | None,
    settings: MachineSettings,
    image_map: Mapping[str, str],
    use_cache: bool,
    on_line: Callable[[str], None],
) -> ImageRef:
    """Build one of fbench's images anew.

    Args:
        docker: the engine.
        image: which.
        base: the image to start from; None takes fbench/base:1 when the engine has it, else what the Dockerfile names.
        settings: of this machine's network.
        image_map: exact names of images, and those to use in their place.
        use_cache: whether steps built before are used again.
        on_line: told each line of output.

    Raises:
        ImageMissing: the base is not on the engine.
        ImageBuildFailed: with the last lines of output.
    """
    if base is None and image.name != BASE_NAME and await find_image(docker, BASE_NAME) is not None:
        base = BASE_NAME
    build_args = {"BASE_IMAGE": base} if base is not None else {}
    async with open_image_folder(image) as folder:
        dockerfile, context, content = await anyio.to_thread.run_sync(
            _read_own_build, folder, build_args, image_map, settings
        )
        await require_base_images(docker, dockerfile, image.name)
        async with hold_build_lock(f"own-{image.key}", on_wait=lambda: on_line("waiting for another build of it")):
            image_id = await build_image(
                docker,
                context,
                tag=image.name,
                what=f"the image {image.name}",
                labels={LABEL_IMAGE: image.key, LABEL_CONTENT: content},
                build_args={**settings.build_args, **build_args},
                use_cache=use_cache,
                on_line=on_line,
            )
            await _remove_dangling(docker, LABEL_STAGE, f"{LABEL_IMAGE}={image.key}")
    return ImageRef(image.name, image_id)


async def _remove_dangling(docker: "Docker", *labels: str) -> None:
    """Remove our images that have no name any more: stages, which saw the machine's settings, and predecessors."""
    from aiodocker import DockerError  # noqa: PLC0415 - costs 0.3 s

    for label in labels:
        try:
            await docker.images.prune(filters={"dangling": ["true"], "label": [label]})
        except DockerError as error:  # another prune is running: the next build removes them
            log.warning("image.leftovers_not_removed", label=label, why=error.message)


def _read_own_build(
    folder: Path, build_args: Mapping[str, str], image_map: Mapping[str, str], settings: MachineSettings
) -> tuple[Sequence[str], list[ContextFile], str]:
    """The images it starts from, its context and its hash. Blocking."""
    text = (folder / DOCKERFILE).read_text(encoding="utf-8")
    dockerfile = read_dockerfile(text, args=build_args, image_map=image_map)
    replace = {DOCKERFILE: dockerfile.text.encode()}
    if (folder / "machine").is_dir():
        replace.update(settings.files)
    return dockerfile.base_images, read_context(folder, replace=replace), hash_image_folder(folder)
