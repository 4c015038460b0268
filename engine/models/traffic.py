"""Where a run's model traffic goes to and comes from: its server, a recording, a stored run."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fbench.engine.context import Window
from fbench.engine.errors import ModelUnavailable, UsageError
from fbench.engine.logs import get_logger
from fbench.engine.models.canonical import Canonicaliser
from fbench.engine.models.names import open_model
from fbench.engine.models.recording import RecordedWindow, Recorder, RecordingModel, open_recorder
from fbench.engine.models.replay import Recording, ReplayModel
from fbench.engine.models.stored import StoredModel

if TYPE_CHECKING:
    from fbench.engine.judge_plans import JudgePlan
    from fbench.engine.plan import RunPlan
    from fbench.engine.record import RunRecord
    from fbench.engine.seams import Model, ModelRequest

log = get_logger(__name__)

_AGENT = ""
"""Beside the ids of checks, none of which is empty."""


def check_traffic(record: Path | None, replay: Path | None) -> None:
    """Raises UsageError where both were asked for."""
    if record is not None and replay is not None:
        msg = f"--record {record} and --replay {replay} exclude each other: a replay makes no traffic; leave one out"
        raise UsageError(msg)


class Traffic:
    """The models of one run, open: played from `recording` where there is one, else asked, and recorded if `recorder`
    is there. Made by `open_traffic`."""

    def __init__(
        self, plan: "RunPlan", models: "Mapping[str, Model]", recording: Recording | None, recorder: Recorder | None
    ) -> None:
        self._plan = plan
        self._models = models
        self._recording = recording
        self._recorder = recorder
        self._ends: list[tuple[RecordingModel, str | None]] = []

    @property
    def is_replayed(self) -> bool:
        """Whether no server is asked."""
        return self._recording is not None

    @contextmanager
    def agent(self, record: "RunRecord") -> Iterator["Model"]:
        """The agent's model in a run that has its folder, while the context lasts."""
        plan = self._plan
        if self._recording is not None:
            yield self._replayed(self._recording, record, plan.model.full_name, is_free=plan.is_free)
            return
        model = self._models[_AGENT]
        if isinstance(model, StoredModel):
            model = model.in_run(record.folder.run_id)
        window = RecordedWindow(tokens=plan.model.context_window, is_hint=plan.model.is_window_hint)
        with self._recorded(model, record, record.folder.run_id, window) as recorded:
            yield recorded

    def window(self, model: "Model", first: "ModelRequest") -> Window:
        """What is known of the window of the agent's model before `first` is asked. In a replay it is what the recorded
        run knew: another one would ask other things than were recorded."""
        spec = self._plan.model
        if not isinstance(model, ReplayModel):
            return Window(spec.context_window, is_hint=spec.is_window_hint)
        if (recorded := model.window(first)) is not None:
            return Window(recorded.tokens, is_hint=recorded.is_hint)
        return Window(None if spec.is_window_hint else spec.context_window)  # recorded when no table was asked

    @contextmanager
    def judge(self, record: "RunRecord", judge: "JudgePlan") -> Iterator["Model"]:
        """The model that judges one check of the run."""
        if self._recording is not None:
            yield self._replayed(self._recording, record, judge.spec.full_name, is_free=judge.is_free)
            return
        conversation = f"{record.folder.run_id}#{judge.check_id}"
        with self._recorded(self._models[judge.check_id], record, conversation) as recorded:
            yield recorded

    def _replayed(self, recording: Recording, record: "RunRecord", name: str, *, is_free: bool) -> "Model":
        ids = Canonicaliser(name, record.folder.run_id, record.redact)
        attempt = self._plan.options.attempt
        return ReplayModel(name, recording, ids, task_id=self._plan.manifest.id, attempt=attempt, is_free=is_free)

    @contextmanager
    def _recorded(
        self, model: "Model", record: "RunRecord", conversation: str, window: RecordedWindow | None = None
    ) -> Iterator["Model"]:
        """The model, its attempts recorded under the name `conversation`, and how it gave up if it did."""
        if self._recorder is None:
            yield model
            return
        ids = Canonicaliser(model.name, record.folder.run_id, record.redact)
        recording = RecordingModel(model, self._recorder, ids, conversation, self._plan.options.attempt, window=window)
        gave_up: str | None = None
        try:
            yield recording
        except ModelUnavailable as error:
            gave_up = str(error)
            raise
        finally:
            self._ends.append((recording, gave_up))

    def record_ends(self) -> None:
        """Say in the recording that the run's conversations are whole. One that is cut off has no end there either."""
        for recording, gave_up in self._ends:
            try:
                recording.end(gave_up)
            except OSError as unwritten:
                log.warning("recording.cut_off", error=str(unwritten))


@asynccontextmanager
async def open_traffic(plan: "RunPlan", recording: Recording | None) -> AsyncIterator[Traffic]:
    """The models of a plan, its judges' too: nothing is spent before it is known that all can be asked.

    Raises:
        UsageError: a model cannot be used as asked, or the file to record into cannot be written.
    """
    if recording is not None:
        yield Traffic(plan, {}, recording, None)
        return
    with nullcontext() if plan.options.record is None else open_recorder(plan.options.record) as recorder:
        async with AsyncExitStack() as stack:
            models = {_AGENT: await stack.enter_async_context(open_model(plan.model))}
            for check_id, judge in plan.judges.items():
                models[check_id] = await stack.enter_async_context(open_model(judge.spec))
            traffic = Traffic(plan, models, None, recorder)
            yield traffic
            traffic.record_ends()  # not where the run was cancelled
