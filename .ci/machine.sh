#!/usr/bin/env bash
# Makes a Debian machine fit for the tests: bubblewrap, git, a Python with pip, PostgreSQL's programs, a Docker engine that
# answers with the Compose plugin, and fbench's images on it. What is there is left alone; when all is there, it takes a
# second.
set -euo pipefail
docker_scripts=$(dirname "${BASH_SOURCE[0]}")/docker

missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v git >/dev/null || missing+=(git)
command -v python3 >/dev/null || missing+=(python3)
if ! command -v pip >/dev/null; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
# The tests of SQL start servers of their own from these programs; Debian keeps initdb out of PATH.
if ! command -v psql >/dev/null ||
  ! { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }; then
  missing+=(postgresql)
fi
if ! command -v docker >/dev/null; then
  missing+=(docker.io iptables debootstrap)
elif [[ -z "${DOCKER_HOST:-}" ]] && ! timeout 10 docker version >/dev/null 2>&1; then
  # What starts an engine here, and what makes the base image where there is no registry.
  command -v dockerd >/dev/null || missing+=(docker.io)
  PATH=$PATH:/usr/sbin:/sbin command -v iptables >/dev/null || missing+=(iptables)
fi
if command -v docker >/dev/null && ! docker image inspect fbench/base:1 >/dev/null 2>&1; then
  PATH=$PATH:/usr/sbin:/sbin command -v debootstrap >/dev/null || missing+=(debootstrap)
fi

if ((${#missing[@]} > 0)); then
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
  install=("${as_root[@]}" apt-get install -q -y --no-install-recommends)
  clusters=/etc/postgresql-common/createcluster.conf
  if [[ " ${missing[*]} " == *" postgresql "* && ! -e "$clusters" ]]; then
    # The programs are wanted, not the server that Debian's package would make and start.
    "${install[@]}" postgresql-common
    "${as_root[@]}" sed -i 's/^#*create_main_cluster .*/create_main_cluster = false/' "$clusters"
  fi
  "${install[@]}" "${missing[@]}"
fi

export PATH=$PATH:/usr/sbin:/sbin   # where Debian has dockerd, iptables and debootstrap
bash "$docker_scripts/engine.sh"
bash "$docker_scripts/compose.sh"
bash "$docker_scripts/images.sh"
