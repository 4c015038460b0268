"""`sql_check`: the rows that a query gives, against those expected.

The query runs in the grading sandbox, where a task's services have their names, by a program of ours that imports
nothing of the workspace (`sql_inside`); it is compared here (`sql_rows`).
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.exact_json import JsonValue
from fbench.judging.gather import CannotEvaluate, in_thread, is_present
from fbench.judging.inside import InsideProgram, ask_inside
from fbench.judging.sql_rows import RowsUnreadable, compare_rows, read_answer
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase

MAX_ROWS = 100_000
"""More rows than this are not compared: the check has failed."""
MAX_CELL_BYTES = 10 * 1024**2
"""Of all cells together, as text; more is not compared either."""

_KEEP_BYTES = 8 * MAX_CELL_BYTES  # JSON may write a character in up to six bytes
_MAX_KEPT_ROWS = 100
_POSTGRES_PORT = 5432


class DsnRefused(ValueError):
    """The address cannot be used: the task's fault. The message never holds the password."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is. `path` is SQLite's file in the workspace, the rest is PostgreSQL's."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = _POSTGRES_PORT
    database: str = ""
    user: str = ""
    password: str | None = field(default=None, repr=False)
    ssl: bool = False

    def shown(self) -> str:
        """The address without its password."""
        if self.kind == "sqlite":
            return f"sqlite:///{self.path}"
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    def without_password(self, text: str) -> str:
        """Words of the database, the password in them replaced."""
        if not self.password:
            return text
        return re.sub(rf"(?<!\w){re.escape(self.password)}(?!\w)", "***", text)


class SqlCheck:
    """Passes when the rows are equal. What the database has against the query is `failed`, for it judges the agent's
    work; a database that cannot be reached, or a query that takes too long, is `error`."""

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[CheckBase]] = manifest.SqlCheck

    async def evaluate(self, check: manifest.SqlCheck, context: CheckContext) -> CheckOutcome:
        """Ask in a grading sandbox of its own, compare in a thread."""
        evidence: dict[str, Any] = {"query": check.query, "ordered": check.ordered, "expect": check.expect}
        try:
            address = parse_dsn(check.dsn)
        except DsnRefused as error:
            return CheckOutcome("error", 0.0, f"the task's dsn cannot be used: {error}", evidence)
        evidence["dsn"] = address.shown()
        if address.kind == "sqlite" and not await in_thread(lambda: is_present(context, address.path)):
            detail = f"{address.path!r} is no regular file of the final workspace"
            return CheckOutcome("failed", 0.0, detail, {**evidence, "present": False})
        try:
            answer = await _ask(check, address, context)
        except CannotEvaluate as problem:
            return CheckOutcome("error", 0.0, str(problem), {**evidence, **problem.evidence})
        return await in_thread(lambda: judge_answer(check, address, answer, evidence))


def judge_answer(
    check: manifest.SqlCheck, address: Address, answer: dict[str, JsonValue], evidence: dict[str, Any]
) -> CheckOutcome:
    """The outcome for what `sql_inside` answered."""
    match answer:
        case {"failed": str(words)}:
            detail = address.without_password(words)
            return CheckOutcome("failed", 0.0, detail, {**evidence, "failed": detail})
        case {"error": str(words)}:
            detail = address.without_password(words)
            return CheckOutcome("error", 0.0, detail, {**evidence, "error": detail})
        case _:
            pass
    try:
        got = read_answer(answer)
        found = compare_rows(check.expect, got, ordered=check.ordered)
    except RowsUnreadable as error:
        return CheckOutcome("error", 0.0, f"the rows cannot be read: {error}", evidence)
    output = {
        **evidence,
        "columns": got.columns,
        "rows": [[cell.shown for cell in row] for row in got.rows[:_MAX_KEPT_ROWS]],
        "row_count": len(got.rows),
        "cut": got.cut,
        "compared": found.compared,
        "differences": list(found.differences),
        "difference_count": found.count,
    }
    if found.is_equal:
        return CheckOutcome("passed", 1.0, f"the rows are as expected ({found.compared})", output)
    return CheckOutcome("failed", 0.0, found.summary, output)


def parse_dsn(dsn: str) -> Address:
    """The address in a DSN.

    >>> parse_dsn("sqlite:///out/app.db").path
    'out/app.db'
    >>> parse_dsn("postgresql://postgres:bench@db/shop").shown()
    'postgresql://postgres@db:5432/shop'

    Raises:
        DsnRefused: it names no file, no host, or an option unknown here.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError:
        msg = "it is no address; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:///PATH"
        raise DsnRefused(msg) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "sqlite":
        return _parse_sqlite(unquote(parts.path), parts.netloc, options)
    ssl = options.pop("sslmode", "disable")
    user = unquote(parts.username) if parts.username else options.pop("user", "postgres")
    password = unquote(parts.password) if parts.password is not None else options.pop("password", None)
    if ssl not in {"disable", "require"}:
        msg = "its sslmode may be disable or require"
        raise DsnRefused(msg)
    if options:
        msg = f"it has options unknown here: {', '.join(sorted(options))}; user, password and sslmode are known"
        raise DsnRefused(msg)
    if not parts.hostname:
        msg = "it names no host; a service of the task is reached by its name"
        raise DsnRefused(msg)
    return Address(
        kind="postgresql",
        host=parts.hostname,
        port=port or _POSTGRES_PORT,
        database=unquote(parts.path.lstrip("/")) or user,
        user=user,
        password=password,
        ssl=ssl == "require",
    )


def _parse_sqlite(path: str, netloc: str, options: dict[str, str]) -> Address:
    relative = path.removeprefix("/")
    if netloc or options or not relative or relative.startswith("/"):
        msg = "of SQLite it names a file of the workspace, as sqlite:///out/app.db, and nothing else"
        raise DsnRefused(msg)
    return Address(kind="sqlite", path=relative)


async def _ask(check: manifest.SqlCheck, address: Address, context: CheckContext) -> dict[str, JsonValue]:
    """What `sql_inside` answers in a grading sandbox of its own. Raises CannotEvaluate, JudgingFailed."""
    job: dict[str, Any] = {
        **asdict(address),
        "query": check.query.strip().rstrip("; \t\r\n"),
        "timeout_s": check.timeout_s,
        "max_rows": MAX_ROWS,
        "max_bytes": MAX_CELL_BYTES,
    }
    program = InsideProgram(
        module="sql_inside", does="the query", words="the program that asks the database", hide=address.without_password
    )
    return await ask_inside(context, program, job, timeout_s=check.timeout_s, keep_bytes=_KEEP_BYTES)
