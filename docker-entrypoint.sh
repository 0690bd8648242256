#!/bin/sh
# Puts the instance's configuration in place, then runs the command: SQLite, or Postgres where its host is given.
set -eu
here=$(dirname "$0")
mkdir -p "$DAGSTER_HOME"
if [ -n "${DAGSTER_POSTGRES_HOST:-}" ]; then
  cat "$here/dagster.postgres.yaml" "$here/dagster.yaml" > "$DAGSTER_HOME/dagster.yaml"
else
  cat "$here/dagster.yaml" > "$DAGSTER_HOME/dagster.yaml"
fi
exec "$@"
