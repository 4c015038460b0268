"""Keeps secrets out of whatever a run leaves behind."""

import json
from collections.abc import Callable, Iterable

MASK = "[redacted]"
SHORTEST_SECRET = 6
"""Shorter texts are no keys, and masking them would garble ordinary output."""


def redactor(secrets: Iterable[str | None]) -> Callable[[str], str]:
    """A function that replaces each of `secrets` in a text by a mask. Longer secrets are replaced first.

    Blanks around a secret are no part of it, for they are not sent; in a line of JSON it may stand escaped.
    """
    bare = {secret.strip() for secret in secrets if secret}
    forms = {form for secret in bare for form in (secret, json.dumps(secret)[1:-1])}
    known = sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            text = text.replace(secret, MASK)
        return text

    return redact
