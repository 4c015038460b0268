# ruff: noqa: ASYNC240 - a look at a folder of three files
"""What a build is given, which images a Dockerfile needs, what this machine's network asks for. No engine is needed."""

import configparser
import os
import tarfile
from pathlib import Path

import anyio
import pytest

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.options import parse_image_map
from fbench.sandboxes.image_build import hold_build_lock
from fbench.sandboxes.image_catalog import OWN_IMAGES, find_own_image, open_image_folder
from fbench.sandboxes.image_context import (
    IgnoreRules,
    ImageBuildFailed,
    hash_context,
    hash_image_folder,
    pack_context,
    read_context,
)
from fbench.sandboxes.image_dockerfile import read_dockerfile
from fbench.sandboxes.image_machine import CA_FILE, PIP_FILE, read_machine_settings

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "environment"
    (made / "data").mkdir(parents=True)
    (made / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (made / "data" / "rows.csv").write_text("a,b\n")
    return made


def _names(folder: Path) -> list[str]:
    return [file.name for file in read_context(folder)]


class TestImageMap:
    def test_pairs_come_one_by_one_or_many_in_a_text(self) -> None:
        assert parse_image_map(["a:1=b:2", "c=d, e=f\n  g=h"]) == {"a:1": "b:2", "c": "d", "e": "f", "g": "h"}

    def test_a_later_pair_wins(self) -> None:
        assert parse_image_map(["a=b", "a=c"]) == {"a": "c"}

    @pytest.mark.parametrize("text", ["postgres:16", "=b", "a=", "a=b=c"])
    def test_what_is_no_pair_is_refused_by_name(self, text: str) -> None:
        with pytest.raises(UsageError, match="NAME=OTHER") as caught:
            parse_image_map([text])
        assert repr(text) in str(caught.value)


class TestIgnoreRules:
    @pytest.mark.parametrize(
        ("rules", "ignored", "kept"),
        [
            ("*.log", ["a.log"], ["b/a.log", "a.logs"]),
            ("**/*.log", ["a.log", "b/a.log", "b/c/a.log"], ["a.txt"]),
            ("data", ["data", "data/x", "data/y/z"], ["datax", "a/data"]),
            ("/data/", ["data/x"], ["a/data/x"]),
            ("data\n!data/keep.csv", ["data/x"], ["data/keep.csv"]),
            ("!a\na", ["a"], ["b"]),
            ("*\n!src/**", ["a", "b/c"], ["src/a", "src/b/c"]),
            ("a?c", ["abc"], ["ac", "a/c", "abbc"]),
            ("[a-c].txt", ["b.txt"], ["d.txt"]),
            ("[^a-c].txt", ["d.txt"], ["b.txt"]),
            (r"a\*", ["a*"], ["ab"]),
            ("# a comment\n\n  x  ", ["x"], ["# a comment"]),
            ("a.b", ["a.b"], ["axb"]),
            ("a/**/z", ["a/z", "a/b/c/z"], ["az"]),
        ],
    )
    def test_rules_fit_as_dockers_do(self, rules: str, ignored: list[str], kept: list[str]) -> None:
        read = IgnoreRules(rules)
        assert [name for name in ignored if not read.match(name)] == []
        assert [name for name in kept if read.match(name)] == []

    def test_the_dockerfile_is_sent_whatever_the_rules_say(self, folder: Path) -> None:
        (folder / ".dockerignore").write_text("*\n")
        assert _names(folder) == [".dockerignore", "Dockerfile"]


class TestContext:
    def test_it_holds_every_file_and_keeps_links_as_links(self, folder: Path) -> None:
        (folder / "out").symlink_to("/etc/passwd")
        with pack_context(read_context(folder)) as packed, tarfile.open(fileobj=packed) as archive:
            assert archive.getnames() == ["Dockerfile", "data/rows.csv", "out"]
            assert archive.getmember("out").linkname == "/etc/passwd"

    def test_packing_twice_gives_the_same_bytes(self, folder: Path) -> None:
        with pack_context(read_context(folder)) as packed:
            first = packed.read()
        os.utime(folder / "Dockerfile", (1, 1))
        with pack_context(read_context(folder)) as packed:
            assert packed.read() == first

    def test_the_hash_changes_with_bytes_names_modes_links_and_bases(self, folder: Path) -> None:
        seen = {hash_context(read_context(folder)), hash_context(read_context(folder), "sha256:base")}
        (folder / "data/rows.csv").write_text("a,c\n")
        seen.add(hash_context(read_context(folder)))
        (folder / "data/rows.csv").chmod(0o755)
        seen.add(hash_context(read_context(folder)))
        (folder / "data/rows.csv").rename(folder / "data/cols.csv")
        seen.add(hash_context(read_context(folder)))
        (folder / "link").symlink_to("a")
        seen.add(hash_context(read_context(folder)))
        (folder / "link").unlink()
        (folder / "link").symlink_to("b")
        seen.add(hash_context(read_context(folder)))
        assert len(seen) == 7

    def test_the_hash_is_blind_to_times_caches_and_ignored_files(self, folder: Path) -> None:
        (folder / ".dockerignore").write_text("*.log\n")
        before = hash_context(read_context(folder))
        os.utime(folder / "Dockerfile", (1, 1))
        (folder / "build.log").write_text("x")
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "a.pyc").write_bytes(b"x")
        assert hash_context(read_context(folder)) == before

    def test_a_fifo_is_refused_by_name_and_not_opened(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        with pytest.raises(ImageBuildFailed, match="pipe is a device, socket or FIFO"):
            read_context(folder)

    def test_a_folder_without_dockerfile_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageBuildFailed, match="has no Dockerfile"):
            read_context(tmp_path)


class TestDockerfile:
    def _read(self, text: str, **image_map: str) -> tuple[str, tuple[str, ...]]:
        found = read_dockerfile(text, args={}, image_map={"python:3.12": "site/py:1", **image_map})
        return found.text, found.base_images

    def test_the_image_map_reaches_from_lines(self) -> None:
        text, bases = self._read("FROM python:3.12 AS one\nRUN echo python:3.12\nFROM --platform=linux/amd64 other:1\n")
        assert text == "FROM site/py:1 AS one\nRUN echo python:3.12\nFROM --platform=linux/amd64 other:1\n"
        assert bases == ("site/py:1", "other:1")

    def test_stages_and_scratch_are_no_images(self) -> None:
        _, bases = self._read(
            "FROM a:1 AS build\nFROM scratch\nCOPY --from=build /x /x\nCOPY --from=0 /y /y\nFROM Build\n"
        )
        assert bases == ("a:1",)

    def test_copying_from_an_image_needs_it(self) -> None:
        text, bases = self._read("FROM scratch\nCOPY --chown=1 --from=python:3.12 /x /x\n")
        assert bases == ("site/py:1",)
        assert "COPY --chown=1 --from=site/py:1 /x /x" in text

    def test_arguments_before_the_first_from_are_filled_in(self) -> None:
        text = "ARG TAG=3.12\nARG BASE=python:${TAG}\nFROM $BASE\n"
        assert self._read(text) == ("ARG TAG=3.12\nARG BASE=python:${TAG}\nFROM site/py:1\n", ("site/py:1",))
        given = read_dockerfile(text, args={"BASE": "mine:1"}, image_map={})
        assert given.base_images == ("mine:1",)
        assert given.text == text


class TestMachineSettings:
    def _pip(self, environ: dict[str, str], *files: Path) -> dict[str, str]:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(read_machine_settings(environ=environ, pip_files=files).files[PIP_FILE].decode())
        return dict(parser["global"])

    def test_without_any_there_is_an_empty_pip_conf_and_no_bundle(self) -> None:
        settings = read_machine_settings(environ={}, pip_files=())
        assert settings.files == {PIP_FILE: b"[global]\n"}
        assert settings.build_args == {}

    def test_the_ca_bundle_comes_from_the_option_then_the_variables(self, tmp_path: Path) -> None:
        (tmp_path / "a.pem").write_bytes(PEM)
        (tmp_path / "b.pem").write_bytes(b"# b\n" + PEM)
        environ = {"PIP_CERT": str(tmp_path / "a.pem")}
        assert read_machine_settings(environ=environ, pip_files=()).files[CA_FILE] == PEM
        given = read_machine_settings(tmp_path / "b.pem", environ=environ, pip_files=())
        assert given.files[CA_FILE].startswith(b"# b")

    def test_a_bundle_that_is_none_is_refused_with_what_named_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.pem").write_bytes(b"no certificate")
        with pytest.raises(UsageError, match=r"a\.pem \(SSL_CERT_FILE\) is no PEM file"):
            read_machine_settings(environ={"SSL_CERT_FILE": str(tmp_path / "a.pem")}, pip_files=())
        with pytest.raises(UsageError, match="No such file"):
            read_machine_settings(environ={"SSL_CERT_FILE": str(tmp_path / "b.pem")}, pip_files=())

    def test_pip_settings_are_those_pip_would_use(self, tmp_path: Path) -> None:
        (tmp_path / "pip.conf").write_text(
            "[global]\nindex-url = https://one.example/simple\ntimeout = 9\n[install]\ntrusted-host = one.example\n"
        )
        found = self._pip({"PIP_TIMEOUT": "77"}, tmp_path / "pip.conf")
        assert found == {"index-url": "https://one.example/simple", "trusted-host": "one.example", "timeout": "77"}

    def test_an_index_in_a_folder_of_this_machine_stays_here(self) -> None:
        found = self._pip({"PIP_EXTRA_INDEX_URL": "file:///srv/wheels https://two.example/simple /srv/more"})
        assert found == {"extra-index-url": "https://two.example/simple"}

    def test_a_broken_pip_conf_stops_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "pip.conf").write_text("no section\n")
        assert self._pip({}, tmp_path / "pip.conf") == {}

    def test_proxies_are_build_arguments_in_the_spelling_they_have(self) -> None:
        settings = read_machine_settings(environ={"https_proxy": "http://p:1", "NO_PROXY": "x"}, pip_files=())
        assert settings.build_args == {"https_proxy": "http://p:1", "NO_PROXY": "x"}


class TestCatalog:
    def test_an_image_answers_to_its_key_and_its_name(self) -> None:
        assert find_own_image("mle").name == "fbench/mle:1"
        assert find_own_image("fbench/postgres:1") is find_own_image("postgres")
        with pytest.raises(UnknownNameError, match="base, mle, postgres"):
            find_own_image("mel")

    async def test_each_image_ships_its_dockerfile_with_a_base_to_choose(self) -> None:
        for image in OWN_IMAGES:
            async with open_image_folder(image) as folder:
                found = read_dockerfile(
                    (folder / "Dockerfile").read_text(), args={"BASE_IMAGE": "site/base:7"}, image_map={}
                )
                assert found.base_images == ("site/base:7",)

    async def test_the_machines_settings_are_no_part_of_what_an_image_is_made_of(self, folder: Path) -> None:
        before = hash_image_folder(folder)
        (folder / "machine").mkdir()
        (folder / "machine" / "ca.crt").write_bytes(PEM)
        assert hash_image_folder(folder) == before

    async def test_every_requirement_is_pinned_by_hash(self) -> None:
        async with open_image_folder(find_own_image("mle")) as folder:
            blocks = (folder / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
        pinned = [line for line in blocks if "==" in line]
        assert pinned
        assert [line for line in pinned if "--hash=sha256:" not in line] == []


class TestBuildLock:
    async def test_one_holds_it_and_the_others_wait_their_turn(self, tmp_path: Path) -> None:
        inside: list[int] = []
        most = 0
        waited: list[int] = []

        async def hold(number: int) -> None:
            nonlocal most
            async with hold_build_lock("a" * 64, on_wait=lambda: waited.append(number), folder=tmp_path):
                inside.append(number)
                most = max(most, len(inside))
                await anyio.sleep(0.05)
                inside.remove(number)

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(hold, number)
        assert most == 1
        assert len(waited) == 4
        assert list(tmp_path.iterdir()) == []

    async def test_other_content_does_not_wait(self, tmp_path: Path) -> None:
        async with (
            hold_build_lock("a" * 64, on_wait=pytest.fail, folder=tmp_path),
            hold_build_lock("b" * 64, on_wait=pytest.fail, folder=tmp_path),
        ):
            assert len(list(tmp_path.iterdir())) == 2

    async def test_a_cancelled_wait_leaves_the_lock_to_its_holder(self, tmp_path: Path) -> None:
        async with hold_build_lock("a" * 64, on_wait=pytest.fail, folder=tmp_path):
            with anyio.move_on_after(0.2) as scope:
                async with hold_build_lock("a" * 64, on_wait=lambda: None, folder=tmp_path):
                    pytest.fail("two hold it")
            assert scope.cancelled_caught
            assert len(list(tmp_path.iterdir())) == 1
