#!/usr/bin/env bash
# Runs tests of tests/proxy as if this kernel were an older one: once without each feature that
# newer kernels bring, and once without all of them.
#
#   scripts/without-features.sh [TEST_ARGUMENT...]
#
# The arguments go to the test program; the default is a choice of tests that takes some seconds.
# The program itself names the features, when MAHORAGA_WITHOUT names one that it does not know.
set -euo pipefail
cd "$(dirname "$0")/.."

TESTS=("$@")
EACH=(half_close reset streams connecting)
ALL=("${EACH[@]}" beyond_its_memory ports startup::a_start_right)
if ((${#TESTS[@]})); then
    EACH=("${TESTS[@]}") ALL=("${TESTS[@]}")
fi

# They wait most of their time.
export RUST_TEST_THREADS=$((2 * $(nproc)))
# The test program by itself: cargo takes longer to look for changes than some of the tests. The
# program beside it is built with the tests' features of libraries: `cargo build` would build all
# anew.
built=$(cargo test --locked --no-run --test proxy 2>&1)
tests=$(sed -n 's/.*Executable tests\/proxy.rs (\(.*\))/\1/p' <<<"$built")
program=${CARGO_TARGET_DIR:-target}/debug/mahoraga
[[ -x $tests && -x $program ]] || {
    echo "$0: cannot build the tests: $built" >&2
    exit 1
}
# What cargo would tell it.
CARGO_MANIFEST_DIR=$PWD
export CARGO_MANIFEST_DIR
proxy=(proxy --from 127.0.0.1:0 --to 127.0.0.1:1)
known=$(MAHORAGA_WITHOUT=help "$program" "${proxy[@]}" 2>&1 |
    sed -n 's/.*expected one of //p' | tr -d ' ') || true
[[ -n $known ]] || {
    echo "$0: the program does not name its features" >&2
    exit 1
}
for without in ${known//,/ } "$known"; do
    echo "without $without"
    some=("${EACH[@]}")
    [[ $without != "$known" ]] || some=("${ALL[@]}")
    MAHORAGA_WITHOUT=$without "$tests" --quiet "${some[@]}"
done
