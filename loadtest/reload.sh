#!/usr/bin/env bash
# Reloads in quick succession at half of the highest rate of connections, with long streams that go
# on: prints what was served, every error by its name, and a verdict.
#
#   loadtest/reload.sh
#
# The rate is found out first, with the same clients and backends on the same CPUs. Files alternate:
# backends, weights, strategies, limits and other listeners come and go, and each seventh is broken;
# each second is read by SIGHUP, the others by `mahoraga reload`. It is the test `storm` of
# tests/proxy, built for release. By environment:
#   STORM_RELOADS=100   how many
#   STORM_SECONDS=60    in how many seconds
#   STORM_STREAMS=500   streams that are compared byte for byte
#   STORM_CLIENTS=32    threads of clients
#   STORM_RATE=0        connections per second; 0: half of what is possible
#   STORM_PAUSE_MS=300  between two exchanges of a stream, on average
# Exits 1 when a connection is refused, reset or broken.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
need_descriptors 16384
export STORM_RELOADS=${STORM_RELOADS:-100} STORM_SECONDS=${STORM_SECONDS:-60}
export STORM_STREAMS=${STORM_STREAMS:-500} STORM_CLIENTS=${STORM_CLIENTS:-32}
export STORM_RATE=${STORM_RATE:-0} STORM_PAUSE_MS=${STORM_PAUSE_MS:-300}
verdict="no client was disturbed"
(cd "$REPO" && timeout 900 cargo test --release --locked --test proxy -- \
    --exact storm::a_storm_of_reloads_breaks_no_connection --nocapture) >"$WORK/storm.log" 2>&1 ||
    verdict="FAILED"
grep -E '^(peak|[0-9]+ (reloads|connections|streams))' "$WORK/storm.log" || log_of storm
machine_facts
printf '\n%s\n' "$verdict"
[[ $verdict != FAILED ]]
