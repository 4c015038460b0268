#!/usr/bin/env bash
# Starts a Docker engine when none answers. One that answers is left alone, whoever started it. The pid of an engine
# started here is written to the file that FBENCH_DOCKERD_PID_FILE names, so that the caller can end it.
set -euo pipefail
start_patience_s=60
pid_file=/var/run/docker.pid

answers() { timeout 10 docker version >/dev/null 2>&1; }

if answers; then
  exit 0
fi
if [[ -n "${DOCKER_HOST:-}" ]]; then
  docker version >&2 || true
  echo "engine.sh: the engine that DOCKER_HOST names ($DOCKER_HOST) does not answer; start it, or unset DOCKER_HOST" >&2
  exit 1
fi
as_root=()
((EUID == 0)) || as_root=(sudo -n)

# A pid file of an engine that is gone keeps a new one from starting when its pid belongs to another process by now.
started=
if [[ -s "$pid_file" ]] && pid=$(<"$pid_file") && [[ "$(cat "/proc/$pid/comm" 2>/dev/null)" == dockerd ]]; then
  echo "engine.sh: dockerd ($pid) runs and does not answer yet" >&2
  log=
else
  "${as_root[@]}" rm -f "$pid_file"
  log=$(mktemp --tmpdir fbench-dockerd.XXXXXX.log)
  echo "engine.sh: starting dockerd, log in $log" >&2
  setsid "${as_root[@]}" dockerd </dev/null >"$log" 2>&1 &
  started=$!
fi

for ((tenths = 0; tenths < start_patience_s * 10; tenths++)); do
  if answers; then
    if [[ -n "$started" && -n "${FBENCH_DOCKERD_PID_FILE:-}" ]]; then
      cat "$pid_file" >"$FBENCH_DOCKERD_PID_FILE"
    fi
    exit 0
  fi
  if [[ -n "$started" ]] && ! kill -0 "$started" 2>/dev/null; then
    break
  fi
  sleep 0.1
done
[[ -z "$log" ]] || tail -n 30 "$log" >&2
if [[ -n "$started" ]] && kill -0 "$started" 2>/dev/null; then
  "${as_root[@]}" kill "$started"
fi
docker version >&2 || true
echo "engine.sh: no Docker engine answers, see above; this machine may not allow one (it needs root and cgroups)" >&2
exit 1
