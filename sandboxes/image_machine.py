"""What this machine's network needs of a build: a CA bundle, pip's indexes, proxies. Nothing of it stays in an image.

Only the standard library is needed, so that CI's scripts can use it before anything is installed.
"""

import configparser
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fbench.engine.errors import UsageError

CA_FILE = "machine/ca.crt"
PIP_FILE = "machine/pip.conf"
MAX_CA_BYTES = 8 * 1024**2

_CA_VARIABLES = ("FBENCH_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries")


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Files for the build's folder `machine/`, and build arguments that Docker itself keeps out of images."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)


def read_machine_settings(
    ca_bundle: Path | None = None, environ: Mapping[str, str] = os.environ, pip_files: tuple[Path, ...] | None = None
) -> MachineSettings:
    """This machine's settings. Blocking.

    Args:
        ca_bundle: a PEM file; None takes the first of FBENCH_CA_BUNDLE, SSL_CERT_FILE, PIP_CERT, REQUESTS_CA_BUNDLE and
            CURL_CA_BUNDLE that is set.
        environ: where variables are looked up.
        pip_files: pip's configuration files, weakest first; None is where pip looks.

    Raises:
        UsageError: the CA bundle is no readable PEM file.
    """
    files = {PIP_FILE: _pip_conf(environ, _pip_files(environ) if pip_files is None else pip_files)}
    if bundle := _ca_bundle(ca_bundle, environ):
        files[CA_FILE] = bundle
    return MachineSettings(files, dict(_proxies(environ)))


def _ca_bundle(given: Path | None, environ: Mapping[str, str]) -> bytes | None:
    origin = "--ca-bundle"
    path = given
    if path is None:
        origin = next((name for name in _CA_VARIABLES if environ.get(name)), "")
        if not origin:
            return None
        path = Path(environ[origin])
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CA_BYTES + 1)
    except OSError as error:
        msg = f"cannot read the CA bundle {path} ({origin}): {error.strerror}; name a PEM file"
        raise UsageError(msg) from error
    if b"-----BEGIN CERTIFICATE-----" not in text or len(text) > MAX_CA_BYTES:
        msg = f"the CA bundle {path} ({origin}) is no PEM file of certificates under {MAX_CA_BYTES // 1024**2} MiB"
        raise UsageError(msg)
    return text


def _pip_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf"]
    return (*files, Path(environ["PIP_CONFIG_FILE"])) if environ.get("PIP_CONFIG_FILE") else tuple(files)


def _pip_conf(environ: Mapping[str, str], files: tuple[Path, ...]) -> bytes:
    """pip's settings that make sense elsewhere: an index in a folder of this machine does not."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    for path in files:
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, UnicodeDecodeError, configparser.Error):  # pip itself says what is wrong with its files
            continue
    lines = ["[global]"]
    for key in _PIP_KEYS:
        value = environ.get("PIP_" + key.upper().replace("-", "_"))
        if value is None:
            value = parser.get("install", key, fallback="") or parser.get("global", key, fallback="")
        if words := [word for word in value.split() if not word.startswith(("file:", "/", "."))]:
            lines.append(f"{key} = " + "\n    ".join(words))
    return ("\n".join(lines) + "\n").encode()


def _proxies(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in _PROXIES:
        for spelling in (name, name.lower()):
            if environ.get(spelling):
                yield spelling, environ[spelling]
