#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz by libFuzzer, one after the other.
#
#   scripts/fuzz.sh [TARGET...]     default: all of them
#
# Prints for each how many inputs it ran, and how many of them led somewhere new. What it learns is
# kept in target/fuzz/corpus, where the next run goes on. It needs cargo-fuzz (`cargo install
# cargo-fuzz`) and a C++ compiler, and no nightly toolchain. By environment:
#   FUZZ_SECONDS=180   how long each target runs
#   SANITIZER=none     `address` looks for misuse of memory too, with RUSTC_BOOTSTRAP=1; our code
#                      that is fuzzed has no `unsafe`
# Exits 1 at the first target that panics. The input is then in tests/fuzz/artifacts: put it into
# tests/fuzz/seeds/TARGET with the fix, so that `cargo test --test fuzz` runs it from then on.

set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
    exit 0
fi
all=(tests/fuzz/fuzz_targets/*.rs)
all=("${all[@]##*/}")
all=("${all[@]%.rs}")
(($#)) || set -- "${all[@]}"
for target; do
    if [[ ! -f tests/fuzz/fuzz_targets/$target.rs ]]; then
        echo "$0: unknown target \"$target\": expected one of ${all[*]}" >&2
        exit 2
    fi
done
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "$0: cargo-fuzz is not installed: cargo install --locked cargo-fuzz" >&2
    exit 1
fi
# The versions of dependencies that the balancer has; cargo adds libFuzzer's.
cp Cargo.lock tests/fuzz/Cargo.lock
for target; do
    corpus=target/fuzz/corpus/$target log=target/fuzz/$target.log
    mkdir -p "$corpus"
    seeds=("tests/fuzz/seeds/$target")
    case $target in
    configuration) cp config.ron "$corpus" ;;
    first_bytes | hellos | proxy_headers) seeds+=(tests/captures) ;;
    esac
    status=0
    cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz \
        --sanitizer "${SANITIZER:-none}" "$target" "$corpus" "${seeds[@]}" -- \
        -max_total_time="${FUZZ_SECONDS:-180}" -print_final_stats=1 -max_len=16384 \
        >"$log" 2>&1 || status=$?
    if ((status)); then
        tail -n 40 "$log" >&2
        echo "$0: $target failed: see $log" >&2
        exit 1
    fi
    awk -v target="$target" '
        /^stat::number_of_executed_units:/ { inputs = $2 }
        /^stat::new_units_added:/ { new = $2 }
        / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
        END { printf "%s: %d inputs, %d of them new, %d edges\n", target, inputs, new, cov }
    ' "$log"
done
