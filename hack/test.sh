#!/usr/bin/env bash
# test.sh [PACKAGE...] [-- FLAG...] runs the tests of packages (./...), with flags for go test, and ends with a line that
# counts them all. It leaves no process and no file behind, however the tests end. With LONG=1 it runs every story, and the
# files with the build tag long: longer histories.
#
# It ends with how long each part took, and the tests that took longest.
set -uo pipefail
cd "$(dirname "$0")/.."
GOTESTSUM=${GOTESTSUM:-go tool -modfile=tools/test/go.mod gotestsum}
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$(hack/envtest-dir.sh)}

packages=() flags=()
while [ $# -gt 0 ]; do
  if [ "$1" = -- ]; then shift; flags=("$@"); break; fi
  packages+=("$1"); shift
done

# All temporary files of the tests are in one folder, so none outlives them. Its name is short, since sockets are there
# too. Database servers, which refuse to run as root, must be able to pass through it.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sc.XXXXXX") && chmod 711 "$scratch" || exit
export TMPDIR=$scratch

# Prints the processes of the tests that are left: those that were given our folder or work in it. A test that is cut
# off, by its timeout for example, cannot stop the servers that it started.
left() {
  local p
  for p in /proc/[0-9]*; do
    [ "${p#/proc/}" = $$ ] || [ "${p#/proc/}" = "$BASHPID" ] && continue
    if [[ $(readlink "$p/cwd") == "$scratch"/* ]] || grep -qsxz "TMPDIR=$scratch" "$p/environ"; then echo "${p#/proc/}"; fi
  done 2>/dev/null
}

# What a cluster's supervisor has to clear up takes it some seconds; its folder is the last to go.
settle() {
  local tries pids
  for ((tries = 0; tries < 300; tries++)); do
    compgen -G "$scratch/sidecart-cluster-*" >/dev/null || break
    sleep 0.1
  done
  for ((tries = 0; tries < 30; tries++)); do
    pids=$(left)
    [ -n "$pids" ] || return 0
    sleep 0.1
  done
  echo 'test: stopping what a test left running:' >&2
  ps -o pid=,args= -p "${pids//$'\n'/,}" 2>/dev/null | cut -c1-150 >&2
  kill -KILL $pids 2>/dev/null
}
trap 'settle; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# -count=1: many tests build programs, images or charts by other programs, and Go's cache of results does not know the
# sources of these. vet is off, since `make verify` runs it.
tags=${LONG:+-tags=long}
run() { # name timeout flag... package...
  local name=$1 timeout=$2 start=$SECONDS; shift 2
  TALLY=$scratch/tally $GOTESTSUM --format pkgname --format-hide-empty-pkg --format-icons text --hide-summary=skipped \
    --jsonfile "$scratch/$name.json" --post-run-command hack/tally.sh -- -race -count=1 -vet=off -timeout "$timeout" $tags "$@" ${flags[@]+"${flags[@]}"} </dev/null ||
    echo "$name" >>"$scratch/failed"
  echo "$name $((SECONDS - start)) s" >>"$scratch/times"
}

all=$(go list -e -f '{{if or .TestGoFiles .XTestGoFiles .Error}}{{.ImportPath}}{{end}}' "${packages[@]:-./...}") || exit
take() { # variable pattern: moves the packages that match from all to the variable
  printf -v "$1" %s "$(grep -E "^github.com/sidecart/sidecart/($2)(/|\$)" <<<"$all")"
  all=$(grep -vE "^github.com/sidecart/sidecart/($2)(/|\$)" <<<"$all")
}
take cluster e2e/cluster
take processes e2e/processes
take stories e2e/stories
take operator 'api|charts|cmd/operator|docs|images|internal/(config|controller|envtest|render)'

# There are two lanes. The first has the tests of stores and the stories, in which an answer that takes half a second is
# a failure. The second has tests without haste, and gets the processor time that the first leaves. It is printed when
# it is done.
#
# Most tests of stores wait for locks and carts to end, so more of them run at once than there are processors. A test
# that must run alone is not t.Parallel.
second() {
  [ -z "$cluster" ] || run cluster 20m -p 1 $cluster
  touch "$scratch/no-cluster"
  [ -z "$operator" ] || run operator 40m $operator
}
if [ -z "$all$processes$stories" ]; then
  second
else
  (renice -n 19 "$BASHPID" >/dev/null; second) >"$scratch/second.log" 2>&1 &
  beside=$!
  [ -z "$all" ] || run stores 30m -parallel 4 $all
  [ -z "$processes" ] || run processes "$([ "${LONG:-}" ] && echo 90m || echo 30m)" $processes
  until [ -e "$scratch/no-cluster" ] || ! kill -0 $beside 2>/dev/null; do sleep 0.1; done # there is one at a time
  if [ -n "$stories" ]; then
    # The stories in the list are for LONG=1: a shorter story shows the same kind of failure.
    if [ "${LONG:-}" ]; then run stories 60m $stories; else run stories 30m $stories "-skip=^($(paste -sd'|' e2e/stories/long))\$"; fi
  fi
  wait $beside
  cat "$scratch/second.log"
fi
settle

passed=0 failed=0 skipped=0
while read -r a b c; do passed=$((passed + a)) failed=$((failed + b)) skipped=$((skipped + c)); done < <(cat "$scratch/tally" 2>/dev/null)
[ ! -e "$scratch/failed" ] || [ $failed != 0 ] || failed=1 # of what went wrong, nothing was counted

slow=$(cat "$scratch"/*.json 2>/dev/null | $GOTESTSUM tool slowest --threshold 15s | sed -n 1,12p)
[ -z "$slow" ] || printf '\nslowest:\n%s\n' "$slow"
if [ $skipped != 0 ]; then
  # Prints each reason once; it says how to run the tests.
  printf '\nnot run here: %d tests\n' $skipped
  sed -n 's/.*"Output":" *[a-z_]*\.go:[0-9]*: \(a cluster needs .*\)\\n"}$/  \1/p' "$scratch"/*.json | sort -u
fi
printf '\ntime: %s; %s s in all\n' "$(paste -sd, "$scratch/times" | sed 's/,/, /g')" $SECONDS
line="$passed passed, $failed failed"
[ $skipped = 0 ] || line+=", $skipped skipped"
echo "$line"
[ $failed = 0 ]
