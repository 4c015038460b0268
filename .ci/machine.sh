#!/usr/bin/env bash
# Makes a Debian machine fit for the tests: bubblewrap, git and a Python with pip. Does nothing when they are there.
set -euo pipefail

missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v git >/dev/null || missing+=(git)
command -v python3 >/dev/null || missing+=(python3)
if ! command -v pip >/dev/null; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi

if ((${#missing[@]} == 0)); then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "machine.sh: ${missing[*]} not found and this machine has no apt-get; install them by its own means" >&2
  exit 1
fi
as_root=()
if ((EUID != 0)); then
  as_root=(sudo -n)
fi
export DEBIAN_FRONTEND=noninteractive
echo "machine.sh: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
