#!/usr/bin/env bash
# test.sh [PACKAGE...] [-- FLAG...] runs the tests of packages (./...), with flags for go test, and ends with a line that
# counts them all. It leaves no process and no file behind, however the tests end. With LONG=1 it runs every story, and the
# files with the build tag long: longer histories.
#
# The packages in e2e come last. They wait much, for clusters and for processes that were killed, so that two lanes of them
# run side by side: those that need the one cluster, and the others. The tests listed in a file e2e/PACKAGE/alone need the
# machine for themselves, and get it at the end.
set -uo pipefail
set -m # each lane is a process group, which can be stopped as a whole
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
trap 'for lane in $(jobs -p); do kill -- -"$lane" 2>/dev/null; done; settle; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# say prints its input in one piece: one lane at a time.
say() {
  until mkdir "$scratch/voice" 2>/dev/null; do sleep 0.05; done
  cat
  rmdir "$scratch/voice"
}

# show prints at once that a package has passed or failed, and all else when the run has ended, so that it stays whole.
show() {
  local line rest=
  while IFS= read -r line; do
    if [[ $line == @(PASS|FAIL)\ \ * ]]; then say <<<"$line"; else rest+=$line$'\n'; fi
  done
  [[ ! $rest =~ [^[:space:]] ]] || say <<<"${rest%$'\n'}"
}

# -count=1: many tests build programs, images or charts by other programs, of whose sources Go's cache of results knows nothing.
tags=${LONG:+-tags=long}
run() { # name timeout package...: fails if a test does
  local name=$1 timeout=$2 start=$SECONDS status; shift 2
  TALLY=$scratch/tally $GOTESTSUM --format pkgname --format-hide-empty-pkg --format-icons text --hide-summary=skipped \
    --jsonfile "$scratch/$name.json" --post-run-command hack/tally.sh -- -race -count=1 -timeout "$timeout" $tags "$@" \
    ${flags[@]+"${flags[@]}"} </dev/null 2>&1 | show
  status=${PIPESTATUS[0]}
  echo "$name $((SECONDS - start)) s" >>"$scratch/times"
  return "$status"
}

# but prints a flag that leaves out tests by their names.
but() { local IFS='|'; [ $# = 0 ] || echo "-skip=^($*)\$"; }

# e2e runs a package of e2e without the tests that run alone; alone runs those.
e2e() { # package
  local name=${1##*/e2e/} timeout=10m skip=()
  [ ! -f "e2e/$name/alone" ] || skip+=($(<"e2e/$name/alone"))
  case $name in
    processes) timeout=$([ "${LONG:-}" ] && echo 90m || echo 30m) ;;
    stories) # those in the list are for LONG=1: a shorter one tells the same kind of failure
      timeout=$([ "${LONG:-}" ] && echo 60m || echo 30m)
      [ "${LONG:-}" ] || skip+=($(<e2e/stories/long)) ;;
  esac
  run "${name//\//-}" $timeout "$1" $(but ${skip[@]+"${skip[@]}"})
}
alone() { # package
  local name=${1##*/e2e/}
  [ -f "e2e/$name/alone" ] || return 0
  # All others are left out, so that flags may still choose among these by -run.
  run "$name-alone" 10m "$1" $(but $(grep -hoP '^func \KTest\w+(?=\()' "e2e/$name"/*_test.go | grep -vxFf "e2e/$name/alone" | grep -vx TestMain))
}
lane() { # package...: one after the other
  local package status=0
  for package in "$@"; do e2e "$package" || status=1; done
  return $status
}

# sees runs a command as a job, so that a signal stops it at once.
sees() { "$@" & wait $! || status=1; }

status=0
all=$(go list -e -f '{{if or .TestGoFiles .XTestGoFiles .Error}}{{.ImportPath}}{{end}}' "${packages[@]:-./...}") || exit
others=$(grep -v '/e2e/' <<<"$all") ends=$(grep '/e2e/' <<<"$all")
# Most tests of stores wait, for locks and carts that end, so more of them run at once than there are processors. What must
# run alone says so, by not being t.Parallel.
[ -z "$others" ] || sees run packages 15m -parallel 4 $others
lane $(grep -E '/e2e/(cluster|stories)' <<<"$ends") & first=$!
lane $(grep -vE '/e2e/(cluster|stories)' <<<"$ends") & second=$!
wait $first || status=1
wait $second || status=1
for package in $ends; do sees alone "$package"; done
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
printf '\ntime: %sall %d s\n' "$(sed 's/$/,/' "$scratch/times" 2>/dev/null | tr '\n' ' ')" $SECONDS
line="$passed passed, $failed failed"
[ $skipped = 0 ] || line+=", $skipped skipped"
echo "$line"
[ $failed = 0 ] && exit $status
exit 1
