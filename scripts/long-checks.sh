#!/usr/bin/env bash
# Runs what is too long for `cargo test`: more seeds of the simulation, and more fresh processes for
# the equal parts of equal backends. Run it before a release, and after a change of a strategy or of
# the session.
#
#   scripts/long-checks.sh [sim] [equal_parts]
#
# The default is both. By environment:
#   MAHORAGA_SIM_SEEDS=20000   seeds; takes 5 minutes
#   EQUAL_PARTS_RUNS=25        fresh processes for each strategy, size and pace; takes 20 minutes.
#                              Other load on the machine is noise in what strategies measure.
# Exits 1 at the first check that fails.

set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
    exit 0
fi
(($#)) || set -- sim equal_parts
for check; do
    case $check in
    sim | equal_parts) ;;
    *)
        echo "$0: unknown check \"$check\": expected sim or equal_parts" >&2
        exit 2
        ;;
    esac
done
for check; do
    case $check in
    sim)
        MAHORAGA_SIM_SEEDS=${MAHORAGA_SIM_SEEDS:-20000} cargo test --locked --test sim every_seed
        ;;
    equal_parts)
        EQUAL_PARTS_RUNS=${EQUAL_PARTS_RUNS:-25} \
            cargo test --locked --test proxy equal_parts:: -- --nocapture
        ;;
    esac
done
