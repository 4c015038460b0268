"""Keeps secrets out of whatever a run leaves behind."""

from collections.abc import Callable, Iterable

MASK = "[redacted]"
SHORTEST_SECRET = 6
"""Shorter texts are no keys, and masking them would garble ordinary output."""


def redactor(secrets: Iterable[str | None]) -> Callable[[str], str]:
    """A function that replaces each of `secrets` in a text by a mask. Longer secrets are replaced first."""
    known = sorted({secret for secret in secrets if secret and len(secret) >= SHORTEST_SECRET}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            text = text.replace(secret, MASK)
        return text

    return redact
