#!/usr/bin/env bash
# tally.sh notes in the file $TALLY what gotestsum counted: passed, failed, skipped. A package that does not build is
# among the failures without being a test, and sometimes among the errors only.
set -euo pipefail
failed=$TESTS_FAILED
[ "$failed" != 0 ] || failed=$TESTS_ERRORS
passed=$((TESTS_TOTAL - TESTS_FAILED - TESTS_SKIPPED))
echo "$((passed > 0 ? passed : 0)) $failed $TESTS_SKIPPED" >>"$TALLY"
