# bash migrate.sh DSN: makes schema v2 from schema v1, anew each time, in one transaction.
set -eu
exec psql -X -q -v ON_ERROR_STOP=1 --single-transaction -f "$(dirname "$0")/migrate.sql" "$1"
