#!/usr/bin/env bash
# iperf3 through mahoraga: throughput up, down and both ways at once, and the CPU time it costs.
#
#   loadtest/iperf3.sh [STREAMS...]         default: 1 2 8
#
# The balancer runs with one worker on PROXY_CPU (1), both ends of iperf3 on LOAD_CPU (0). A GB is
# 1e9 bytes, counted where they arrive. By environment:
#   DURATION=5      seconds for each figure
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
(($#)) || set -- 1 2 8
duration=${DURATION:-5}
declare -A flag=([up]='' [down]=-R [both]=--bidir)

need_tools iperf3 python3 taskset
need_two_cpus
find_mahoraga
use_congestion_control cubic
start_iperf3 "$LOAD_CPU"
start_mahoraga "$PROXY_CPU" 1 "$PORT"
echo '| direction | streams | Gbit/s | CPU-s per GB |'
echo '|---|---|---|---|'
for direction in up down both; do
    for streams; do
        result=$(measure_iperf3 "$STARTED" "$PORT" "$streams" "$duration" \
            ${flag[$direction]:+"${flag[$direction]}"})
        read -r cpu gbits <<<"$result"
        printf '| %s | %s | %.1f | %.3f |\n' "$direction" "$streams" "$gbits" "$cpu"
    done
done
echo
machine_facts
echo
