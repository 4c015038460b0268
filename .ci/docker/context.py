# ruff: noqa: INP001 - a script of CI, no package
"""Packs fbench's images for `docker build -` with nothing but the standard library.

`context.py hash NAME...` prints what each is made of, `context.py pack NAME` writes its build context to stdout.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".links"))

from fbench.sandboxes.image_context import hash_image_folder, pack_context, read_context  # noqa: E402 - needs the path
from fbench.sandboxes.image_machine import read_machine_settings  # noqa: E402

IMAGES = ROOT / "sandboxes" / "images"


def main() -> None:
    action, *names = sys.argv[1:]
    if action == "hash":
        for name in names:
            sys.stdout.write(f"{name} {hash_image_folder(IMAGES / name)}\n")
        return
    folder = IMAGES / names[0]
    replace = read_machine_settings().files if (folder / "machine").is_dir() else {}
    with pack_context(read_context(folder, replace=replace)) as packed:
        shutil.copyfileobj(packed, sys.stdout.buffer)


main()
