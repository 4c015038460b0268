# ruff: noqa: ASYNC240 - a look at a folder of two files
"""Images on a real engine: found, mapped, built once, checked; a build that fails or is cancelled leaves nothing."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiodocker import Docker, DockerError
from click.testing import CliRunner, Result

from fbench.engine.owner import owner_identity
from fbench.sandboxes.commands.images import images
from fbench.sandboxes.docker_engine import open_container_host
from fbench.sandboxes.image_catalog import BASE_NAME
from fbench.sandboxes.image_context import ImageBuildFailed
from fbench.sandboxes.image_store import LABEL_TASK, ImageMissing, find_image, list_images, resolve_image

pytestmark = pytest.mark.usefixtures("needs_docker")

ABSENT = "fbench-test/absent:1"


@dataclass(frozen=True)
class Needs:
    """What resolve_image reads of an environment or a service."""

    image: str | None = None
    build: str | None = None


@dataclass
class Task:
    """A task's folder with a build folder, its images removed at the end."""

    folder: Path
    told: list[str] = field(default_factory=list)

    def write(self, dockerfile: str, **files: str) -> None:
        build = self.folder / "environment"
        build.mkdir(exist_ok=True)
        (build / "Dockerfile").write_text(dockerfile)
        for name, text in files.items():
            (build / name).write_text(text)

    async def resolve(self, docker: Docker, image_map: dict[str, str] | None = None) -> tuple[str, str]:
        return await resolve_image(
            docker, Needs(build="environment/"), self.folder, image_map or {}, on_event=self.told.append
        )

    @property
    def builds(self) -> int:
        return sum(line.startswith("building ") for line in self.told)


@pytest.fixture
async def docker(needs_docker: None) -> AsyncIterator[Docker]:
    async with open_container_host() as host:
        yield host.client


@pytest.fixture
async def task(tmp_path: Path, docker: Docker) -> AsyncIterator[Task]:
    folder = tmp_path / f"t{uuid.uuid4().hex[:10]}"
    folder.mkdir()
    yield Task(folder)
    for label in (LABEL_TASK, "fbench.test"):  # the second is what builds that failed left as their cache
        for image in await list_images(docker, f"{label}={folder.name}"):
            await docker.images.delete(image["Id"], force=True)


async def _labelled_containers(docker: Docker, label: str) -> list[Any]:
    return await docker.containers.list(all=True, filters=json.dumps({"label": [label]}))


class TestNamedImages:
    async def test_an_image_that_is_there_is_found_with_its_id(self, docker: Docker, tmp_path: Path) -> None:
        found = await resolve_image(docker, Needs(image=BASE_NAME), tmp_path, {})
        assert found.name == BASE_NAME
        assert found.id == (await docker.images.inspect(BASE_NAME))["Id"]

    async def test_a_missing_image_says_how_to_pull_or_map_it(self, docker: Docker, tmp_path: Path) -> None:
        with pytest.raises(ImageMissing) as caught:
            await resolve_image(docker, Needs(image=ABSENT), tmp_path, {})
        assert caught.value.kind == "image_missing"
        assert f"docker pull {ABSENT}" in str(caught.value)
        assert f"--image-map {ABSENT}=OTHER" in str(caught.value)

    async def test_a_missing_image_of_ours_says_how_to_build_it(self, docker: Docker, tmp_path: Path) -> None:
        with pytest.raises(ImageMissing, match="`fbench images build absent`"):
            await resolve_image(docker, Needs(image="fbench/absent:9"), tmp_path, {})

    async def test_the_map_puts_another_image_in_its_place(self, docker: Docker, tmp_path: Path) -> None:
        found = await resolve_image(docker, Needs(image=ABSENT), tmp_path, {ABSENT: BASE_NAME})
        assert found.name == BASE_NAME

    async def test_a_mapped_image_that_is_missing_names_both(self, docker: Docker, tmp_path: Path) -> None:
        with pytest.raises(ImageMissing, match=f"{ABSENT} is not on this .* in the place of python:3"):
            await resolve_image(docker, Needs(image="python:3"), tmp_path, {"python:3": ABSENT})

    @pytest.mark.parametrize("name", ["UPPER/Case", "a b", "../../etc", "x" * 300, "-"])
    async def test_what_is_no_name_is_missing_too(self, docker: Docker, name: str) -> None:
        assert await find_image(docker, name) is None


class TestBuilds:
    async def test_concurrent_runs_build_once_and_the_next_run_not_at_all(self, docker: Docker, task: Task) -> None:
        task.write(f"FROM {BASE_NAME}\nCOPY data /data\nRUN sleep 1\n", data=task.folder.name)
        found = []

        async def resolve() -> None:
            found.append(await task.resolve(docker))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(resolve)
        assert len(set(found)) == 1
        assert task.builds == 1
        assert await task.resolve(docker) == found[0]
        assert task.builds == 1
        assert found[0][0].startswith(f"fbench/task-{task.folder.name}:")

    async def test_other_processes_wait_for_a_build(self, docker: Docker, task: Task) -> None:
        task.write(f"FROM {BASE_NAME}\nCOPY data /data\nRUN sleep 1\n", data=task.folder.name)
        program = """
import sys, anyio
from pathlib import Path
from types import SimpleNamespace
from fbench.engine.owner import owner_identity
from fbench.sandboxes.docker_engine import open_container_host
from fbench.sandboxes.image_store import resolve_image
async def main():
    async with open_container_host() as host:
        needs = SimpleNamespace(image=None, build="environment/")
        found = await resolve_image(host.client, needs, Path(sys.argv[1]), {}, on_event=print)
        print("id", found.id)
anyio.run(main)
"""
        argv = [sys.executable, "-P", "-c", program, str(task.folder)]
        both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]  # noqa: ASYNC220 - at once
        output = [(await anyio.to_thread.run_sync(process.communicate, None, 60))[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert len({line for text in output for line in text.splitlines() if line.startswith("id ")}) == 1
        assert sum(line.startswith("building ") for text in output for line in text.splitlines()) == 1

    async def test_changed_content_is_another_image(self, docker: Docker, task: Task) -> None:
        task.write("FROM scratch\nCOPY data /data\n", data="1")
        first = await task.resolve(docker)
        task.write("FROM scratch\nCOPY data /data\n", data="2")
        second = await task.resolve(docker)
        assert first[0] != second[0]
        assert first[1] != second[1]

    async def test_grader_material_is_in_no_image(self, docker: Docker, task: Task) -> None:
        for name in ("grader", "solution", "exploits"):
            (task.folder / name).mkdir()
            (task.folder / name / "secret").write_text("x")
        (task.folder / "task.yaml").write_text("expect: 42\n")
        (task.folder / "kept").write_text("x")
        (task.folder / "Dockerfile").write_text(f"FROM {BASE_NAME}\nCOPY . /seen\nRUN find /seen -type f | sort\n")
        await resolve_image(docker, Needs(build="."), task.folder, {}, on_event=task.told.append)
        assert [line for line in task.told if line.startswith("/seen")] == ["/seen/Dockerfile", "/seen/kept"]

    @pytest.mark.parametrize("build", ["grader", "solution/image", "..", "link"])
    async def test_a_build_folder_elsewhere_is_refused(self, docker: Docker, task: Task, build: str) -> None:
        (task.folder / "grader").mkdir()
        (task.folder / "grader" / "Dockerfile").write_text("FROM scratch\n")
        (task.folder / "link").symlink_to("grader")
        with pytest.raises(ImageBuildFailed, match="a build folder lies in the task"):
            await resolve_image(docker, Needs(build=build), task.folder, {})

    async def test_a_failed_build_shows_its_last_lines_and_leaves_no_container(
        self, docker: Docker, task: Task
    ) -> None:
        label = f"fbench.test={task.folder.name}"
        task.write(f"FROM {BASE_NAME}\nLABEL {label}\nRUN echo so far so good >&2 && exit 7\n")
        with pytest.raises(ImageBuildFailed) as caught:
            await task.resolve(docker)
        assert "\n  so far so good\n" in str(caught.value)
        assert "code: 7" in str(caught.value)
        assert await _labelled_containers(docker, label) == []

    async def test_a_missing_base_is_told_before_anything_is_built_or_pulled(self, docker: Docker, task: Task) -> None:
        task.write(f"FROM {ABSENT}\nRUN true\n")
        with pytest.raises(ImageMissing, match=f"{ABSENT} .*starts from it.*docker pull"):
            await task.resolve(docker)
        assert task.told == []

    async def test_the_map_reaches_what_a_dockerfile_starts_from(self, docker: Docker, task: Task) -> None:
        task.write(f"FROM {ABSENT}\nRUN python3 -c 'print(6 * 7)'\n")
        await task.resolve(docker, {ABSENT: BASE_NAME})
        assert "42" in task.told

    async def test_what_needs_buildkit_is_told_so(self, docker: Docker, task: Task) -> None:
        task.write(f"FROM {BASE_NAME}\nRUN --mount=type=cache,target=/x true\n")
        with pytest.raises(ImageBuildFailed, match="without BuildKit"):
            await task.resolve(docker)

    async def test_a_cancelled_build_ends_and_frees_its_place(self, docker: Docker, task: Task) -> None:
        label = f"fbench.test={task.folder.name}"
        task.write(f"FROM {BASE_NAME}\nLABEL {label}\nRUN echo started && sleep 300\n")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(task.resolve, docker)
                while "started" not in task.told:  # noqa: ASYNC110 - a list of lines tells nobody
                    await anyio.sleep(0.05)
                group.cancel_scope.cancel()
        with anyio.fail_after(30):
            while await _labelled_containers(docker, label):  # noqa: ASYNC110 - the engine is asked, it does not tell
                await anyio.sleep(0.1)
        task.write("FROM scratch\nCOPY Dockerfile /\n")
        await task.resolve(docker)

    async def test_a_container_of_a_built_image_looks_like_nobodys_leftover(self, docker: Docker, task: Task) -> None:
        task.write("FROM scratch\nCOPY Dockerfile /\n")
        _, image_id = await task.resolve(docker)
        labels = (await docker.images.inspect(image_id))["Config"]["Labels"]
        assert labels[LABEL_TASK] == task.folder.name
        assert not {"fbench.run", "fbench.owner"} & set(labels)


def _fbench(*arguments: str) -> Result:
    return CliRunner().invoke(images, arguments, catch_exceptions=False)


class TestCommand:
    def test_list_says_what_is_there(self) -> None:
        rows = {row["name"]: row for row in json.loads(_fbench("list", "--json").stdout)["images"]}
        assert rows[BASE_NAME]["present"] is True
        assert rows[BASE_NAME]["size_bytes"] > 10**7
        assert rows[BASE_NAME]["id"].startswith("sha256:")
        assert {"fbench/mle:1", "fbench/postgres:1"} <= set(rows)
        assert BASE_NAME in _fbench("list").stdout

    @pytest.mark.parametrize("key", ["mle", "postgres", "base"])
    def test_an_image_passes_its_check(self, key: str) -> None:
        _require_image(f"fbench/{key}:1")
        result = _fbench("check", key, "--json")
        (entry,) = json.loads(result.stdout)["images"]
        assert [each for each in entry["findings"] if not each["ok"]] == []
        assert result.exit_code == 0
        assert len(entry["findings"]) >= 3

    async def test_a_check_finds_what_is_broken(self, docker: Docker, task: Task) -> None:
        from fbench.sandboxes.image_catalog import find_own_image
        from fbench.sandboxes.image_check import check_image

        found = await find_image(docker, BASE_NAME)
        assert found is not None
        faults = {each.name for each in await check_image(docker, find_own_image("mle"), found) if each.is_fault}
        assert {"pytest", "numpy", "pandas", "sklearn", "pg8000"} <= faults
        assert await _labelled_containers(docker, f"fbench.owner={owner_identity()}") == []

    async def test_a_check_that_hangs_is_a_fault_and_leaves_no_container(self, docker: Docker) -> None:
        from dataclasses import replace

        from fbench.sandboxes.image_catalog import find_own_image
        from fbench.sandboxes.image_check import check_image

        found = await find_image(docker, BASE_NAME)
        assert found is not None
        hung = replace(find_own_image("base"), probe="sleep 300")
        (finding,) = await check_image(docker, hung, found, patience_s=2)
        assert await _labelled_containers(docker, f"fbench.owner={owner_identity()}") == []
        assert finding.is_fault
        assert "did not end within 2 s" in finding.text

    def test_an_unknown_image_is_refused(self) -> None:
        from fbench.engine.errors import UnknownNameError

        with pytest.raises(UnknownNameError, match="mel"):
            _fbench("build", "mel")

    def test_a_base_that_is_missing_is_told(self) -> None:
        with pytest.raises(ImageMissing, match=f"{ABSENT} .*fbench/mle:1 starts from it"):
            _fbench("build", "mle", "--base", ABSENT)


def _require_image(name: str) -> None:
    """Skip where an image was not made; CI makes all of them."""
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0:
        return
    if os.environ.get("FBENCH_REQUIRE_DOCKER") == "1":
        pytest.fail(f"FBENCH_REQUIRE_DOCKER=1 and {name} is missing: run .ci/machine.sh")
    pytest.skip(f"NOT TESTED HERE: {name} is missing; `fbench images build`")


class TestPostgres:
    async def test_it_starts_like_the_official_image(self, docker: Docker, tmp_path: Path) -> None:
        _require_image("fbench/postgres:1")
        scripts = tmp_path / "init"
        scripts.mkdir()
        (scripts / "1.sql").write_text("create table rows(n int); insert into rows values (1), (2);")
        (scripts / "2.sh").write_text("psql -c \"insert into rows values (39 + length('$POSTGRES_DB'))\"\n")
        for file in scripts.iterdir():
            file.chmod(0o644)
        env = ["POSTGRES_PASSWORD=bench", "POSTGRES_USER=someone", "POSTGRES_DB=things"]
        status, output = await _run_postgres(docker, env, scripts)
        assert status == 0, output
        assert output.splitlines()[-2:] == ["1,2,45", "refused"]

    async def test_without_a_password_it_does_not_start(self, docker: Docker) -> None:
        _require_image("fbench/postgres:1")
        status, output = await _run_postgres(docker, [], None)
        assert status == 1
        assert "POSTGRES_PASSWORD is not set" in output


async def _run_postgres(docker: Docker, env: list[str], scripts: Path | None) -> tuple[int, str]:
    """Start the server in a container without capabilities, ask it over TCP with and without the right password."""
    question = "select string_agg(n::text, ',' order by n) from rows"
    program = f"""
docker-entrypoint.sh postgres &
until pg_isready -q -h 127.0.0.1; do kill -0 $! 2>/dev/null || {{ wait $!; exit $?; }}; sleep 0.1; done
ask() {{ psql -X -A -t -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "{question}"; }}
PGPASSWORD=bench ask
PGPASSWORD=wrong ask >/dev/null 2>&1 || echo refused
"""
    name = f"fbench-test-{uuid.uuid4().hex[:10]}"
    host: dict[str, Any] = {"NetworkMode": "none", "CapDrop": ["ALL"]}
    if scripts is not None:
        scripts.chmod(0o755)
        host["Mounts"] = [
            {
                "Type": "bind",
                "Source": str(file),
                "Target": f"/docker-entrypoint-initdb.d/{file.name}",
                "ReadOnly": True,
            }
            for file in sorted(scripts.iterdir())
        ]
    config = {"Image": "fbench/postgres:1", "Entrypoint": ["bash", "-c", program], "Cmd": [], "Env": env}
    try:
        container = await docker.containers.create({**config, "HostConfig": host}, name=name)
        with anyio.fail_after(60):
            await container.start()
            status = (await container.wait())["StatusCode"]
            stdout = "".join(await container.log(stdout=True))
            stderr = "".join(await container.log(stderr=True))
        return int(status), stderr + stdout
    finally:
        with anyio.CancelScope(shield=True):
            try:
                await docker.containers.container(name).delete(force=True, v=True)
            except DockerError as error:
                if error.status != 404:  # it never came to be
                    raise
