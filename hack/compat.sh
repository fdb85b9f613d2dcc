#!/usr/bin/env bash
# compat.sh [FLAG...] runs the sidecar of the release before this one (the commit in hack/compat-base) and that of this
# checkout side by side on one backend: nothing is lost, and every history is linearizable. The flags are for go test.
# With LONG=1, it makes histories on every backend.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(<hack/compat-base)

if ! git cat-file -e "$base^{commit}" 2>/dev/null && ! git fetch -q origin "$base" 2>/dev/null; then
  echo "compat: NOT CHECKED: commit $base is not in this clone; get the whole history with git fetch --unshallow"
  [ "${RELEASE:-}" = "" ] || exit 1
  exit 0
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sc.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
chmod 711 "$scratch"
mkdir "$scratch/before" "$scratch/tmp"
git archive "$base" | tar -x -C "$scratch/before"
export TMPDIR=$scratch/tmp
go test -race -tags "compat${LONG:+,long}" -count=1 -timeout 60m -run TestMixedVersions -v ./e2e/processes \
  -compat.tree "$scratch/before" -linear.runs 1 -linear.ops 10000 "$@" |
  grep -vE '^=== (RUN|PAUSE|CONT|NAME)'
