"""Which model judges which rubric, decided before a run begins: what is wrong here costs nothing."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbench.engine.errors import UsageError
from fbench.engine.models.access import make_spec
from fbench.engine.models.addresses import without_password
from fbench.engine.models.names import parse_model_name
from fbench.engine.models.settings import unsendable_settings
from fbench.engine.own_parts import own_model_is_free
from fbench.pricing.table import FREE_PROVIDERS
from fbench.tasks.manifest import LlmRubric

if TYPE_CHECKING:
    from fbench.engine.config import Config
    from fbench.engine.models.names import ModelSpec
    from fbench.engine.options import RunOptions
    from fbench.pricing.table import PricedModel, PriceTable
    from fbench.tasks.manifest import TaskManifest

JUDGE_TEMPERATURE = 0.0
JUDGE_SEED = 0
"""Of the first vote; each further one counts on, for votes that are asked alike would not be independent."""
FAKE_JUDGE = "fake/judge:"


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """Which model judges one check. `settings` are those it can be asked with; `identity` is what its verdicts depend
    on besides what it is shown."""

    check_id: str
    spec: "ModelSpec"
    price: "PricedModel | None"
    is_free: bool
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]

    @property
    def has_cost(self) -> bool:
        """Whether what it costs can be known."""
        return self.is_free or self.price is not None


def plan_judges(
    manifest: "TaskManifest",
    options: "RunOptions",
    config: "Config",
    environ: Mapping[str, str],
    prices: Callable[[], "PriceTable"],
) -> dict[str, JudgePlan]:
    """The judge of each `llm_rubric`, by the check's id.

    Raises:
        UsageError: a check has none, or it cannot be reached as asked.
    """
    plans = {}
    for check in manifest.grader.checks:
        if not isinstance(check, LlmRubric):
            continue
        name = options.judge_model or check.judge_model
        if name is None:
            msg = f"the check {check.id!r} needs a judge: name one with --judge-model, or `judge_model` in task.yaml"
            raise UsageError(msg)
        parsed = parse_model_name(name, config.providers)
        is_fake = parsed.provider in FREE_PROVIDERS
        if is_fake and not parsed.full.startswith(FAKE_JUDGE):
            msg = f"{parsed.full} cannot judge the check {check.id!r}: take a model, or fake/judge:FILE"
            raise UsageError(msg)
        is_free = is_fake or own_model_is_free(parsed.full)
        spec = make_spec(
            name,
            config,
            environ,
            base_url=options.judge_base_url,
            api_key=options.judge_api_key.get_secret_value() if options.judge_api_key else None,
            is_replayed=options.replay is not None,
        )
        settings = {"temperature": JUDGE_TEMPERATURE, "seed": JUDGE_SEED}
        if not is_free:
            unsendable = unsendable_settings(spec)
            settings = {key: value for key, value in settings.items() if key not in unsendable}
        plans[check.id] = JudgePlan(
            check.id,
            spec,
            None if is_free else config.price_over(prices(), parsed.provider, parsed.name),
            is_free,
            settings,
            {
                "model": parsed.full,
                "base_url": without_password(spec.base_url),
                "file": _content_digest(parsed.full),
                **settings,
            },
        )
    return plans


def _content_digest(name: str) -> str | None:
    """Of the file that a fake judge answers by: another content is another judge."""
    if not name.startswith(FAKE_JUDGE):
        return None
    try:
        return hashlib.sha256(Path(name.removeprefix(FAKE_JUDGE)).read_bytes()).hexdigest()
    except OSError:
        return None  # opening it says what is wrong
