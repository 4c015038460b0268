"""Task folders to read: the contract's whole example, and a small one to spoil."""

from collections.abc import Callable
from pathlib import Path

import pytest

MINIMAL = """\
id: small
title: A small task
difficulty: easy
domain: software
agent:
  prompt: prompt.md
grader:
  checks:
    - {id: there, type: file_present, path: out.txt}
"""

SPEC_EXAMPLE = """\
id: pandas_transform            # [a-z0-9_]+, equals the folder's name
title: Summarise orders by region
description: one or two sentences for lists
difficulty: easy                # easy | medium | hard
domain: data_engineering        # slug; reports roll up by it
tags: [pandas, csv]

environment:
  image: fbench/mle:1           # or `build: environment/` (a folder with a Dockerfile)
  workdir: /workspace
  env: {TZ: UTC}                # nothing of the host's environment reaches a sandbox besides this
  resources: {cpus: 1.0, memory: 1g, pids: 256, disk: 5g}   # enforced where the sandbox can; doctor says where not
  network: {allow: []}          # [] = services only, by name; [internet] opens it; nothing else is legal
  services:                     # any service, or a non-empty allow, selects Compose
    db:
      image: postgres:16-alpine # or `build: services/db/`
      command: null
      env: {POSTGRES_PASSWORD: bench}
      files: {services/init.sql: /docker-entrypoint-initdb.d/init.sql}   # task file: where it is mounted, read-only
      healthcheck: {command: "pg_isready -U postgres", interval_s: 1, retries: 60}
      resources: {memory: 512m}
  setup: ["git init -q"]        # commands run in the sandbox before the agent's first turn
  container_only: false         # true: never on the host's own programs (bubblewrap, local)
  modules: [pandas]             # Python modules that must import in the sandbox; checked before the first turn

model: {temperature: null, top_p: null, seed: null, reasoning_effort: null, max_output_tokens: 4096}

agent:
  prompt: prompt.md             # a file of the task, or the text itself under `prompt_text`
  system_text: null             # replaces the default system prompt
  max_turns: 30
  turns: []                     # further user messages, each sent after a `submit`; the agent never sees them ahead

tools:
  style: native                 # native | json_text
  allow: [bash, python, text_editor, git_diff]

budget:                         # every key optional; the command line may tighten or replace
  tokens: 60000                 # input + output, cached input included
  tool_calls: 40
  wall_time_s: 600
  cost_usd: 0.50
  judge_cost_usd: 0.10          # the judge has its own purse

grader:
  pass_threshold: 1.0           # passed = score >= threshold and no gating check failed
  sandbox: fresh                # fresh | same; fresh = a new sandbox on a copy of the final workspace
  checks:
    - {id: wrote_file, type: file_present, path: out/summary.csv, gating: true}
    - {id: unit_tests, type: command_exit_zero, command: "python -m pytest -q /grader/tests", timeout_s: 60, weight: 2}
    - id: accuracy
      type: metric_check
      command: "python /grader/score.py"      # prints one JSON object; or `path: metrics.json`
      metric: accuracy
      op: ">="                                # >= <= > < == between
      threshold: 0.90
      baseline: 0.50                          # optional: partial credit, linear from baseline (0) to threshold (1)
    - id: rows
      type: sql_check                         # runs from the grading sandbox
      dsn: "postgresql://postgres:bench@db/postgres"   # or sqlite:///out/app.db
      query: "select count(*) from v2.orders"
      expect: [[120]]
      ordered: false
    - id: stdout
      type: reference_output
      command: "python main.py"               # its stdout, or `path: out/summary.csv`
      reference: grader/expected.csv
      format: csv                             # text | json | csv
      tolerance: {rel: 1.0e-6, abs: 1.0e-9, ignore_case: false, strip: true, ignore_row_order: false}
    - id: quality
      type: llm_rubric
      rubric: grader/rubric.md
      judge_model: openai/gpt-4o
      votes: 1
      weight: 1

solution: solution/solve.sh     # the reference solution; run in the workspace it must pass
exploits: [exploits/*.sh]       # known cheats; each must score no more than an untouched workspace
"""

WriteTask = Callable[..., Path]


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Write a task folder: the text of its task.yaml (bytes as they are), and further files by path."""

    def write(text: str | bytes = MINIMAL, *, name: str = "small", files: dict[str, str] | None = None) -> Path:
        folder = tmp_path / name
        (folder / "workspace").mkdir(parents=True)
        for path, content in {"prompt.md": "Write out.txt.\n", **(files or {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        (folder / "task.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


@pytest.fixture
def minimal() -> str:
    """The text of the smallest sensible task.yaml."""
    return MINIMAL


@pytest.fixture
def spec_example() -> str:
    """The example of the contract's section 2, word for word."""
    return SPEC_EXAMPLE


@pytest.fixture
def spec_task(write_task: WriteTask) -> Path:
    """A folder that obeys the contract's whole example."""
    names = ("services/init.sql", "grader/expected.csv", "grader/rubric.md", "solution/solve.sh", "exploits/cheat.sh")
    return write_task(SPEC_EXAMPLE, name="pandas_transform", files=dict.fromkeys(names, "content\n"))
