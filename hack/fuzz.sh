#!/usr/bin/env bash
# fuzz.sh [packages] runs each native fuzz target for $FUZZTIME, $FUZZJOBS of them (2) side by side with one worker
# each, and prints what each said when it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

set -m # each target is a process group, which can be stopped as a whole
logs=$(mktemp -d)
trap 'for job in $(jobs -p); do kill -- -"$job" 2>/dev/null || true; done; rm -rf "$logs"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

targets() { # prints "folder target" for each
  go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' "${@:-./...}" | while read -r dir; do
    { grep -hoP '^func \KFuzz\w+' "$dir"/*_test.go || true; } | sed "s|^|$dir |"
  done
}

# Without this, a target that does not take the same path each time would be minimized for the whole minute.
fuzz() { # folder target number
  local log=$logs/$3.log
  if go test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-1m}" -fuzzminimizetime 5s -parallel 1 "$1" </dev/null >"$log" 2>&1 ||
    # Before Go 1.27 the engine sometimes reports the end of its own time as a failure of the target. A real failure has
    # a failing input or names a seed.
    { grep -qE '^ +context deadline exceeded$' "$log" && ! grep -qE 'Failing input written|seed corpus entry' "$log"; }; then
    touch "$logs/$3.passed"
  fi
  { echo "--- $2 (${1#"$PWD"/})"; cat "$log"; } >"$log.whole"
  cat "$log.whole" # in one piece, also while others end
}

all=0 running=0
while read -r dir target; do
  if [ $running -ge "${FUZZJOBS:-2}" ]; then wait -n || true; running=$((running - 1)); fi
  fuzz "$dir" "$target" $all &
  all=$((all + 1)) running=$((running + 1))
done < <(targets "$@")
wait
passed=$(find "$logs" -name '*.passed' | wc -l)
echo "fuzz targets: $passed passed, $((all - passed)) failed"
[ "$passed" = "$all" ]
