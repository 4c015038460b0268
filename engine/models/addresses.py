"""Base URLs: what is one, and what of it is secret."""

from urllib.parse import unquote, urlsplit


def is_address(url: str) -> bool:
    """Whether `url` can be a server's base URL.

    >>> is_address("http://127.0.0.1:8000/v1"), is_address("localhost:8000")
    (True, False)
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and url.isprintable() and " " not in url


def without_password(url: str | None) -> str | None:
    """A base URL as it may be written down.

    >>> without_password("https://me:secret@models.example:8000/v1"), without_password("http://127.0.0.1/v1")
    ('https://models.example:8000/v1', 'http://127.0.0.1/v1')
    """
    if url is None or "@" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def secrets_in(url: str | None) -> tuple[str, ...]:
    """The password in a base URL, as it is written and as it is sent."""
    try:
        password = urlsplit(url or "").password
    except ValueError:
        return ()
    return tuple({password, unquote(password)}) if password else ()
