# What the checks of command line tools have in common; README.md beside it says how they report. Sourced after lib.sh.
# shellcheck shell=bash

# usage: PROGRAM check|read BOOTSTRAP RUN [WRITER=CODEC,...]
mode=$1 bootstrap=$2 prefix=$3-$(basename "$(dirname "$0")") run=$3
shift 3
codecs=(none gzip snappy lz4 zstd)
wait_s=60
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs a function that ends at the first command that fails, and reports.
check() {
    local name=$1 status
    shift
    set +e
    (set -e; "$@") >"$log" 2>&1
    status=$?
    set -e
    if [ $status = 0 ]; then
        echo "ok $name"
    else
        failed=1
        cat "$log" >&2
        echo "FAIL $name: $(grep -v '^SLF4J' "$log" | tail -n 1)"
    fi
}

expect_equal() { [ "$1" = "$2" ] || fail "$3: $1 instead of $2"; }

# wait_until WHAT COMMAND ...
wait_until() {
    local what=$1 until=$((SECONDS + wait_s))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "waited $wait_s s for $what"
        sleep 0.2
    done
}

# Reads numbers, one a line: 0 to $1 - 1 must be there once each.
expect_numbers() {
    local count=$1 found
    found=$(sort -n | uniq)
    [ "$found" = "$(seq 0 $((count - 1)))" ] || fail "$(wc -l <<<"$found") numbers instead of $count"
}
