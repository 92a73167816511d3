#!/bin/sh
# Every test; then those that failed once more, each alone.
#
#   tests/run.sh                runs them all (what `make test` calls)
#   tests/run.sh judge LOG      the names that LOG lets run again, one a line
#
# Hundreds of tests run real databases and processes side by side, on machines
# that stand still for a second now and then. A test that fails among them and
# passes alone is a flaw to mend, and printed as one; it doesn't refuse a tree
# that is sound. What is never asked again, because once is enough:
#   - a failure that speaks of rows or keys: lost, stale, doubled, different;
#   - more than three failures: that is not the machine;
#   - a test program that ended without a result.
set -eu
cd "$(dirname "$0")/.."

again_at_most=3
sacred='Findings|Audit|[Rr]ows?([^a-z]|$)|[Kk]eys?([^a-z]|$)|lost|stale|doubled|resurrected|foreign|differ'
out=target/test
CARGO=${CARGO:-cargo}
CARGO_TERM_COLOR=never
export CARGO_TERM_COLOR

say() { printf '%s\n' "$*" >&2; }

# Every test, or the one of that name in whatever program has it.
tests() {
    if [ $# -eq 0 ]; then
        $CARGO test --locked --workspace --no-fail-fast
    else
        $CARGO test --locked --workspace --no-fail-fast -- --exact "$1"
    fi
}

count() { grep -cE "$1" "$2" || true; }

# What the panic of test $1 said, in log $2, without the stack below it.
said() {
    awk -v head="---- $1 stdout ----" '
        $0 == head { inside = 1; next }
        inside && (/^---- .* stdout ----$/ || /^failures:$/) { exit }
        inside && /^stack backtrace:$/ { exit }
        inside && / panicked at / { panicked = 1 }
        inside && panicked { print }' "$2"
}

# The tests of log $1 that may run again; fails, and says why, if none may.
judge() {
    log=$1
    if [ "$(count '^error: test failed, to rerun' "$log")" -ne "$(count '^test result: FAILED' "$log")" ] ||
        [ "$(count '^test result: FAILED' "$log")" -eq 0 ]; then
        say 'something ended without a result: it is not asked again'
        return 1
    fi
    failed=$(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$log")
    many=$(sed -n 's/^test result: FAILED.* \([0-9]*\) failed.*/\1/p' "$log" | awk '{ n += $1 } END { print n }')
    if [ "$(printf '%s\n' "$failed" | grep -c .)" -ne "$many" ]; then
        say 'the log names other tests than it counts: nothing is asked again'
        return 1
    fi
    if [ "$many" -gt "$again_at_most" ]; then
        say "$many tests failed: that is not the machine"
        return 1
    fi
    for name in $failed; do
        what=$(said "$name" "$log")
        if [ -z "$what" ] || printf '%s\n' "$what" | grep -qE "$sacred"; then
            say "$name: a failure about rows stands"
            return 1
        fi
    done
    printf '%s\n' "$failed"
}

if [ "${1:-}" = judge ]; then
    judge "$2"
    exit
fi

mkdir -p "$out"
rm -f "$out"/*.log
{ code=0; tests 2>&1 || code=$?; echo "$code" >"$out/code"; } | tee "$out/all.log"
code=$(cat "$out/code")
[ "$code" -ne 0 ] || exit 0

names=$(judge "$out/all.log") || exit "$code"
for name in $names; do
    say "once more, alone: $name"
    if ! tests "$name" >"$out/again.log" 2>&1 ||
        [ "$(count '^test result: ok\. [1-9]' "$out/again.log")" -eq 0 ]; then
        cat "$out/again.log"
        say "$name fails alone as well"
        exit "$code"
    fi
    said "$name" "$out/all.log" >&2
    say "$name: FAILED among the others, passed alone. Mend what it takes for granted; its first run is in $out/all.log"
done
