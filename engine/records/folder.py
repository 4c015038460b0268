"""The run folder: its name, its files, and the one file that says the run is finished."""

import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

from fbench.engine.errors import UsageError
from fbench.engine.records.atomic import NewFile, pretty_json
from fbench.engine.records.reading import LEDGER, RESULT, TRANSCRIPT
from fbench.engine.records.spreading import spread_if_first
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
                    spread_if_first(runs_dir)
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

    def new_result(self, result: RunResult) -> NewFile:
        """result.json, to be settled: then it is whole and on the disk, with the snapshot, the lines it sums up, what
        the checks saw and the folder's own name."""
        said = (self.snapshot, self.transcript, self.ledger, *self.grader_outputs.glob("*.json"))
        return NewFile(self.result, pretty_json(result.to_json()), after=said, below=[self.path.parent])


def make_run_id(task_id: str, model: str) -> str:
    """`2026-05-13T20-40-21Z__pandas_transform__openai_gpt_4o_mini__a3f0`: UTC start, task, model slug, random hex."""
    start = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return f"{start}__{task_id}__{slug(model)}__{secrets.token_hex(2)}"


def slug(name: str) -> str:
    """`name` in lower-case letters, digits and single underscores; the end of a long one is what tells it apart."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())[-SLUG_LENGTH:].strip("_") or "model"
