#!/usr/bin/env bash
# test.sh [PACKAGE...] [-- FLAG...] runs the tests of packages (./...), with flags for go test, and ends with a line that
# counts them all. It leaves no process and no file behind, however the tests end. With LONG=1 it runs every story, and the
# files with the build tag long: longer histories.
#
# The packages in e2e need the machine for themselves: they come last, one after the other, each with a time of its own.
set -uo pipefail
cd "$(dirname "$0")/.."
GOTESTSUM=${GOTESTSUM:-go tool -modfile=tools/test/go.mod gotestsum}
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$(hack/envtest-dir.sh)}

packages=() flags=()
while [ $# -gt 0 ]; do
  if [ "$1" = -- ]; then shift; flags=("$@"); break; fi
  packages+=("$1"); shift
done

# All temporary files of the tests are in one folder, so none outlives them. A short name: sockets lie there too.
# Database servers, which refuse to run as root, have to pass through it.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sc.XXXXXX") && chmod 711 "$scratch" || exit
export TMPDIR=$scratch

# Prints the processes of the tests that are left: those that were given our folder or work in it. A test that is cut
# off (by its timeout, say) cannot stop the servers that it started.
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

# -count=1: many tests build programs, images or charts by other programs, of whose sources Go's cache of results knows nothing.
status=0 times=() tags=${LONG:+-tags=long}
run() { # name timeout package...
  local name=$1 timeout=$2 start=$SECONDS; shift 2
  TALLY=$scratch/tally $GOTESTSUM --format pkgname --format-hide-empty-pkg --format-icons text --hide-summary=skipped \
    --jsonfile "$scratch/$name.json" --post-run-command hack/tally.sh -- -race -count=1 -timeout "$timeout" $tags "$@" ${flags[@]+"${flags[@]}"} </dev/null || status=1
  times+=("$name $((SECONDS - start)) s")
}

all=$(go list -e -f '{{if or .TestGoFiles .XTestGoFiles .Error}}{{.ImportPath}}{{end}}' "${packages[@]:-./...}") || exit
others=$(grep -v '/e2e/' <<<"$all")
# Most tests of stores wait, for locks and carts that end, so more of them run at once than there are processors. What must
# run alone says so, by not being t.Parallel.
[ -z "$others" ] || run packages 15m -parallel 4 $others
for package in $(grep '/e2e/' <<<"$all"); do
  name=${package##*/e2e/}
  case $name in
    processes) run "$name" "$([ "${LONG:-}" ] && echo 90m || echo 30m)" "$package" ;;
    stories) # those in the list are for LONG=1: a shorter one tells the same kind of failure
      if [ "${LONG:-}" ]; then run "$name" 60m "$package"; else run "$name" 30m "$package" "-skip=^($(paste -sd'|' e2e/stories/long))\$"; fi ;;
    *) run "${name//\//-}" 10m "$package" ;;
  esac
done
settle

passed=0 failed=0 skipped=0
while read -r a b c; do passed=$((passed + a)) failed=$((failed + b)) skipped=$((skipped + c)); done < <(cat "$scratch/tally" 2>/dev/null)
[ $status = 0 ] || [ $failed != 0 ] || failed=1 # of what went wrong, nothing was counted

slow=$(cat "$scratch"/*.json 2>/dev/null | $GOTESTSUM tool slowest --threshold 15s | sed -n 1,12p)
[ -z "$slow" ] || printf '\nslowest:\n%s\n' "$slow"
if [ $skipped != 0 ]; then
  # Each reason once; it says how to run them.
  printf '\nnot run here: %d tests\n' $skipped
  sed -n 's/.*"Output":" *[a-z_]*\.go:[0-9]*: \(a cluster needs .*\)\\n"}$/  \1/p' "$scratch"/*.json | sort -u
fi
printf '\ntime: %s\n' "$(IFS=,; echo "${times[*]}" | sed 's/,/, /g')"
line="$passed passed, $failed failed"
[ $skipped = 0 ] || line+=", $skipped skipped"
echo "$line"
[ $failed = 0 ] && exit $status
exit 1
