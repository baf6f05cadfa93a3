#!/bin/sh
# Fails when requirements.txt is not what a fresh resolution of pyproject.toml gives.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
uv lock --quiet
uv export --quiet --all-groups --no-emit-project --no-header --no-annotate >"$fresh"
if ! diff -u requirements.txt "$fresh"; then
  echo "requirements.txt differs from a fresh resolution: run 'make lock'" >&2
  exit 1
fi
echo "requirements.txt matches a fresh resolution"
