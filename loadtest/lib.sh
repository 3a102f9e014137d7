# shellcheck shell=bash
# Shared pieces of the scripts in loadtest/ and of scripts/real-programs.sh. Sourced, never run.
#
# A script that sources this file gets a temporary directory ($WORK) and an EXIT trap that ends, by
# pid, every process begun with `start`, gives back a changed congestion control, lets packages
# start services again and removes $WORK.

# Without this a failure inside $(...) does not fail the script.
shopt -s inherit_errexit

LOADTEST=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$LOADTEST")
WORK=$(mktemp -d "${TMPDIR:-/tmp}/mahoraga-load.XXXXXX")
# Servers live in /usr/sbin on Debian, which an ordinary user's PATH leaves out.
PATH=$PATH:/usr/sbin:/sbin
# One core for the proxy that is measured, another one for its load and its backend.
PROXY_CPU=${PROXY_CPU:-1}
LOAD_CPU=${LOAD_CPU:-0}
PIDS=()
CONGESTION_FILE=/proc/sys/net/ipv4/tcp_congestion_control
CONGESTION_BEFORE=
POLICY=/usr/sbin/policy-rc.d
# 1 while the one there is ours, from before it is written until after it is removed.
POLICY_IS_OURS=0

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

# The header comment of a script is its help text.
help_if_asked() {
    case ${1:-} in
    -h | --help)
        sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    esac
}

# ---- Tools -----------------------------------------------------------------------------------

# The Debian package of a tool; a tool not named here is in a package of its own name.
package_of() {
    case $1 in
    redis-cli | redis-benchmark) echo redis-tools ;;
    nginx-stream) echo libnginx-mod-stream ;;
    promtool) echo prometheus ;;
    initdb | postgres | pgbench | psql) echo postgresql ;;
    taskset | setpriv | nsenter | unshare) echo util-linux ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    busybox) echo busybox-static ;;
    strip) echo binutils ;;
    chromedriver) echo chromium-driver ;;
    xz) echo xz-utils ;;
    ip | ss | nstat) echo iproute2 ;;
    etcd) echo etcd-server ;;
    etcdctl) echo etcd-client ;;
    certutil) echo libnss3-tools ;;
    testssl) echo testssl.sh ;;
    nft) echo nftables ;;
    varnishd) echo varnish ;;
    dovecot) echo dovecot-imapd ;;
    sysctl) echo procps ;;
    ping) echo iputils-ping ;;
    bird | birdc) echo bird2 ;;
    *) echo "$1" ;;
    esac
}

# Debian keeps the servers' side of PostgreSQL out of PATH: the newest version's directory is added.
add_postgres_path() {
    local newest
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    [[ ! -x $newest/initdb || :$PATH: == *:$newest:* ]] || PATH=$newest:$PATH
}

add_postgres_path

has_tool() {
    case $1 in
    nginx-stream) [[ -n $(nginx_stream_module) ]] ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

missing_tools() {
    local tool
    for tool; do
        has_tool "$tool" || printf '%s\n' "$tool"
    done
}

forbid_services() {
    [[ ! -e $POLICY ]] || return 0
    POLICY_IS_OURS=1
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

allow_services() {
    ((POLICY_IS_OURS)) || return 0
    rm -f "$POLICY"
    POLICY_IS_OURS=0
}

# Installs the packages of the tools named. A server installed this way must not start as a service:
# policy-rc.d forbids it, as in an image build.
install_tools() {
    local tool packages status=0
    local -a apt=(apt-get -y -q -o DPkg::Lock::Timeout=120)
    packages=$(for tool; do package_of "$tool"; done | sort -u | xargs)
    say "installing: $packages"
    forbid_services
    # shellcheck disable=SC2086 # a list of words
    { "${apt[@]}" update &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends $packages
    } >"$WORK/apt.log" 2>&1 || status=1
    allow_services
    ((status == 0)) || tail -n 5 "$WORK/apt.log" >&2
    add_postgres_path
    return "$status"
}

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# Stops with a clear message unless all tools named are there; with INSTALL=1 root gets them by apt.
need_tools() {
    local -a missing
    mapfile -t missing < <(missing_tools "$@")
    if ((${#missing[@]})) && [[ ${INSTALL:-0} == 1 ]] && can_install; then
        install_tools "${missing[@]}" || true
        mapfile -t missing < <(missing_tools "$@")
    fi
    ((${#missing[@]} == 0)) || die "not found: ${missing[*]}. On Debian: apt-get install" \
        "$(for tool in "${missing[@]}"; do package_of "$tool"; done | sort -u | xargs)" \
        "(or run this as root with INSTALL=1)"
}

# Sets MAHORAGA to the balancer's binary, built from the tree as it is: otherwise an old one that
# happens to be there would be measured. Where nothing has changed cargo builds nothing.
find_mahoraga() {
    if [[ -z ${MAHORAGA:-} ]]; then
        (cd "$REPO" && cargo build --release --locked >&2) || die "cargo could not build mahoraga"
        MAHORAGA=${CARGO_TARGET_DIR:-$REPO/target}/release/mahoraga
        # cargo ran in $REPO, from where a relative CARGO_TARGET_DIR counts.
        [[ $MAHORAGA == /* ]] || MAHORAGA=$REPO/$MAHORAGA
    fi
    [[ -f $MAHORAGA && -x $MAHORAGA ]] || die "MAHORAGA=$MAHORAGA is not a program"
    MAHORAGA=$(realpath "$MAHORAGA")
}

# For a script that writes the figures of a document from a simulation: sets mode to `write` or to
# `--check`, as its argument says, and finds what it runs.
begin_figures() {
    help_if_asked "$@"
    mode=${1:-write}
    [[ $mode == write || $mode == --check ]] || die "expected --check or nothing, not '$mode'"
    need_tools python3
    find_mahoraga
}

# Makes cert.pem and key.pem in $WORK.
make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 100 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$WORK/key.pem" -out "$WORK/cert.pem" 2>"$WORK/openssl.log" ||
        die "openssl: $(<"$WORK/openssl.log")"
    chmod 600 "$WORK/key.pem"
}

# ---- Processes -------------------------------------------------------------------------------

# start CPUS NAME COMMAND...: runs it in the background, on CPUS or, for "any", wherever it likes.
# Sets STARTED to its pid; its output is in $WORK/NAME.log.
start() {
    local cpus=$1 name=$2
    shift 2
    [[ $cpus == any ]] || set -- taskset -c "$cpus" "$@"
    "$@" >"$WORK/$name.log" 2>&1 </dev/null &
    STARTED=$!
    PIDS+=("$STARTED")
}

# first CPUS NAME COMMAND...: as `start`, before all others that want these CPUs. Sessions of
# processes get equal parts (sched(7), autogroup), so it gets one of its own.
first() {
    local cpus=$1 name=$2 i
    shift 2
    start "$cpus" "$name" setsid nice -n -20 "$@"
    # Until it is in a session of its own: what is written before counts for that of this script.
    for ((i = 0; i < 100; i++)); do
        [[ $(sed 's/.*) //' "/proc/$STARTED/stat" | cut -d ' ' -f 4) != "$STARTED" ]] || break
        sleep 0.02
    done
    [[ ! -e /proc/$STARTED/autogroup ]] || echo -20 >"/proc/$STARTED/autogroup"
}

# worker_thread PID: the directory in /proc of the first worker's thread.
worker_thread() {
    local comm
    comm=$(grep -l '^worker-0$' "/proc/$1/task/"*/comm) || die 'the worker has no thread'
    printf '%s\n' "${comm%/comm}"
}

gone_within() {
    local seconds=$1 pid=$2 i
    for ((i = 0; i < seconds * 20; i++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    return 1
}

# Asks twice, since a second signal ends at once what takes the first as "finish what runs".
stop() {
    local pid=$1 signal other
    local -a left=()
    for signal in TERM TERM KILL; do
        kill -s "$signal" "$pid" 2>/dev/null || break
        ! gone_within 3 "$pid" || break
    done
    wait "$pid" 2>/dev/null || true
    for other in "${PIDS[@]}"; do
        [[ $other == "$pid" ]] || left+=("$other")
    done
    PIDS=("${left[@]}")
}

stop_all() {
    while ((${#PIDS[@]})); do
        stop "${PIDS[-1]}"
    done
}

clean_up() {
    trap - EXIT
    stop_all
    allow_services
    [[ -z $CONGESTION_BEFORE ]] || echo "$CONGESTION_BEFORE" >"$CONGESTION_FILE"
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The last lines that a process wrote, for a message about its failure.
log_of() { tail -n 15 "$WORK/$1.log" >&2; }

# ---- Ports -----------------------------------------------------------------------------------

# State 0A is LISTEN. This reads /proc, because the proxy and its backend would count a connection
# made to find out.
listening() {
    local port
    printf -v port '%04X' "$1"
    grep -qE ":$port [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# wait_port PORT NAME: until the process started last listens there.
wait_port() {
    local port=$1 name=$2 i
    for ((i = 0; i < 200; i++)); do
        ! listening "$port" || return 0
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.05
    done
    log_of "$name"
    die "$name does not listen on port $port"
}

# Sets PORT to one that nothing uses, below the range from which the kernel takes ports of clients.
free_port() {
    local hex
    while :; do
        PORT=$((10000 + RANDOM % 20000))
        printf -v hex '%04X' "$PORT"
        grep -qE ":$hex " /proc/net/tcp /proc/net/tcp6 2>/dev/null || return 0
    done
}

# ---- What a process uses ---------------------------------------------------------------------

# CPU time of a process in nanoseconds. schedstat is precise and per thread; stat counts in ticks
# (10 ms) and remembers threads that have ended. The larger of both misses nothing.
cpu_ns() {
    local pid=$1 precise ticks
    [[ -e /proc/$pid ]] || die "process $pid, which was to be measured, is gone"
    precise=$(cat "/proc/$pid/task/"*/schedstat 2>/dev/null |
        awk '{ ns += $1 } END { printf "%.0f", ns }')
    ticks=$(sed 's/.*) //' "/proc/$pid/stat" |
        awk -v hz="$(getconf CLK_TCK)" '{ printf "%.0f", ($12 + $13) * 1e9 / hz }')
    echo $((precise > ticks ? precise : ticks))
}

# memory_of PID Rss|Pss, in bytes.
memory_of() { awk -v field="$2:" '$1 == field { print $2 * 1024 }' "/proc/$1/smaps_rollup"; }

# turns_in_vain PID NAME: the waits of the balancer's workers so far that ended for nothing, from
# the report that it logs upon SIGUSR1.
turns_in_vain() {
    local i
    kill -s USR1 "$1"
    for ((i = 0; i < 100; i++)); do
        ! grep -q 'histograms appended' "$WORK/$2.log" || break
        sleep 0.05
    done
    grep -o 'turns_in_vain=[0-9]*' "$WORK/$2.log" | awk -F= '{ n += $2 } END { print n + 0 }'
}

# ---- Machine ---------------------------------------------------------------------------------

need_two_cpus() {
    local cpu
    for cpu in "$PROXY_CPU" "$LOAD_CPU"; do
        taskset -c "$cpu" true 2>/dev/null ||
            die "may not run on CPU $cpu (PROXY_CPU and LOAD_CPU choose others)"
    done
}

# Raises the soft limit of descriptors, which is what processes started from here inherit.
need_descriptors() {
    local soft
    soft=$(ulimit -Sn)
    [[ $soft != unlimited ]] && ((soft < $1)) || return 0
    ulimit -Sn "$1" 2>/dev/null || die "needs $1 descriptors, may have $(ulimit -Hn) (ulimit -n)"
}

# bbr paces what it sends, which changes the cost of a stream by a factor of two: figures compare
# only within one setting. Sockets take the setting when they are made, so call this before any
# `start`.
use_congestion_control() {
    local before
    before=$(<"$CONGESTION_FILE")
    [[ $before != "$1" ]] || return 0
    if { echo "$1" >"$CONGESTION_FILE"; } 2>/dev/null; then
        CONGESTION_BEFORE=$before
        say "congestion control set to $1 for this run; $before comes back at its end"
    else
        say "congestion control stays $before (only root may set $1)"
    fi
}

machine_facts() {
    printf 'Linux %s, %s CPUs (%s), congestion control %s' "$(uname -r)" "$(nproc)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(<"$CONGESTION_FILE")"
}

# ---- Servers ---------------------------------------------------------------------------------

# The `load_module` line that nginx needs for `stream`, or a comment where that is built in.
nginx_stream_module() {
    local module=/usr/lib/nginx/modules/ngx_stream_module.so
    if [[ -e $module ]]; then
        echo "load_module $module;"
    elif nginx -V 2>&1 | grep -E -- '--with-stream( |$)' >/dev/null; then
        echo "# stream is built in"
    fi
}

# start_nginx CPUS NAME PORT <BODY: nginx with one worker. Sets WORKER to that worker's pid.
start_nginx() {
    local cpus=$1 name=$2 port=$3 i
    {
        nginx_stream_module
        cat <<CONF
daemon off;
user $(id -un) $(id -gn);
worker_processes 1;
pid $WORK/$name.pid;
error_log stderr crit;
events { worker_connections 16384; }
CONF
        cat
    } >"$WORK/$name.conf"
    start "$cpus" "$name" nginx -e stderr -p "$WORK" -c "$WORK/$name.conf"
    wait_port "$port" "$name"
    for ((i = 0; i < 100; i++)); do
        # The list of children ends without a newline, which `read` calls a failure.
        read -r WORKER _ <"/proc/$STARTED/task/$STARTED/children" || true
        [[ -z $WORKER ]] || return 0
        sleep 0.05
    done
    die "nginx has no worker"
}

# start_haproxy CPUS NAME PORT <REST: HAProxy with one thread. REST goes on with the defaults. A
# connection takes two descriptors, and half a one for the pipes of splicing, all within
# need_descriptors.
start_haproxy() {
    local cpus=$1 name=$2 port=$3
    {
        cat <<CONF
global
    nbthread 1
    maxconn 7000
defaults
    mode tcp
    maxconn 7000
    timeout connect 5s
    timeout client 10m
    timeout server 10m
CONF
        cat
    } >"$WORK/$name.cfg"
    start "$cpus" "$name" haproxy -db -f "$WORK/$name.cfg"
    wait_port "$port" "$name"
}

# start_http CPUS ROOT: nginx as an HTTP server: /small is answered from memory, all else is a file
# in ROOT, which PUT may write. Sets PORT.
start_http() {
    local cpus=$1 root=$2 kind temp=
    free_port
    for kind in client_body proxy fastcgi uwsgi scgi; do
        temp+="${kind}_temp_path $WORK/http-$kind; "
    done
    start_nginx "$cpus" "http-$PORT" "$PORT" <<CONF
http {
    $temp
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 1g;
    default_type application/octet-stream;
    server {
        listen 127.0.0.1:$PORT backlog=4096;
        root $root;
        location = /small { return 200 "hello from the backend\n"; }
        location / { dav_methods PUT; }
    }
}
CONF
}

# start_iperf3 CPUS and start_echo CPUS set PORT.
start_iperf3() {
    free_port
    start "$1" "iperf3-$PORT" iperf3 -s -B 127.0.0.1 -p "$PORT"
    wait_port "$PORT" "iperf3-$PORT"
}

start_echo() {
    free_port
    start "$1" "echo-$PORT" python3 "$LOADTEST/echo_server.py" "127.0.0.1:$PORT"
    wait_port "$PORT" "echo-$PORT"
}

# start_mahoraga CPUS WORKERS BACKEND_PORT...: sets PORT; STARTED is the pid.
start_mahoraga() {
    local cpus=$1 workers=$2 backend
    local -a to=()
    shift 2
    for backend; do
        to+=(--to "127.0.0.1:$backend")
    done
    free_port
    start "$cpus" "mahoraga-$PORT" \
        "$MAHORAGA" proxy --from "127.0.0.1:$PORT" "${to[@]}" --workers "$workers" \
        --admin off
    wait_port "$PORT" "mahoraga-$PORT"
}

# hold_idle CPUS NAME PORT COUNT: a process NAME that holds so many idle connections, once all are
# there.
hold_idle() {
    local cpus=$1 name=$2 port=$3 count=$4 i
    start "$cpus" "$name" python3 "$LOADTEST/echo_clients.py" "127.0.0.1:$port" \
        --connections "$count" --rounds 0 --hold
    for ((i = 0; i < 600; i++)); do
        ! grep -qs '^holding' "$WORK/$name.log" || return 0
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.1
    done
    log_of "$name"
    die "$name: connections were lost"
}

# balancer_number NAME: a gauge or counter of the workers of the balancer whose admin socket is
# $WORK/admin.sock, added up.
balancer_number() {
    "$MAHORAGA" status --json --admin "$WORK/admin.sock" | python3 -c '
import json
import sys

workers = json.load(sys.stdin)["workers"]
print(sum(worker["numbers"].get(sys.argv[1], 0) for worker in workers))' "$1"
}

# ---- Networks --------------------------------------------------------------------------------

# enter_own_network ARGUMENT...: goes on in a network of the script's own, which ends with it: the
# script is run again there, with these arguments.
enter_own_network() {
    local status=0
    [[ -z ${IN_NAMESPACE:-} ]] || return 0
    unshare --net true 2>/dev/null || die 'may not make a network namespace: run this as root'
    IN_NAMESPACE=1 MAHORAGA=$MAHORAGA unshare --net "$0" "$@" || status=$?
    exit "$status"
}

# cable_to NAME DEVICE: a network for NAME and a cable to it: NAME here, DEVICE there. SPACE is the
# process that holds it. An address counts as soon as it is set (accept_dad=0).
cable_to() {
    local name=$1 device=$2 i
    start any "$name" unshare --net sleep infinity
    SPACE=$STARTED
    for ((i = 0; i < 100; i++)); do
        [[ $(readlink "/proc/$SPACE/ns/net") == "$(readlink /proc/self/ns/net)" ]] || break
        sleep 0.02
    done
    ip link add name "$name" type veth peer name "$device" netns "$SPACE"
    sysctl -qw "net.ipv6.conf.$name.accept_dad=0"
    within "$SPACE" sysctl -qw "net.ipv6.conf.$device.accept_dad=0"
    within "$SPACE" ip link set lo up
}

# within PID COMMAND...: a command in the network of a process.
within() {
    local pid=$1
    shift
    nsenter --net="/proc/$pid/ns/net" "$@"
}

# make_network OURS THEIRS: a namespace for an attacker, whose process is ATTACKER_PID, and a cable
# to it (`ours`, `theirs`) with these addresses. Call it in a namespace of the script's own.
make_network() {
    ip link set lo up
    cable_to ours theirs
    ATTACKER_PID=$SPACE
    ip addr add "$1" dev ours
    ip link set ours up
    attacking ip addr add "$2" dev theirs
    attacking ip link set theirs up
}

attacking() { within "$ATTACKER_PID" "$@"; }

# ---- Measurements ----------------------------------------------------------------------------

# run_wrk CPUS PORT CONNECTIONS SECONDS WRK_ARGUMENT...: prints "REQUESTS RATE P50 P99 ERRORS" of
# requests by SCHEME (http), times in µs; errors are sockets that failed and answers other than 2xx
# and 3xx.
run_wrk() {
    local cpus=$1 port=$2 connections=$3 seconds=$4
    shift 4
    timeout $((seconds + 30)) taskset -c "$cpus" wrk -t1 -c"$connections" -d"$seconds"s --latency \
        "$@" "${SCHEME:-http}://127.0.0.1:$port/small" >"$WORK/wrk.out"
    awk '
        function us(time) {
            if (time ~ /us$/) return time + 0
            if (time ~ /ms$/) return time * 1e3
            return time ~ /m$/ ? time * 6e7 : time * 1e6
        }
        $1 == "50%" { p50 = us($2) }
        $1 == "99%" { p99 = us($2) }
        $2 == "requests" && $3 == "in" { requests = $1 }
        $1 == "Requests/sec:" { rate = $2 }
        /Socket errors:/ { for (i = 4; i <= NF; i += 2) errors += $i }
        /Non-2xx/ { errors += $NF }
        END { print requests + 0, rate + 0, p50 + 0, p99 + 0, errors + 0 }
    ' "$WORK/wrk.out"
}

# measure_wrk PID PORT CONNECTIONS SECONDS WRK_ARGUMENT...: prints "CPU RATE P50 P99 ERRORS", where
# CPU is what process PID used per request, in µs, the opening of the connections included.
measure_wrk() {
    local pid=$1 before after result
    shift
    before=$(cpu_ns "$pid")
    result=$(run_wrk "$LOAD_CPU" "$@")
    after=$(cpu_ns "$pid")
    awk -v ns=$((after - before)) \
        '{ printf "%.3f %s %s %s %s\n", $1 ? ns / 1e3 / $1 : 0, $2, $3, $4, $5 }' <<<"$result"
}

# run_iperf3 CPUS PORT STREAMS SECONDS IPERF3_ARGUMENT...: prints "BYTES GBITS" that arrived, over
# all streams and, with --bidir, both directions. It tries again while the server ends its previous
# run.
run_iperf3() {
    local cpus=$1 port=$2 streams=$3 seconds=$4 attempt
    shift 4
    for attempt in 1 2 3 4 5; do
        timeout $((seconds + 20)) taskset -c "$cpus" iperf3 -c 127.0.0.1 -p "$port" \
            -P "$streams" -t "$seconds" -J "$@" >"$WORK/iperf3.json" && break
        ((attempt < 5)) || die "iperf3: $(grep -m 1 '"error"' "$WORK/iperf3.json")"
        sleep 0.4
    done
    python3 - "$WORK/iperf3.json" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    end = json.load(file)["end"]
sums = [end[name] for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
print(sum(s["bytes"] for s in sums), sum(s["bits_per_second"] for s in sums) / 1e9)
PYTHON
}

# measure_iperf3 PID PORT STREAMS SECONDS IPERF3_ARGUMENT...: prints "CPU GBITS", where CPU is what
# process PID used per GB (1e9 bytes), in seconds.
measure_iperf3() {
    local pid=$1 before after result
    shift
    before=$(cpu_ns "$pid")
    result=$(run_iperf3 "$LOAD_CPU" "$@")
    after=$(cpu_ns "$pid")
    awk -v ns=$((after - before)) '{ printf "%.4f %.3f\n", $1 ? ns / $1 : 0, $2 }' <<<"$result"
}
