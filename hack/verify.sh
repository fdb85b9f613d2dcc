#!/usr/bin/env bash
# verify.sh fails if the checkout does not agree with its sources: stale generated code, formatting, vet, go.mod, and
# changes of the gRPC API that would break its clients.
set -uo pipefail
cd "$(dirname "$0")/.."
BUF=${BUF:-go tool -modfile=tools/buf/go.mod buf}
failed=()

check() { # name command...: runs all checks before it fails, so that one run tells everything
  local name=$1; shift
  echo "verify: $name"
  "$@" || failed+=("$name")
}

# Compares contents, not git's state: that works with uncommitted changes too.
tree() { git ls-files -z --cached --others --exclude-standard | sort -z | xargs -0 sha256sum 2>/dev/null; }

generated() {
  local before stale
  before=$(tree)
  make generate >/dev/null || return 1
  stale=$(diff <(echo "$before") <(tree) | sed -n 's/^[<>] [0-9a-f]* */  stale: /p' | sort -u)
  [ -n "$stale" ] || return 0
  echo "$stale"
  echo '  run make generate and commit what it changes'
  return 1
}

formatted() {
  local files
  files=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls 2>/dev/null | xargs gofmt -l)
  [ -z "$files" ] || { echo "$files"; return 1; }
}

filled() {
  git ls-files -z --cached --others --exclude-standard '*.go' '*.lua' '*.proto' '*.md' | xargs -0 ls -d 2>/dev/null |
    xargs go -C tools/wrap run . -dir "$PWD" -check
}

compatible() { # against the last release; before the first, against where this branch left main
  local base
  base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null) ||
    base=$(git merge-base HEAD origin/main 2>/dev/null || git merge-base HEAD main 2>/dev/null) || base=
  if [ -n "$base" ] && [ "$(git rev-parse "$base^{commit}")" = "$(git rev-parse HEAD)" ]; then
    base=$(git rev-parse -q --verify HEAD^) || base=
  fi
  if [ -z "$base" ] || [ -z "$(git ls-tree -r --name-only "$base" -- proto)" ]; then
    echo '  nothing to compare with yet'
    return 0
  fi
  $BUF breaking --against ".git#ref=$(git rev-parse "$base^{commit}")"
}

# Programs with a module of their own; a module that only names tools has no code.
modules() {
  git ls-files --cached --others --exclude-standard '*/go.mod' | while read -r mod; do
    [ -z "$(go -C "${mod%/go.mod}" list ./... 2>/dev/null)" ] || echo "${mod%/go.mod}"
  done
}

check 'generated code' generated
check 'gofmt' formatted
check 'width of prose' filled
check 'go vet' go vet -tags long,compat ./...
check 'go mod tidy' go mod tidy -diff
for module in $(modules); do
  check "go vet in $module" go -C "$module" vet ./...
  check "go mod tidy in $module" go -C "$module" mod tidy -diff
done
check 'proto compatibility' compatible

if [ ${#failed[@]} -gt 0 ]; then
  printf 'verify: failed: %s\n' "${failed[@]}"
  exit 1
fi
echo 'verify: all is as its sources say'
