# %% [markdown]
# Two prompts for one task, a few attempts each, as in a notebook: run the cells one after the other.

# %%
import asyncio
from statistics import mean

from fbench.engine import Engine, RunOptions, RunResult

MODEL = "fake/oracle"  # or openai/gpt-4o-mini, with OPENAI_API_KEY set
ATTEMPTS = 2


# %%
async def attempt(engine: Engine, seed: int, **options: object) -> RunResult:
    """One run; an error of the infrastructure is in its result and raises nothing."""
    given = {"task": "hello_repo_fix", "model": MODEL, "seed": seed, **options}
    return await engine.run(RunOptions.model_validate(given))


async def attempts(**options: object) -> list[RunResult]:
    """Several runs at once, on the loop that is there."""
    async with Engine() as engine, asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(engine, seed, **options)) for seed in range(ATTEMPTS)]
    return [task.result() for task in tasks]


# %% In a notebook: `few = await attempts(max_turns=5)`
few = asyncio.run(attempts(max_turns=5))
many = asyncio.run(attempts(max_turns=30))

# %%
for name, results in {"5 turns": few, "30 turns": many}.items():
    scores = [result.score for result in results if result.score is not None]
    spent_usd = sum(result.cost_usd or 0 for result in results)
    print(f"{name}: mean score {mean(scores):.2f} of {len(scores)}, ${spent_usd:.4f}")
