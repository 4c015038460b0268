#!/usr/bin/env bash
# Starts PostgreSQL; at the first start it makes the cluster and runs /docker-entrypoint-initdb.d, as the official image
# does. Understands POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_HOST_AUTH_METHOD, POSTGRES_INITDB_ARGS and
# the _FILE form of the first three.
set -euo pipefail

say() { echo "entrypoint: $*" >&2; }

from_file() {
  local name=$1 file_name="${1}_FILE"
  if [[ -n "${!name:-}" && -n "${!file_name:-}" ]]; then
    say "$name and $file_name are both set; keep one"
    exit 1
  fi
  if [[ -n "${!file_name:-}" ]]; then
    export "$name=$(<"${!file_name}")"
  fi
  unset "$file_name"
}

# `docker run IMAGE -c max_connections=5`: options are the server's.
if [[ "${1:-}" == -* ]]; then
  set -- postgres "$@"
fi
if [[ "${1:-}" != postgres ]]; then
  exec "$@"
fi

if ((EUID == 0)); then
  mkdir -p "$PGDATA"
  chown -R postgres:postgres "$PGDATA" /var/run/postgresql
  chmod 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
  from_file POSTGRES_USER
  from_file POSTGRES_PASSWORD
  from_file POSTGRES_DB
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z "${POSTGRES_PASSWORD:-}" && "$method" != trust ]]; then
    say "POSTGRES_PASSWORD is not set; give one, or POSTGRES_HOST_AUTH_METHOD=trust for a server that lets everybody in"
    exit 1
  fi
  # shellcheck disable=SC2086 # the arguments are words, as with the official image
  initdb --username="$user" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-}") --auth-local=trust \
    --auth-host="$method" ${POSTGRES_INITDB_ARGS:-} >/dev/null
  echo "host all all all $method" >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"

  # Listens nowhere but its socket until all is loaded, so that nobody finds it ready too early. `pg_isready` in a
  # health check asks that socket, so the socket lies elsewhere as long.
  sockets=$(mktemp -d)
  pg_ctl --pgdata="$PGDATA" --wait --silent --log=/dev/stderr \
    --options="-c listen_addresses='' -c unix_socket_directories='$sockets'" start
  psql=(psql --no-psqlrc --quiet --no-password --host="$sockets" --username="$user" --set=ON_ERROR_STOP=1)
  if [[ "$database" != postgres ]]; then
    "${psql[@]}" --dbname=postgres --set=name="$database" <<<'create database :"name";'
  fi
  psql+=(--dbname="$database")
  export PGHOST=$sockets PGUSER=$user PGDATABASE=$database POSTGRES_USER=$user POSTGRES_DB=$database
  for file in /docker-entrypoint-initdb.d/*; do
    case "$file" in
      *.sql) say "running $file"; "${psql[@]}" --file="$file" ;;
      *.sql.gz) say "running $file"; gunzip --stdout "$file" | "${psql[@]}" ;;
      *.sh)
        say "running $file"
        if [[ -x "$file" ]]; then
          "$file"
        else
          # shellcheck disable=SC1090 # a task's file
          . "$file"
        fi
        ;;
      */\*) ;;
      *) say "ignoring $file: neither .sql, .sql.gz nor .sh" ;;
    esac
  done
  unset PGHOST PGUSER PGDATABASE
  pg_ctl --pgdata="$PGDATA" --wait --silent --mode=fast stop
  rmdir "$sockets"
  say "ready for start up"
fi

exec "$@"
