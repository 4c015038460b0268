# Puts the reference migration into the workspace and runs it on the shop's database.
set -eu
cp "$FBENCH_SOLUTION/migrate.sh" "$FBENCH_SOLUTION/migrate.sql" .
bash migrate.sh "${1:-postgresql://postgres:bench@db/postgres}"
