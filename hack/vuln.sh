#!/usr/bin/env bash
# vuln.sh runs govulncheck. If the vulnerability database cannot be reached, it says that nothing was checked. That is
# neither a pass nor a finding. With RELEASE=1 it is a failure, since nothing is released unchecked.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ${GOVULNCHECK:-go tool -modfile=tools/vuln/go.mod govulncheck} ./... >"$log" 2>&1; then
  cat "$log"
elif grep -q 'fetching vulnerabilities' "$log"; then
  cat "$log"
  echo 'govulncheck: NOT CHECKED: the vulnerability database cannot be reached from this machine'
  if [[ ${RELEASE:-} == 1 ]]; then
    echo 'govulncheck: a release must be checked: run this where https://vuln.go.dev can be reached'
    exit 1
  fi
else
  cat "$log"
  exit 1
fi
