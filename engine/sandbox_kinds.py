"""The kinds of sandbox of our own that may be asked for; `docker` becomes `compose` where a task needs that."""

from typing import Literal, get_args

AskedSandbox = Literal["auto", "docker", "bubblewrap", "local"]
SANDBOX_CHOICES: tuple[str, ...] = get_args(AskedSandbox)
