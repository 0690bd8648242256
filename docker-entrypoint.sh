#!/bin/sh
# Puts the instance's configuration in place, then runs the command: SQLite, or Postgres where its host is given.
set -eu
mkdir -p "$DAGSTER_HOME"
if [ -n "${DAGSTER_POSTGRES_HOST:-}" ]; then
  cat dagster.postgres.yaml dagster.yaml > "$DAGSTER_HOME/dagster.yaml"
else
  cp dagster.yaml "$DAGSTER_HOME/dagster.yaml"
fi
exec "$@"
