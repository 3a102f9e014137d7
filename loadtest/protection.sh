#!/usr/bin/env bash
# What protection costs that refuses nobody: the same balancer with and without it, in one run.
#
#   loadtest/protection.sh [connect] [requests] [calls]     default: all of them
#
#   connect    CPU time per connection with one request (wrk, nginx)
#   requests   CPU time per request over 64 keep-alive connections
#   calls      system calls per connection, by name (strace): what asking for a client's address is
#
# `off` has no rules. `address` has the least rule that asks for the client's address: a list of one
# prefix. `on` has all that a listener can have, none of which refuses the clients here: an access
# list of PREFIXES, limits of each source, of the listener and of all, and BANS banned addresses.
# Each has one worker pinned to
# PROXY_CPU (1); load and backend are on LOAD_CPU (0). In every round each has its turn, another one
# first. A ratio is taken within a round; the script prints the medians and ranges of the rounds.
# The exit code does not depend on them. By environment:
#   ROUNDS=15       DURATION=2      rounds, and seconds of each figure in a round
#   PREFIXES=100000                 of the access list
#   BANS=10000                      addresses
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=paired.sh
source "$(dirname "${BASH_SOURCE[0]}")/paired.sh"

PREFIXES=${PREFIXES:-100000}
BANS=${BANS:-10000}
KINDS=(off address on)

# Prefixes outside of 127.0.0.0/8, half of them IPv6, of many lengths.
write_list() {
    python3 - "$PREFIXES" <<'PYTHON'
import random
import sys
from ipaddress import ip_network

rng, all = random.Random(1), set()
while len(all) < int(sys.argv[1]):
    if len(all) % 2:
        bits = rng.randrange(20, 33)
        ip = rng.randrange(128 << 24, 224 << 24) >> (32 - bits) << (32 - bits)
    else:
        bits = rng.randrange(32, 65)
        ip = ((0x20 << 120) + rng.getrandbits(120)) >> (128 - bits) << (128 - bits)
    all.add(str(ip_network((ip, bits))))
print("\n".join(sorted(all)))
PYTHON
}

# lists_of KIND and rules_of KIND: parts of a configuration.
lists_of() {
    case $1 in
    address) echo '    access_lists: [(name: "few", deny: ["192.0.2.1"], others: "allow")],' ;;
    on)
        echo "    access_lists: [(name: \"many\", file: \"$WORK/list.txt\", others: \"allow\")],"
        echo '    rate_limit: (rate: 1000000),'
        ;;
    esac
}

rules_of() {
    case $1 in
    address) echo ', access_list: "few"' ;;
    on)
        echo ', access_list: "many", rate_limit: (rate: 1000000),'
        echo '        source_limits: (connections: 100000, rate: 1000000)'
        ;;
    esac
}

# start_kind KIND BACKEND_PORT
start_kind() {
    local kind=$1 backend=$2
    free_port
    cat >"$WORK/$kind.ron" <<RON
(
    workers: 1,
    admin: "$([[ $kind == on ]] && echo "$WORK/admin.sock" || echo off)",
    access_log: "off",
    histogram_log: "$WORK/$kind.hlog",
$(lists_of "$kind")
    listeners: [(
        name: "in", bind: "127.0.0.1:$PORT", pool: "out"$(rules_of "$kind")
    )],
    pools: [(name: "out", backends: ["127.0.0.1:$backend"])],
)
RON
    start "$PROXY_CPU" "$kind" "$MAHORAGA" run "$WORK/$kind.ron"
    wait_port "$PORT" "$kind"
    PORT_OF[$kind]=$PORT
    PID_OF[$kind]=$STARTED
    if [[ $kind == on ]] && ((BANS)); then
        python3 "$LOADTEST/admin_clients.py" ban "$WORK/admin.sock" "$BANS" 198.18.0.0 >&2
    fi
}

# System calls of the worker for each connection, while strace slows it down. io_uring's own
# operations are none.
part_calls() {
    local kind result requests tracer
    if ! command -v strace >/dev/null; then
        echo 'NOT COUNTED: system calls (no strace here)'
        return
    fi
    for kind in "${KINDS[@]}"; do
        strace -f -c -o "$WORK/$kind.calls" -p "${PID_OF[$kind]}" 2>/dev/null &
        tracer=$!
        PIDS+=("$tracer")
        sleep 0.5
        result=$(run_wrk "$LOAD_CPU" "${PORT_OF[$kind]}" 64 "$DURATION" -H 'Connection: close')
        read -r requests _ <<<"$result"
        kill -INT "$tracer"
        wait "$tracer" || true
        awk -v kind="$kind" -v connections="$requests" '
            $1 ~ /^[0-9.]+$/ && $NF != "total" && $4 / connections >= 0.005 {
                calls = calls sprintf("%s %s %.2f", calls ? "," : "", $NF, $4 / connections)
            }
            END { printf "%s: system calls per connection:%s\n", kind, calls }
        ' "$WORK/$kind.calls"
    done
}

help_if_asked "$@"
(($#)) || set -- connect requests calls
for part; do
    declare -F "part_$part" >/dev/null || die "no part named $part (see --help)"
done
need_tools wrk nginx python3 taskset
need_two_cpus
need_descriptors 4096
find_mahoraga
write_list >"$WORK/list.txt"
start_http "$LOAD_CPU" "$WORK"
backend=$PORT
for kind in "${KINDS[@]}"; do
    start_kind "$kind" "$backend"
done
for part; do
    "part_$part"
done
print_table
printf '%s rounds of %s s, %s prefixes, %s bans; %s.\n' \
    "$ROUNDS" "$DURATION" "$PREFIXES" "$BANS" "$(machine_facts)"
