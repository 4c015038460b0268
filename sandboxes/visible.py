"""Which host folders a bubblewrap sandbox shows, and what of them it has to cover."""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

SYSTEM_FOLDERS = ("/usr", "/nix/store")
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "inputrc",
    "java-*-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/tls/certs",
    "pki/tls/cert.pem",
    "protocols",
    "python3*",
    "R",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""What programs need of /etc and no machine keeps a secret in."""
PARTS = ("engine", "judging", "pricing", "sandboxes", "suites", "tasks")


def etc_entries(etc: Path = Path("/etc")) -> list[Path]:
    """The entries of /etc that are shown."""
    return sorted(entry for pattern in ETC for entry in etc.glob(pattern) if entry.exists())


@cache
def python_folders() -> tuple[Path, ...]:
    """The prefixes of the interpreter we run in and, file by file, the links that lead to its executable.

    Each by the name it is known under and by its real one.
    """
    found: list[Path] = []
    for name in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        found += [Path(name), Path(os.path.realpath(name))]
    hop = Path(sys.executable)
    for _ in range(40):
        found.append(hop)
        if not os.path.islink(hop):  # noqa: PTH114 - pathlib raises where we may not look
            break
        hop = Path(os.path.normpath(hop.parent / hop.readlink()))
    found.append(Path(os.path.realpath(sys.executable)))
    shown: list[Path] = []
    for path in found:
        is_whole = path == Path("/") or not os.access(path, os.R_OK)
        if not is_whole and not any(path.is_relative_to(other) for other in (*shown, *map(Path, SYSTEM_FOLDERS))):
            shown.append(path)
    return tuple(shown)


@cache
def own_folders() -> tuple[Path, ...]:
    """Every folder that holds code or data of fbench itself: its graders are in there."""
    found: set[Path] = set()
    for part in PARTS:
        spec = importlib.util.find_spec(f"fbench.{part}")
        found.update(Path(place) for place in (spec and spec.submodule_search_locations) or ())
    for name, module in list(sys.modules.items()):
        if name.startswith("fbench."):
            found.update(Path(place) for place in getattr(module, "__path__", ()))
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path}
    found.update(Path(library, "fbench") for library in libraries if library)
    for prefix in {*python_folders(), *map(Path, SYSTEM_FOLDERS), Path("/usr/local")}:
        for packages in ("site-packages", "dist-packages"):
            found.update(prefix.glob(f"lib*/python3*/{packages}/fbench"))
    return tuple(sorted(path for path in found if path.is_dir()))


def covered(hidden: Iterable[Path], shown: Sequence[tuple[Path, str]]) -> list[tuple[str, bool]]:
    """Where, inside, each hidden path can be seen through a shown one, and whether it is a folder.

    `shown` pairs a host path with its place inside. A path that holds a shown one is not covered for that: what is
    shown is shown on purpose.
    """
    places: dict[str, bool] = {}
    for path in hidden:
        for name in {path, Path(os.path.realpath(path))}:
            for source, place in shown:
                for origin in {source, Path(os.path.realpath(source))}:
                    if name != origin and name.is_relative_to(origin) and name.exists():
                        inside = os.path.join(place, name.relative_to(origin))  # noqa: PTH118 - a path inside
                        places[inside] = name.is_dir()
    outermost: list[tuple[str, bool]] = []
    for place, is_folder in sorted(places.items()):
        if not any(place.startswith(f"{other}/") for other, _ in outermost):
            outermost.append((place, is_folder))
    return outermost
