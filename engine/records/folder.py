"""The run folder: its name, its files, and the one file that says the run is finished."""

import json
import os
import re
import secrets
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fbench.engine.errors import UsageError
from fbench.engine.records.reading import LEDGER, RESULT, TRANSCRIPT
from fbench.engine.results import RunResult

SLUG_LENGTH = 60
_TRIES = 100


class RunFolder:
    """Paths inside `runs/<run_id>/`. Making one makes the folder; nothing is ever overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def snapshot(self) -> Path:
        return self.path / "manifest.snapshot.yaml"

    @property
    def transcript(self) -> Path:
        return self.path / TRANSCRIPT

    @property
    def ledger(self) -> Path:
        return self.path / LEDGER

    @property
    def workspace_final(self) -> Path:
        return self.path / "workspace_final"

    @property
    def workspace_diff(self) -> Path:
        return self.path / "workspace.diff"

    @property
    def grader_outputs(self) -> Path:
        return self.path / "grader_outputs"

    @property
    def result(self) -> Path:
        return self.path / RESULT

    @classmethod
    def create(cls, runs_dir: Path, task_id: str, model: str) -> "RunFolder":
        """A new folder under `runs_dir`, which is made when missing.

        Raises:
            UsageError: the folder cannot be made there.
        """
        try:
            for _ in range(_TRIES):
                path = runs_dir / make_run_id(task_id, model)
                try:
                    path.mkdir()
                except FileNotFoundError:
                    runs_dir.mkdir(parents=True, exist_ok=True)
                except FileExistsError:
                    continue
                else:
                    return cls(path)
        except OSError as error:
            msg = f"cannot make a run folder in {runs_dir}: {error.strerror or error}; name another with --runs-dir"
            raise UsageError(msg) from error
        msg = f"no free run id under {runs_dir} after {_TRIES} tries; try again, or use another --runs-dir"
        raise UsageError(msg)

    def write_snapshot(self, manifest: str) -> None:
        """Write the manifest as YAML. It is on the disk once the result is: until then a crash of the machine may take
        it, with a run that has to be made again anyway."""
        self.snapshot.write_text(manifest, encoding="utf-8", errors="backslashreplace")

    def write_result(self, result: RunResult) -> None:
        """Write result.json: whole or not at all, and on the disk when this returns, with the snapshot, the lines it
        sums up and the folder's own name. Blocking.
        """
        with suppress(FileNotFoundError):  # a run may end before it has one
            _sync_file(self.snapshot)
        for path in (self.transcript, self.ledger):
            _sync_file(path)
        write_atomically(self.result, json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")
        sync_folder(self.path.parent)


def make_run_id(task_id: str, model: str) -> str:
    """`2026-05-13T20-40-21Z__pandas_transform__openai_gpt_4o_mini__a3f0`: UTC start, task, model slug, random hex."""
    start = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return f"{start}__{task_id}__{slug(model)}__{secrets.token_hex(2)}"


def slug(name: str) -> str:
    """`name` in lower-case letters, digits and single underscores; the end of a long one is what tells it apart."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())[-SLUG_LENGTH:].strip("_") or "model"


def write_atomically(path: Path, text: str) -> None:
    """Put `text` at `path` so that a reader sees the old file or the new one, and a crash loses neither."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text.encode("utf-8", errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Return once the folder's entries are on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
