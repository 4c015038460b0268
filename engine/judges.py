"""The models that judge, asked when a rubric is judged and paid from a purse of their own.

Every attempt is a line of the ledger (`who: judge`). A judge's server that fails ends the run as `error`, never as a
score: the work is kept, and `fbench rejudge` judges it then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

from fbench.engine.budgets import output_within, price_at
from fbench.engine.errors import (
    ContextExceeded,
    FbenchError,
    JudgingFailed,
    ModelRejected,
    ModelUnavailable,
    ReplayMissing,
    RunError,
)
from fbench.engine.judge_plans import JUDGE_SEED, JudgePlan
from fbench.engine.models.calls import ModelCaller
from fbench.engine.purse import PurseEmpty
from fbench.engine.seams import Message, Model, ModelReply, ModelRequest, ToolSchema

JUDGE_OUTPUT_TOKENS = 8192
"""Room for a reason for each criterion, and for the thoughts of a model that reasons first."""


class CannotAsk(FbenchError):
    """The judge cannot be asked this: its purse is empty, or the evidence is longer than its window."""


class SuiteCannotPay(JudgingFailed):
    """The suite's purse pays for no judge."""

    kind = "suite_cost"


class Judges:
    """The judges of one run. `open` gives one for one check at a time.

    Args:
        plans: by check.
        model_of: the opened model of a plan.
        caller_of: what makes its calls and writes the ledger.
        cap_usd: the purse of all of them; None has no end.
        what_next: told to a user whose judge failed.
        redact: takes secrets out of what a judge says, for a hostile server may hand its key back.
    """

    def __init__(
        self,
        plans: Mapping[str, JudgePlan],
        *,
        model_of: Callable[[JudgePlan], AbstractContextManager[Model]],
        caller_of: Callable[[JudgePlan, Model], ModelCaller],
        cap_usd: Decimal | None,
        what_next: str,
        redact: Callable[[str], str],
    ) -> None:
        self._plans = plans
        self._model_of = model_of
        self._caller_of = caller_of
        self._cap_usd = cap_usd
        self._what_next = what_next
        self._redact = redact
        self._spent_usd = Decimal(0)

    @contextmanager
    def open(self, check_id: str) -> Iterator["OpenedJudge"]:
        """The judge of a check, while the context lasts."""
        plan = self._plans[check_id]
        with self._model_of(plan) as model:
            yield OpenedJudge(self, plan, model, self._caller_of(plan, model))

    def fit(self, plan: JudgePlan, model: Model, request: ModelRequest) -> ModelRequest:
        """The request with as much output as the purse pays for.

        Raises:
            CannotAsk: it does not pay for the smallest answer.
        """
        if self._cap_usd is None or plan.price is None:
            return request
        estimate, price = model.estimate(request), price_at(plan.price, datetime.now(UTC))
        left_usd = self._cap_usd - self._spent_usd
        affordable = output_within(price, estimate.input, left_usd, max(estimate.min_output, 1))
        if affordable is None:
            msg = (
                f"the judge's purse does not pay for this call: ${self._spent_usd} of ${self._cap_usd} are spent and "
                f"its input takes about {estimate.input} tokens; raise `budget.judge_cost_usd`, or let the rubric show "
                f"less"
            )
            raise CannotAsk(msg)
        return replace(request, max_output_tokens=min(request.max_output_tokens, affordable))

    def paid(self, cost_usd: Decimal | None) -> None:
        """Count an answer."""
        self._spent_usd += cost_usd or 0

    def redacted(self, reply: ModelReply) -> ModelReply:
        """The reply as it may be stored."""
        calls = tuple(replace(call, arguments=self._redact(call.arguments)) for call in reply.tool_calls)
        answered = None if reply.model_answered is None else self._redact(reply.model_answered)
        return replace(reply, content=self._redact(reply.content), tool_calls=calls, model_answered=answered)

    def give_up(self, plan: JudgePlan, error: RunError) -> NoReturn:
        """End the run as `error`, of the kind that the failure has."""
        msg = f"the judge of the check {plan.check_id!r}: {str(error).removesuffix('.')}. {self._what_next}"
        raise type(error)(msg) from error


class OpenedJudge:
    """A judge that is asked; see the Protocol `Judge`."""

    def __init__(self, judges: Judges, plan: JudgePlan, model: Model, caller: ModelCaller) -> None:
        self.identity = plan.identity
        self._judges = judges
        self._plan = plan
        self._model = model
        self._caller = caller

    async def ask(self, messages: Sequence[Message], tool: ToolSchema, *, vote: int) -> ModelReply:
        """The judge's answer; `vote` counts from 1.

        Raises:
            CannotAsk: the purse does not pay for it, or it does not fit the model's window.
            ModelUnavailable, ModelRejected, ReplayMissing, SuiteCannotPay: no answer, for no fault of the work.
        """
        settings: dict[str, Any] = dict(self._plan.settings)
        if "seed" in settings:
            settings["seed"] = JUDGE_SEED + vote - 1
        request = ModelRequest(messages, (tool,), max_output_tokens=JUDGE_OUTPUT_TOKENS, **settings)
        request = self._judges.fit(self._plan, self._model, request)
        try:
            done = await self._caller.call(request, turn=vote)
        except PurseEmpty as error:
            self._judges.give_up(self._plan, SuiteCannotPay(str(error)))
        except ContextExceeded as error:
            msg = f"{error}; let the rubric show less, or take a judge with a longer window"
            raise CannotAsk(msg) from error
        except (ModelUnavailable, ModelRejected, ReplayMissing) as error:
            self._judges.give_up(self._plan, error)
        self._judges.paid(done.cost_usd)
        return self._judges.redacted(done.reply)
