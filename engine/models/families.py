"""What a model's name alone tells of how it must be asked; all else is learnt from the server's refusals."""

import re

_REASONING = re.compile(r"(o[1-9]\d*|gpt-[5-9])(\b|[-.:_]).*")

# The o-series, gpt-5 and its sizes take temperature and top_p at their default only. With a minor number it depends on
# the effort, so the server is asked; `-chat` ones do not reason.
_WITHOUT_SAMPLING = re.compile(r"(o[1-9]\d*|gpt-5(?![.\d]))(?!.*-chat)(\b|[-:_]).*")

# The names that the openai package (3.54, types/shared/responses_model.py) lists beside the chat models, by family;
# asked otherwise, OpenAI answers "This model is only supported in v1/responses and not in v1/chat/completions".
_RESPONSES_ONLY = re.compile(
    r"(codex-|gpt-[5-9][.\d]*-codex|(o[1-9]\d*|gpt-[5-9][.\d]*)-pro\b|o[1-9]\d*(-mini)?-deep-research|computer-use-preview).*"
)


def is_reasoning(name: str) -> bool:
    """Whether OpenAI's model of this name reasons; what stands before a slash is somebody else's prefix.

    >>> is_reasoning("o3-mini"), is_reasoning("vendor/gpt-5"), is_reasoning("gpt-4o"), is_reasoning("gpt-oss-20b")
    (True, True, False, False)
    """
    return _REASONING.fullmatch(_last(name)) is not None


def refuses_sampling(name: str) -> bool:
    """Whether OpenAI's model of this name takes neither temperature nor top_p, at any effort.

    >>> refuses_sampling("o3"), refuses_sampling("gpt-5-mini"), refuses_sampling("gpt-5.1"), refuses_sampling("gpt-4o")
    (True, True, False, False)
    """
    return _WITHOUT_SAMPLING.fullmatch(_last(name)) is not None


def needs_responses(name: str) -> bool:
    """Whether OpenAI serves the model of this name by the Responses API only.

    >>> needs_responses("gpt-5.1-codex-mini"), needs_responses("o3-pro"), needs_responses("gpt-5")
    (True, True, False)
    """
    return _RESPONSES_ONLY.fullmatch(_last(name)) is not None


def _last(name: str) -> str:
    return name.rpartition("/")[2]
