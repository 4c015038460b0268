"""`fake/judge:FILE`: a judge that answers by a YAML file, at no cost. It fills in whatever verdict it is asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import anyio
from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.errors import UsageError
from fbench.engine.models.answers import new_call_id
from fbench.engine.models.canonical import EVIDENCE_MARK
from fbench.engine.models.script import ScriptUsage, read_fake_file
from fbench.engine.seams import AttemptFailed, ModelReply, ModelRequest, TokenEstimate, ToolCall, Usage
from fbench.tasks.yaml_models import Faulty, read_model

_Score = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class JudgeRule(_Frozen):
    """One way to answer.

    Attributes:
        when: the rule is taken where this occurs in the evidence; None is everywhere.
        scores: by criterion.
        default: the score of criteria that are not named; None leaves them out, which is no valid verdict.
        reason: said of every criterion.
        replies: raw texts that are answered first, one each time the judge is asked, to play one that fits no schema.
    """

    when: str | None = None
    scores: dict[str, _Score] = Field(default_factory=dict)
    default: _Score | None = None
    reason: str = "as the file says"
    replies: Annotated[tuple[str, ...], Field(strict=False)] = ()
    usage: ScriptUsage | None = None
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class JudgeFile(_Frozen):
    """A whole file; the first rule that fits answers."""

    verdicts: Annotated[tuple[JudgeRule, ...], Field(strict=False, min_length=1)]


class FakeJudge:
    """Plays the rules of a file; see the module. Keeps nothing between requests."""

    is_free = True

    def __init__(self, name: str, rules: JudgeFile) -> None:
        self.name = name
        self._rules = rules

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """Exactly what the answer will count."""
        rule = self._rule(request)
        usage = rule.usage if rule else None
        return TokenEstimate(input=usage.input, min_output=usage.output) if usage else TokenEstimate(0, 0)

    async def complete(self, request: ModelRequest) -> ModelReply:
        """The verdict. Raises AttemptFailed when the request wants none, or no rule fits."""
        rule = self._rule(request)
        if rule is None:
            msg = f"{self.name} has no verdict whose `when` is in this evidence"
            raise AttemptFailed(msg, retryable=False)
        tool = next((tool for tool in request.tools if "criteria" in tool.parameters.get("properties", ())), None)
        if tool is None:
            msg = f"{self.name} only answers as a judge; it plays no agent"
            raise AttemptFailed(msg, retryable=False)
        await anyio.sleep(rule.latency_s)
        asked_before = sum(message.role == "assistant" for message in request.messages)
        calls: tuple[ToolCall, ...] = ()
        content = ""
        if asked_before < len(rule.replies):
            content = rule.replies[asked_before]
        else:
            calls = (ToolCall(new_call_id(), tool.name, json.dumps(_verdict(rule, tool.parameters))),)
        return ModelReply(
            content=content,
            tool_calls=calls,
            usage=rule.usage.counts() if rule.usage else Usage(),
            usage_raw=rule.usage.model_dump() if rule.usage else None,
            model_answered=self.name,
            finish_reason="tool_calls" if calls else "stop",
        )

    def _rule(self, request: ModelRequest) -> JudgeRule | None:
        text = "\n".join(message.content for message in request.messages if message.role == "user")
        marks = list(EVIDENCE_MARK.finditer(text))
        evidence = text[marks[0].end() : marks[-1].start()] if marks else ""
        return next((rule for rule in self._rules.verdicts if rule.when is None or rule.when in evidence), None)


def load_judge(path: Path, name: str) -> FakeJudge:
    """The judge that a file describes. Blocking.

    Raises:
        UsageError: it cannot be read, or is no such file.
    """
    text = read_fake_file(path, "the judge's file", "fake/judge:FILE")
    try:
        return FakeJudge(name, read_model(JudgeFile, text, str(path)))
    except Faulty as faulty:
        raise UsageError(str(faulty)) from None


def _verdict(rule: JudgeRule, parameters: Mapping[str, Any]) -> dict[str, Any]:
    wanted = parameters["properties"]["criteria"]["properties"]
    scores = {name: rule.scores.get(name, rule.default) for name in wanted}
    return {"criteria": {name: {"reason": rule.reason, "score": s} for name, s in scores.items() if s is not None}}
