"""From the data of genai-prices to our price table. The rules, each tested against the package itself:

1. Providers: those of PROVIDERS whole, those of LLAMA_HOSTS for models with `llama` in their name. `x-ai` is `xai`.
2. Names: a model's id, each name its matching clause gives in full, dated Claude names (`claude-opus-4-20250514`) that
   stand anywhere in the data, and MORE_NAMES. A name counts only if the package itself would find this very model by
   it. A name that repeats the provider (`x-ai/grok-4.3` of x-ai), only spells another one's points as dashes
   (`gpt-5-1`) or is a mere beginning (`ft:gpt-4o-`) is left out.
3. Prices: text tokens of a standard call: input, cached_input (their cache read), cache_write (their shortest
   retention), output, rounded to the decimals a price may have (some are quotients written out). Batch, flex and
   priority rates, longer retention, searches and other modalities are left out.
4. Models without an input and an output price in every period are left out, and so is what answers in sound, images or
   video, or is named for speech, images, embeddings, pages or labels of safety: an agent cannot use it.
5. Long context: their tiers hold for a whole call whose input is longer than the tier's start, as ours do.
6. Dates: the last entry of the list that applies holds, the first one where none does. Ours begin a new dated price at
   each of their start dates, unless nothing changes.
7. Hours: a window holds over the entries before it in the list, from the last date among them on. (The package lets it
   hold for earlier dates too, which its own comments call wrong.)
8. Context windows: the model's own number of tokens, where it has one, for all its names.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from fbench.pricing.errors import PricingError
from fbench.pricing.rates import MAX_DECIMALS, DatedPrice, HourlyPrice, LongContext, Price, Tariff
from fbench.pricing.source import PACKAGE, Record, SourceData

PROVIDERS = (
    "openai",
    "anthropic",
    "google",
    "mistral",
    "deepseek",
    "x-ai",
    "meta",
    "groq",
    "together",
    "fireworks",
    "cerebras",
)
"""Taken whole. The last four host Meta's Llama, among other open models."""

LLAMA_HOSTS = ("aws", "cloudflare", "databricks", "novita", "ovhcloud")
"""Taken for their Llama models alone."""

MORE_NAMES = {
    "openai": ("computer-use-preview", "gpt-5-nano-2025-08-07"),
    "anthropic": ("claude-opus-4-5-20251101",),
}
"""Names the providers document and the package knows only by their beginning."""

OUR_NAMES = {"x-ai": "xai"}

_KEYS = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
}
_OTHER_ANSWERS = ("output_audio_mtok", "output_image_mtok", "output_video_mtok")
_NO_CHAT = re.compile(
    r"(?:^|[^a-z])(?:audio|embed|embedding|guard|image|images|live|moderation|ocr|realtime|speech|transcribe|tts|voice|whisper)"
    r"(?:[^a-z]|$)",
    re.IGNORECASE,
)
_DATED_CLAUDE = re.compile(r"(?<![a-z0-9])claude-[a-z0-9-]+-20\d{6}(?!\d)")


def convert(data: SourceData, only: Sequence[str] = ()) -> dict[str, Tariff]:
    """Our table of the package's data, names sorted within their provider; `only` names providers of the package that
    are taken whole instead.

    Raises:
        PricingError: the package has no such provider, or a price that is none.
    """
    known = {str(provider.get("id")): provider for provider in data.providers}
    theirs = {OUR_NAMES.get(one, one): one for one in known}
    wanted = [theirs.get(one, one) for one in only] or [*PROVIDERS, *LLAMA_HOSTS]
    if missing := [one for one in wanted if one not in known]:
        msg = f"{PACKAGE} {data.version} has no provider {', '.join(missing)}; it has {', '.join(sorted(theirs))}"
        raise PricingError(msg)
    more = {one: list(names) for one, names in MORE_NAMES.items()}
    if "anthropic" in wanted:
        more["anthropic"] += sorted({name for text in _texts(data.providers) for name in _DATED_CLAUDE.findall(text)})
    table: dict[str, Tariff] = {}
    for one in wanted:
        is_llama_only = not only and one in LLAMA_HOSTS
        found: dict[str, Tariff] = {}
        for model in known[one].get("models") or ():
            try:
                tariff = _tariff(model)
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                told = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                name = f"{one}/{model.get('id')}"
                msg = f"{PACKAGE} {data.version} says nothing usable of {name} ({told}); upgrade fbench"
                raise PricingError(msg) from error
            if tariff is None:
                continue
            for name in _names(model, known[one], more.get(one, ())):
                if not _NO_CHAT.search(name) and ("llama" in name.lower() or not is_llama_only):
                    found[f"{OUR_NAMES.get(one, one)}/{name}"] = tariff
        table |= dict(sorted(found.items()))
    return table


def is_match(clause: Record, text: str) -> bool:
    """Whether a model's matching clause covers `text`, as the package decides it."""
    text = text.lower()
    match clause.kind, *clause.fields.values():
        case "ClauseEquals", str(wanted):
            return text == wanted.lower()
        case "ClauseStartsWith", str(wanted):
            return text.startswith(wanted.lower())
        case "ClauseEndsWith", str(wanted):
            return text.endswith(wanted.lower())
        case "ClauseContains", str(wanted):
            return wanted.lower() in text
        case "ClauseRegex", str(wanted):
            return re.search(wanted, text) is not None
        case "ClauseOr", [*parts]:
            return any(is_match(part, text) for part in parts)
        case "ClauseAnd", [*parts]:
            return all(is_match(part, text) for part in parts)
    msg = f"{PACKAGE} matches models by {clause.kind}, which this fbench does not know; upgrade fbench"
    raise PricingError(msg)


def _names(model: Record, provider: Record, more: Iterable[str]) -> list[str]:
    """Rule 2."""
    names = dict.fromkeys([str(model.get("id")), *_full_names(model.get("match")), *more])
    dashed = {name: re.sub(r"(?<=\d)\.(?=\d)", "-", name) for name in names}
    respelled = {dashed[name] for name in names if dashed[name] != name} - {model.get("id")}
    return [
        name
        for name in names
        if name not in respelled
        and re.fullmatch(r"\S*[A-Za-z0-9]", name)
        and not name.startswith(f"{provider.get('id')}/")
        and _first_match(provider, name) is model
    ]


def _full_names(clause: Record) -> Iterator[str]:
    if clause.kind == "ClauseEquals":
        yield clause.get("equals")
    elif clause.kind == "ClauseOr":
        for part in clause.get("or_"):
            yield from _full_names(part)


def _first_match(provider: Record, name: str) -> Record | None:
    return next((model for model in provider.get("models") if is_match(model.get("match"), name)), None)


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - see Record.get
    """All texts in the data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Record):
        yield from _texts(list(value.fields.values()))
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _tariff(model: Record) -> Tariff | None:
    """Rules 3 to 8; None for a model that is left out."""
    listed = model.get("prices")
    if not isinstance(listed, list):
        listed = [Record("ConditionalPrice", {"prices": listed})]
    prices = [_price(one.get("prices")) for one in listed]
    if not prices or any(price is None for price in prices):
        return None
    constraints = [one.get("constraint") for one in listed]
    starts = sorted({one.get("start_date") for one in constraints if _is_date(one)})
    entries: list[DatedPrice] = []
    for start in (None, *starts):
        entry = _entry(start, constraints, [price for price in prices if price is not None])
        if not entries or entry.model_copy(update={"from_": entries[-1].from_}) != entries[-1]:
            entries.append(entry)
    return Tariff(entries=tuple(entries), context_window=model.get("context_window"))


def _entry(start: date | None, constraints: Sequence[Record | None], prices: Sequence[Price]) -> DatedPrice:
    """What holds from `start` (None: from ever) until the next start date."""
    reached = [_start_of(constraint) for constraint in constraints]
    applies = [begin is None or (start is not None and begin <= start) for begin in reached]
    is_window = [constraint is not None and constraint.kind == "TimeOfDateConstraint" for constraint in constraints]
    base = max((place for place, yes in enumerate(applies) if yes and not is_window[place]), default=0)
    windows = []
    for place in range(base + 1, len(prices)):
        constraint = constraints[place]
        if constraint is None or not is_window[place]:
            continue
        last_date = max((begin for begin in reached[:place] if begin is not None), default=None)
        if last_date is None or (start is not None and last_date <= start):
            utc = f"{_clock(constraint.get('start_time'))}-{_clock(constraint.get('end_time'))}"
            windows.append(HourlyPrice(utc=utc, **_facts(prices[place])))
    return DatedPrice.model_validate({"from": start, "hours": tuple(windows), **_facts(prices[base])})


def _price(source: Record) -> Price | None:
    """Rules 3 and 5; None without the price of input and output, or for what does not answer in text."""
    if source is None or any(source.get(key) is not None for key in _OTHER_ANSWERS):
        return None
    given = {ours: source.get(theirs) for ours, theirs in _KEYS.items() if source.get(theirs) is not None}
    if not {"input", "output"} <= set(given):
        return None
    above = sorted({tier.get("start") for value in given.values() for tier in _tiers(value)})
    tiers = [
        LongContext(above_input_tokens=start, **{ours: _rate(value, start) for ours, value in given.items()})
        for start in above
    ]
    return Price(long_context=tuple(tiers), **{ours: _rate(value, 0) for ours, value in given.items()})


def _rate(value: Decimal | Record, start: int) -> Decimal:
    """The rate of a call longer than `start` and no longer than the next tier's."""
    rate = value.get("base") if isinstance(value, Record) else value
    for tier in sorted(_tiers(value), key=lambda tier: tier.get("start")):
        if tier.get("start") <= start and start > 0:
            rate = tier.get("price")
    if not isinstance(rate, Decimal):
        msg = f"{PACKAGE} has a price that is no number but {rate!r}; upgrade fbench"
        raise PricingError(msg)
    exponent = rate.as_tuple().exponent
    is_exact = isinstance(exponent, int) and exponent >= -MAX_DECIMALS
    return rate if is_exact or not rate.is_finite() else round(rate, MAX_DECIMALS).normalize()


def _tiers(value: Decimal | Record) -> list[Record]:
    return list(value.get("tiers")) if isinstance(value, Record) else []


def _facts(price: Price) -> dict[str, Any]:
    return {name: getattr(price, name) for name in Price.model_fields}


def _is_date(constraint: Record | None) -> bool:
    return constraint is not None and constraint.kind == "StartDateConstraint"


def _start_of(constraint: Record | None) -> date | None:
    if constraint is None or constraint.kind == "TimeOfDateConstraint":
        return None
    if constraint.kind != "StartDateConstraint":
        msg = f"{PACKAGE} has prices by {constraint.kind}, which this fbench does not know; upgrade fbench"
        raise PricingError(msg)
    start: date = constraint.get("start_date")
    return start


def _clock(moment: time) -> str:
    return f"{moment:%H:%M}"
