#!/usr/bin/env bash
# tally.sh prints the closing line of a test run from what gotestsum counted. A package that does not build is among the
# failures there, and sometimes among the errors only.
set -euo pipefail
failed=$TESTS_FAILED
[ "$failed" != 0 ] || failed=$TESTS_ERRORS
line="$((TESTS_TOTAL - TESTS_FAILED - TESTS_SKIPPED)) passed, $failed failed"
[ "$TESTS_SKIPPED" = 0 ] || line+=", $TESTS_SKIPPED skipped"
echo "$line"
