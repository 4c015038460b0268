#!/usr/bin/env bash
# Adds the Compose plugin to a Docker CLI that has none, from Debian's package of a newer suite where this machine's own
# has no plugin. Only the plugin's one file is taken; the machine's sources and packages stay as they are.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/mirror.sh"

suite=trixie   # bookworm has only Compose 1, which is no plugin
plugins=/usr/local/lib/docker/cli-plugins

if docker compose version >/dev/null 2>&1; then
  exit 0
fi

as_root=()
((EUID == 0)) || as_root=(sudo -n)

mirror=$(debian_mirror)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/download" "$work/content"
chmod -R a+rX "$work"
cat >"$work/debian.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/debian.sources" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=$(id -un)"
  -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
echo "compose.sh: taking the Compose plugin from Debian $suite" >&2
"${apt[@]}" update >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
(cd "$work/download" && "${apt[@]}" download docker-compose) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
dpkg-deb --extract "$work"/download/docker-compose_*.deb "$work/content"
plugin=$(find "$work/content" -path '*/cli-plugins/docker-compose' -type f -print -quit)
if [[ -z "$plugin" ]]; then
  echo "compose.sh: Debian's docker-compose of $suite has no plugin in it:" >&2
  find "$work/content" -type f >&2
  exit 1
fi
"${as_root[@]}" install -D -m 0755 "$plugin" "$plugins/docker-compose"
if ! docker compose version >&2; then
  "${as_root[@]}" rm -f "$plugins/docker-compose"
  echo "compose.sh: the Compose plugin of $suite does not run on this machine; install a newer one by its own means" >&2
  exit 1
fi
