#!/usr/bin/env bash
# A server is killed and started again under load: three nginx behind mahoraga, which probes them
# over HTTP, and wrk with a new connection for every request.
#
#   scripts/failover.sh
#
# Right when no more requests failed than were under way on the server that got SIGKILL, and when
# its traffic returned little by little. Takes half a minute. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when it is not right.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
need_tools wrk nginx python3
need_descriptors 4096
find_mahoraga

# In seconds.
SLOW_START=6
LOAD_TIME=20
CONNECTIONS=32

# start_server NAME PORT: nginx as one process, so that one SIGKILL ends it. SERVER is its pid.
start_server() {
    local name=$1 port=$2 kind temp=
    for kind in client_body proxy fastcgi uwsgi scgi; do
        temp+="${kind}_temp_path $WORK/$name-$kind; "
    done
    cat >"$WORK/$name.conf" <<CONF
daemon off;
master_process off;
user $(id -un) $(id -gn);
pid $WORK/$name.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
    $temp
    access_log off;
    server {
        listen 127.0.0.1:$port backlog=4096;
        location / { return 200 "hello from $name\n"; }
    }
}
CONF
    start any "$name" nginx -e stderr -p "$WORK" -c "$WORK/$name.conf"
    wait_port "$port" "$name"
    SERVER=$STARTED
}

# until_health STATE: waits until the probes report STATE for the server that is killed, 10 s at
# most. grep reads to the end: with -q it may end the other programs by SIGPIPE, which looks like no
# match.
until_health() {
    local i
    for ((i = 0; i < 100; i++)); do
        ! (cd "$WORK" && "$MAHORAGA" backends --json 2>&1) |
            grep -A 12 '"name": "a"' | grep "\"health\": \"$1\"" >/dev/null || return 0
        sleep 0.1
    done
    log_of mahoraga
    die "the server that was killed was never found $1"
}

now() { date +%s.%N; }

backends=
ports=()
for name in a b c; do
    free_port
    ports+=("$PORT")
    start_server "$name" "$PORT"
    [[ $name != a ]] || victim=$SERVER
    backends+="(name: \"$name\", address: \"127.0.0.1:$PORT\"), "
done
free_port
front=$PORT
cat >"$WORK/config.ron" <<CONF
(
    workers: 2,
    listeners: [(name: "web", bind: "127.0.0.1:$front", pool: "web")],
    access_log: (to: "$WORK/access.log", format: "json"),
    pools: [(
        name: "web",
        check: (type: "http", interval: "250ms", fall: 2, initial: "probe"),
        slow_start: "${SLOW_START}s",
        backends: [$backends],
    )],
)
CONF
start any mahoraga env -C "$WORK" "$MAHORAGA" run
balancer=$STARTED
wait_port "$front" mahoraga
until_health up

# A pause before each request makes the rate steady, whatever the machine.
echo 'function delay() return 10 end' >"$WORK/steady.lua"
start any wrk timeout $((LOAD_TIME + 15)) wrk -t1 -c"$CONNECTIONS" -d"$LOAD_TIME"s \
    -s "$WORK/steady.lua" -H 'Connection: close' "http://127.0.0.1:$front/"
load=$STARTED

sleep 3
# Without this the shell reports that the process was killed.
disown "$victim"
killed_after=$(now)
kill -KILL "$victim"
# Until its sockets close it takes new connections: for 6 ms, where the machine is busy.
for ((i = 0; i < 2000; i++)); do
    kill -0 "$victim" 2>/dev/null || break
    sleep 0.002
done
killed_before=$(now)
until_health down
sleep 2
start_server a "${ports[0]}"
until_health up
(cd "$WORK" && "$MAHORAGA" backends --json) >"$WORK/backends.json"
gone_within $((LOAD_TIME + 15)) "$load" || die 'wrk does not end'
# The balancer writes its log with a delay, and writes the rest when it ends.
stop "$balancer"

python3 - "$WORK" "$killed_after" "$killed_before" "$SLOW_START" <<'PYTHON'
import json, re, sys
from datetime import datetime

work = sys.argv[1]
killed_after, killed_before, slow_start = map(float, sys.argv[2:])


def seconds(time):
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()


# By the balancer's clock: this script may notice seconds later, where many connections that have
# ended make /proc/net/tcp long.
with open(f"{work}/backends.json", encoding="utf-8") as file:
    changes = [backend["last_change"] for backend in json.load(file) if backend["name"] == "a"]
up_at = seconds(changes[0]["at"])

with open(f"{work}/wrk.log", encoding="utf-8") as file:
    report = file.read()
errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
failed = sum(map(int, errors.groups())) if errors else 0
refused = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
failed += int(refused.group(1)) if refused else 0
requests = int(re.search(r"(\d+) requests in", report).group(1))

# When each session began and ended, and with which server. Times are written in whole ms.
sessions = []
with open(f"{work}/access.log", encoding="utf-8") as file:
    for line in map(json.loads, file):
        ended = seconds(line["time"])
        sessions.append((ended - line["total_us"] / 1e6, ended + 0.001, line))
in_flight = sum(
    line["backend"] == "a" and began <= killed_before and ended >= killed_after
    for began, ended, line in sessions
)


def share(begin, end):
    """Of the sessions that began then, those with the server that was killed."""
    there = [line["backend"] == "a" for began, _, line in sessions if begin <= began < end]
    return sum(there) / max(len(there), 1)


third = slow_start / 3
shares = [share(up_at + n * third, up_at + (n + 1) * third) for n in range(3)]
before = share(killed_after - 2, killed_after)
after = share(up_at + slow_start, up_at + slow_start + 2)
print(f"{requests} requests, {failed} failed; {in_flight} were under way on the server at its end")
print(
    f"its share: {before:.0%} before, then in thirds of {slow_start:.0f} s "
    + ", ".join(f"{share:.0%}" for share in shares)
    + f", {after:.0%} after"
)
wrong = []
if requests < 1000 or before < 0.25:
    wrong.append("there was no load to speak of")
if failed > in_flight:
    wrong.append("more requests failed than were under way")
if not shares[0] < 0.7 * shares[2]:
    wrong.append("traffic did not return slowly")
if after < 0.25:
    wrong.append("traffic did not return")
print("FAILED failover: " + "; ".join(wrong) if wrong else "ok failover")
sys.exit(bool(wrong))
PYTHON
