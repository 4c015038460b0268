#!/usr/bin/env bash
# Makes fbench's images on the engine where they are missing or made of something else than this checkout.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
pull_patience_s=60   # a registry answers in seconds; a network without one may swallow the question

as_root=()
((EUID == 0)) || as_root=(sudo -n)

content_of() { docker image inspect --format '{{index .Config.Labels "fbench.content"}}' "$1" 2>/dev/null || true; }

build() { # NAME CONTENT BASE
  echo "images.sh: building fbench/$1:1 from $3" >&2
  local log
  log=$(mktemp)
  if ! python3 "$here/context.py" pack "$1" |
    docker build --force-rm --tag "fbench/$1:1" --build-arg "BASE_IMAGE=$3" --label "fbench.image=$1" \
      --label "fbench.content=$2" - >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    echo "images.sh: fbench/$1:1 could not be built, see above" >&2
    return 1
  fi
  rm -f "$log"
  docker image prune --force --filter label=fbench.stage >/dev/null   # it saw this machine's settings
  docker image prune --force --filter "label=fbench.image=$1" >/dev/null
}

declare -A wanted
while read -r name content; do
  wanted[$name]=$content
done < <(python3 "$here/context.py" hash base mle postgres)
if ((${#wanted[@]} != 3)); then
  echo "images.sh: cannot read sandboxes/images, see above" >&2
  exit 1
fi

# The base: from a registry when one answers, else from Debian's packages alone.
if ! docker image inspect fbench/base:1 >/dev/null 2>&1; then
  if timeout "$pull_patience_s" docker pull --quiet debian:bookworm-slim >/dev/null 2>&1; then
    build base "${wanted[base]}" debian:bookworm-slim
  else
    echo "images.sh: no image registry answers; making fbench/base:1 from Debian's packages" >&2
    "${as_root[@]}" bash "$here/base.sh"
  fi
fi
for name in mle postgres; do
  if [[ "$(content_of "fbench/$name:1")" != "${wanted[$name]}" ]]; then
    build "$name" "${wanted[$name]}" fbench/base:1
  fi
done
