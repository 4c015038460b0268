"""Where a run's model traffic goes to and comes from: its server, a recording, a stored run."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fbench.engine.errors import ModelUnavailable, UsageError
from fbench.engine.logs import get_logger
from fbench.engine.models.canonical import Canonicaliser
from fbench.engine.models.names import open_model
from fbench.engine.models.recording import Recorder, RecordingModel, open_recorder
from fbench.engine.models.replay import Recording, ReplayModel
from fbench.engine.models.stored import StoredModel

if TYPE_CHECKING:
    from fbench.engine.plan import RunPlan
    from fbench.engine.record import RunRecord
    from fbench.engine.seams import Model

log = get_logger(__name__)

ModelOfRun = Callable[["RunRecord"], AbstractContextManager["Model"]]
"""The model of a run that has its folder, while the context lasts."""


def check_traffic(record: Path | None, replay: Path | None) -> None:
    """Raises UsageError where both were asked for."""
    if record is not None and replay is not None:
        msg = f"--record {record} and --replay {replay} exclude each other: a replay makes no traffic; leave one out"
        raise UsageError(msg)


@asynccontextmanager
async def open_traffic(plan: "RunPlan", recording: Recording | None) -> AsyncIterator[ModelOfRun]:
    """The plan's model: played from `recording` where there is one, else opened, and recorded if that was asked for.

    Raises:
        UsageError: the model cannot be used as asked, or the file to record into cannot be written.
    """
    if recording is not None:
        yield lambda record: nullcontext(_replayed(plan, recording, record))
        return
    with nullcontext() if plan.options.record is None else open_recorder(plan.options.record) as recorder:
        async with open_model(plan.model) as model:
            yield lambda record: _of_run(model, recorder, record)


def _replayed(plan: "RunPlan", recording: Recording, record: "RunRecord") -> "Model":
    ids = Canonicaliser(plan.model.full_name, record.folder.run_id, record.redact)
    return ReplayModel(plan.model.full_name, recording, ids, attempt=plan.options.attempt, is_free=plan.is_free)


@contextmanager
def _of_run(model: "Model", recorder: Recorder | None, record: "RunRecord") -> Iterator["Model"]:
    run_id = record.folder.run_id
    if isinstance(model, StoredModel):
        model = model.in_run(run_id)
    if recorder is None:
        yield model
        return
    ids = Canonicaliser(model.name, run_id, record.redact)
    recording = RecordingModel(model, recorder, ids, run_id, record.plan.options.attempt)
    try:
        yield recording
    finally:
        if record.outcome.status != "cancelled":  # one that was cut off does not end in the recording either
            _record_end(recording, record)


def _record_end(recording: RecordingModel, record: "RunRecord") -> None:
    error = record.outcome.error
    gave_up = error is not None and error.kind == ModelUnavailable.kind
    try:
        recording.end(error.message if error is not None and gave_up else None)
    except OSError as unwritten:
        log.warning("recording.cut_off", run_id=record.folder.run_id, error=str(unwritten))
