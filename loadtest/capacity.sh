#!/usr/bin/env bash
# What one worker costs: writes loadtest/capacity.tsv, which `mahoraga plan` has its costs from.
#
#   loadtest/capacity.sh            measures, and writes the table
#   loadtest/capacity.sh --show     measures, and prints it only
#
# The balancer runs with one worker on PROXY_CPU (1), load and backend on LOAD_CPU (0), all over
# loopback. A cost is the CPU time of the balancer's process, the kernel's work for it included:
# the median of the rounds. The kernel's memory for a socket is the size of its objects, and half
# of what the ring holds for a session. By environment:
#   ROUNDS=5        DURATION=4      rounds, and seconds of each figure in a round
#   IDLE=5000       idle sessions that memory and descriptors are measured with
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# The rates of the load generator are the wall clock's, and so those of a busy machine: compare CPU
# time. Exits 1 when a request failed.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-4}
IDLE=${IDLE:-5000}
TABLE=$LOADTEST/capacity.tsv

median() { sort -g | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

# requests NAME PORT PID CONNECTIONS WRK_ARGUMENT...: a round; the cost goes to $WORK/NAME.cost.
requests() {
    local name=$1 port=$2 pid=$3 connections=$4 result cpu rate p50 p99 errors
    shift 4
    result=$(measure_wrk "$pid" "$port" "$connections" "$DURATION" "$@")
    read -r cpu rate p50 p99 errors <<<"$result"
    ((errors == 0)) || die "$errors requests failed"
    echo "$cpu" >>"$WORK/$name.cost"
    say "$name: $cpu µs of CPU, $rate/s, p50 $p50 µs, p99 $p99 µs"
}

# streams NAME PORT PID STREAMS
streams() {
    local result cpu gbits
    result=$(measure_iperf3 "$3" "$2" "$4" "$DURATION")
    read -r cpu gbits <<<"$result"
    echo "$cpu" >>"$WORK/$1.cost"
    say "$1: $cpu s of CPU for a GB, $gbits Gbit/s"
}

# objects CACHE: the objects of a slab cache in use, and the size of one.
objects() {
    awk -v name="$1" '$1 == name { count = $2; size = $4 } END { print count + 0, size + 0 }' \
        /proc/slabinfo
}

# worker_descriptors PID: those of the worker's own table, the largest of all threads.
worker_descriptors() {
    local task
    for task in /proc/"$1"/task/*; do
        find "$task/fd" -mindepth 1 2>/dev/null | wc -l
    done | sort -n | tail -n 1
}

# hold_sessions: as many idle sessions; sets SESSION, SOCKET and DESCRIPTORS.
hold_sessions() {
    local rss rings fds count size bytes=0 cache
    start_echo "$LOAD_CPU"
    start_mahoraga "$PROXY_CPU" 1 "$PORT"
    local proxy=$STARTED
    sleep 0.5
    rss=$(memory_of "$proxy" Rss)
    fds=$(worker_descriptors "$proxy")
    read -r rings _ < <(objects io_kiocb)
    hold_idle "$LOAD_CPU" idle "$PORT" "$IDLE"
    # A moment later what is idle has given back what it can.
    sleep 1
    SESSION=$((($(memory_of "$proxy" Rss) - rss) / IDLE))
    DESCRIPTORS=$((($(worker_descriptors "$proxy") - fds + IDLE / 2) / IDLE))
    for cache in TCP sock_inode_cache filp dentry; do
        read -r _ size < <(objects "$cache")
        ((size > 0)) || die "no $cache in /proc/slabinfo (is this root?)"
        bytes=$((bytes + size))
    done
    read -r count size < <(objects io_kiocb)
    SOCKET=$((bytes + (count > rings ? (count - rings) * size / IDLE / 2 : 0)))
    say "$IDLE idle sessions: $SESSION B each, $SOCKET B of the kernel for a socket," \
        "$DESCRIPTORS descriptors"
}

# cost NAME SCALE: the median, as a whole number.
cost() { median <"$WORK/$1.cost" | awk -v scale="$2" '{ printf "%.0f", $1 * scale }'; }

# Of 128 streams 64 have a pipe. The others cost what is left of the cost of all.
copied() {
    awk -v all="$(cost stream128 1000000)" -v spliced="$(cost stream 1000000)" \
        'BEGIN { printf "%.0f", 2 * all - spliced }'
}

write_table() {
    cat <<TABLE
# What one worker costs, for \`mahoraga plan\`. loadtest/capacity.sh writes this file.
machine	$(machine_facts)
date	$(date +%F)
connection	$(cost connection 1000)	ns of CPU for a connection with one small request, 64 at a time
request	$(cost request 1000)	ns of CPU for a small request over one of 1,000 open connections
spliced	$(cost stream 1000000)	µs of CPU for 1e9 bytes over 8 streams
copied	$(copied)	µs of CPU for 1e9 bytes over streams that have no pipe, of 128
session	$SESSION	bytes of the program for an idle session
socket	$SOCKET	bytes of the kernel for an idle socket
descriptors	$DESCRIPTORS	descriptors of a session
TABLE
}

help_if_asked "$@"
mode=${1:-write}
[[ $mode == write || $mode == --show ]] || die "expected --show or nothing, not '$mode'"
need_tools wrk nginx iperf3 python3 taskset
need_two_cpus
need_descriptors 20000
[[ -r /proc/slabinfo ]] || die "cannot read /proc/slabinfo: run this as root"
find_mahoraga
use_congestion_control cubic
start_http "$LOAD_CPU" "$WORK"
start_mahoraga "$PROXY_CPU" 1 "$PORT"
http=$PORT http_pid=$STARTED
start_iperf3 "$LOAD_CPU"
iperf3=$PORT
start_mahoraga "$PROXY_CPU" 1 "$iperf3"
bulk=$PORT bulk_pid=$STARTED
run_wrk "$LOAD_CPU" "$http" 64 1 >/dev/null
for ((round = 1; round <= ROUNDS; round++)); do
    say "round $round of $ROUNDS"
    requests connection "$http" "$http_pid" 64 -H 'Connection: close'
    requests request64 "$http" "$http_pid" 64
    requests request "$http" "$http_pid" 1000
    streams stream "$bulk" "$bulk_pid" 8
    streams stream128 "$bulk" "$bulk_pid" 128
done
stop_all
hold_sessions
write_table >"$WORK/capacity.tsv"
[[ $mode == --show ]] || cp "$WORK/capacity.tsv" "$TABLE"
cat "$WORK/capacity.tsv"
