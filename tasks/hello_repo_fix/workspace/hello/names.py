"""Names as people like to read them."""

from collections.abc import Sequence


def clean_name(name: str) -> str:
    """The name without stray spaces, each part beginning with a capital; `McKay` stays `McKay`."""
    return " ".join(part[0].upper() + part[1:] for part in name.split())


def join_names(names: Sequence[str]) -> str:
    """`Ada`, `Ada and Grace`, `Ada, Grace, and Linus`; nobody is `everyone`."""
    cleaned = [name for name in map(clean_name, names) if name]
    if not cleaned:
        return "everyone"
    if len(cleaned) <= 2:
        return " and ".join(cleaned)
    return ", ".join(cleaned[:-1]) + ", and " + cleaned[-1]
