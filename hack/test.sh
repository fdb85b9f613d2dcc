#!/usr/bin/env bash
# test.sh [go test flags and packages] runs the tests and ends with a line that counts them.
set -euo pipefail
cd "$(dirname "$0")/.."
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$(hack/envtest-dir.sh)}
exec ${GOTESTSUM:-go tool -modfile=tools/test/go.mod gotestsum} --format pkgname --format-hide-empty-pkg --format-icons text \
  --hide-summary=skipped --post-run-command hack/tally.sh -- -race "$@"
