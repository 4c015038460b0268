"""`llm_rubric`: a model scores the work against a rubric, in one or several votes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from fbench.engine.errors import FbenchError, RunError
from fbench.engine.models.canonical import digest_of
from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome, Judge
from fbench.judging.gather import CannotEvaluate, in_thread
from fbench.judging.rubric_cache import VerdictCache, open_verdict_cache
from fbench.judging.rubric_evidence import Exhibit, gather_exhibits
from fbench.judging.rubric_file import Rubric, load_rubric
from fbench.judging.rubric_prompt import (
    PROMPT_VERSION,
    UnfitVerdict,
    correction,
    is_verdict,
    judge_messages,
    read_verdict,
    verdict_tool,
)
from fbench.judging.scoring import as_written, weighted_mean
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase

MOST_ASKS = 3
"""How often a judge is asked for one vote before the check is `error`."""

Scores = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Vote:
    """One verdict. `asks` is how often the judge was asked; 0 when the verdict was kept from an earlier call."""

    number: int
    criteria: Scores
    asks: int
    model_answered: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """What one check asks its judge, the same in every vote."""

    rubric: Rubric
    prompt: str
    exhibits: Sequence[Exhibit]
    judge: Judge

    def key(self, vote: int) -> str:
        """What the cache knows a vote by."""
        return digest_of(
            {
                "version": PROMPT_VERSION,
                "rubric": self.rubric.model_dump(),
                "prompt": self.prompt,
                "evidence": [exhibit.identity() for exhibit in self.exhibits],
                "judge": dict(self.judge.identity),
                "vote": vote,
            }
        )


class LlmRubric:
    """Scores by a rubric: the mean of its criteria by weight, each the mean of its votes.

    A judge that gives no verdict which fits, or whose purse is empty, makes the check `error`; one whose server fails
    ends the run as `error`.
    """

    tier: ClassVar[Tier] = "rubric"
    arguments: ClassVar[type[CheckBase]] = manifest.LlmRubric

    async def evaluate(self, check: manifest.LlmRubric, context: CheckContext) -> CheckOutcome:
        """Gather the evidence, ask for each vote, and join them."""
        assert context.open_judge is not None  # whoever plans a run with a rubric plans its judge
        rubric = await in_thread(lambda: load_rubric(context.task_folder, check.rubric))
        votes: list[Vote] = []
        seen: dict[str, Any] = {"rubric": check.rubric, "votes_asked": check.votes}
        try:
            exhibits = await in_thread(lambda: gather_exhibits(rubric.settings, context))
            seen["evidence"] = [exhibit.facts() for exhibit in exhibits]
            with context.open_judge(check.id) as judge:
                seen["judge"] = dict(judge.identity)
                question = Question(rubric, context.materials.prompt, exhibits, judge)
                async with open_verdict_cache(context.verdict_cache) as cache:
                    for number in range(1, check.votes + 1):
                        votes.append(await _vote(question, number, cache))  # noqa: PERF401 - kept when a later one fails
        except RunError:
            raise
        except CannotEvaluate as problem:
            return CheckOutcome("error", 0.0, str(problem), {**seen, "votes": _told(votes), **problem.evidence})
        except FbenchError as error:  # the judge cannot be asked this
            return CheckOutcome("error", 0.0, str(error), {**seen, "votes": _told(votes), "error": str(error)})
        return _outcome(rubric, votes, seen)


async def _vote(question: Question, number: int, cache: VerdictCache) -> Vote:
    """One verdict, from the cache if it was given before.

    Raises:
        CannotEvaluate: no reply was a verdict that fits.
    """
    key = question.key(number)
    kept = await cache.get(key)
    if kept is not None and is_verdict(kept.get("criteria"), question.rubric):
        return Vote(number, kept["criteria"], 0, kept.get("model_answered"))
    messages = judge_messages(question.rubric, question.prompt, question.exhibits)
    tool, replies = verdict_tool(question.rubric), []
    for asks in range(1, MOST_ASKS + 1):
        reply = await question.judge.ask(messages, tool, vote=number)
        try:
            criteria = read_verdict(reply, question.rubric)
        except UnfitVerdict as problem:
            replies.append({"problem": str(problem), "content": reply.content, "calls": len(reply.tool_calls)})
            messages = [*messages, *correction(reply, problem)]
            continue
        verdict = {"criteria": criteria, "model_answered": reply.model_answered}
        await cache.put(key, verdict, str(question.judge.identity.get("model")))
        return Vote(number, criteria, asks, reply.model_answered)
    reason = f"the judge gave no verdict that fits in {MOST_ASKS} replies: {replies[-1]['problem']}"
    raise CannotEvaluate(reason, {"error": reason, "unfit_replies": replies})


def _outcome(rubric: Rubric, votes: Sequence[Vote], seen: Mapping[str, Any]) -> CheckOutcome:
    rows: dict[str, dict[str, Any]] = {}
    means: dict[str, Fraction] = {}
    for criterion in rubric.settings.criteria:
        scores = [float(vote.criteria[criterion.id]["score"]) for vote in votes]
        mean = means[criterion.id] = sum(map(as_written, scores), Fraction()) / len(scores)
        rows[criterion.id] = {
            "weight": criterion.weight,
            "score": float(mean),
            "scores": scores,
            "disagreement": max(scores) - min(scores),
        }
    exact = weighted_mean((criterion.weight, means[criterion.id]) for criterion in rubric.settings.criteria)
    score, threshold = float(exact), rubric.settings.threshold
    disagreement = max(row["disagreement"] for row in rows.values())
    told = ", ".join(f"{name} {row['score']:.3g}" for name, row in rows.items())
    if len(votes) > 1:
        told += f"; {len(votes)} votes, which differ by up to {disagreement:.3g}"
    output = {**seen, "criteria": rows, "disagreement": disagreement, "threshold": threshold, "votes": _told(votes)}
    return CheckOutcome("passed" if exact >= as_written(threshold) else "failed", score, told, output)


def _told(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    return [
        {
            "vote": vote.number,
            "cached": vote.asks == 0,
            "asks": vote.asks,
            "model_answered": vote.model_answered,
            "criteria": vote.criteria,
        }
        for vote in votes
    ]
