#!/usr/bin/env bash
# Backends, bans and shares of limits in a real etcd (docs/shared-state.md), which is stopped,
# wiped, full and slow while a client asks the balancer again and again.
#
#   scripts/etcd.sh [--long]
#
# Right when each change counts, each mistake is told with its key, no request of the client fails
# whatever happens to etcd, the control thread keeps turning, and balancers never have more
# connections open than a limit that they share. Takes half a minute; with --long,
# which also stops etcd by SIGSTOP, fills its quota and writes 10,000 changes in a minute, two
# minutes. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when it is not right.

# Keys stand in quotes, as the alerts write them.
# shellcheck disable=SC2016
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
LONG=0
[[ ${1:-} != --long ]] || LONG=1
need_tools etcd etcdctl curl python3 openssl
find_mahoraga
export ETCDCTL_API=3
# A busy disk is not what this is about: each write of etcd waits for it.
DATA=$WORK
if [[ -w /dev/shm ]]; then
    DATA=$(mktemp -d /dev/shm/mahoraga-etcd.XXXXXX)
    trap 'clean_up; rm -rf "$DATA"' EXIT
fi

# start_etcd NAME CLIENT_URL DIRECTORY [FLAG...]: ETCD is its pid.
start_etcd() {
    local name=$1 url=$2 directory=$3
    shift 3
    # A short time to elect one member: it is alone.
    start any "$name" etcd --name "$name" --data-dir "$directory" --log-level error \
        --heartbeat-interval 50 --election-timeout 250 \
        --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "http://127.0.0.1:$PEER" \
        --initial-advertise-peer-urls "http://127.0.0.1:$PEER" \
        --initial-cluster "$name=http://127.0.0.1:$PEER" "$@"
    ETCD=$STARTED
    wait_port "${url##*:}" "$name"
    # It listens before it has a leader.
    until_true 10 "$name leads" leads "$url"
}

# leads URL: the member there has a leader.
leads() {
    curl -sf --max-time 2 --cacert "$WORK/ca.pem" --cert "$WORK/client.pem" \
        --key "$WORK/client.key" "$1/health" | grep -q '"health":"true"'
}

ctl() { etcdctl --endpoints "http://127.0.0.1:$PORT_NOW" "${USER_FLAGS[@]}" "$@" >/dev/null; }

put() { ctl put "/pools/web/$1" "$2"; }

backends() { (cd "$WORK" && "$MAHORAGA" backends --json --pool "${1:-web}"); }

status() { (cd "$WORK" && "$MAHORAGA" status --json); }

# until_true SECONDS WHAT COMMAND...: until the command says yes.
until_true() {
    local seconds=$1 what=$2 i
    shift 2
    for ((i = 0; i < seconds * 10; i++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    log_of mahoraga
    backends || true
    status | grep -A 12 '"alerts"' || true
    die "not within $seconds s: $what"
}

# has POOL CONDITION: a condition in Python about `all`, the pool's backends by name.
has() {
    backends "$1" | python3 -c '
import json, sys
all = {its["name"]: its for its in json.load(sys.stdin)}
sys.exit(not eval(sys.argv[1]))' "$2"
}

# alerts TEXT: an alert has the text. No alert has "": so nothing goes wrong.
alerts() {
    status | python3 -c '
import json, sys
alerts, text = json.load(sys.stdin)["alerts"], sys.argv[1]
alerts = [its for its in alerts if "wrong" not in its or text]
sys.exit(not (any(text in its for its in alerts) if text else not alerts))' "$1"
}

step() { say "- $*"; }

# ---- Certificates, backends, etcd and the balancer -------------------------------------------

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=$1" -keyout "$WORK/$1.key" -out "$WORK/$1.pem" 2>/dev/null
}

# certificate NAME AUTHORITY
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$WORK/$1.key" -out "$WORK/$1.csr" 2>/dev/null
    openssl x509 -req -in "$WORK/$1.csr" -CA "$WORK/$2.pem" -CAkey "$WORK/$2.key" -days 2 \
        -CAcreateserial -out "$WORK/$1.pem" 2>/dev/null \
        -extfile <(echo "subjectAltName=IP:127.0.0.1")
}

authority ca
authority other
certificate server ca
certificate client ca

declare -A AT
for name in a b c; do
    free_port
    start any "$name" python3 "$LOADTEST/echo_server.py" "127.0.0.1:$PORT"
    wait_port "$PORT" "$name"
    AT[$name]=127.0.0.1:$PORT
done

USER_FLAGS=()
free_port
MAIN=$PORT PORT_NOW=$PORT
free_port
PEER=$PORT
start_etcd main "http://127.0.0.1:$MAIN" "$DATA/main" --quota-backend-bytes $((16 << 20))
main=$ETCD main_peer=$PEER
free_port
secured=$PORT
free_port
PEER=$PORT
start_etcd secured "https://127.0.0.1:$secured" "$DATA/secured" --client-cert-auth \
    --cert-file "$WORK/server.pem" --key-file "$WORK/server.key" --trusted-ca-file "$WORK/ca.pem"
PEER=$main_peer
etcdctl --endpoints "https://127.0.0.1:$secured" --cacert "$WORK/ca.pem" \
    --cert "$WORK/client.pem" --key "$WORK/client.key" \
    put /pools/secured/a "{\"address\": \"${AT[a]}\"}" >/dev/null

printf 'secret\n' >"$WORK/password"
free_port
front=$PORT
free_port
nowhere=$PORT
tls="certificate: \"$WORK/client.pem\", key: \"$WORK/client.key\""
cat >"$WORK/config.ron" <<CONF
(
    workers: 1,
    listeners: [(bind: "127.0.0.1:$front", pool: "web")],
    access_log: "off",
    trusted: ["198.51.100.0/24"],
    fleet: (etcd: (endpoints: ["http://127.0.0.1:$MAIN"], prefix: "/fleet/",
        user: "balancer", password_file: "$WORK/password")),
    pools: [
        (name: "web", discover: (etcd: (
            endpoints: ["http://127.0.0.1:$nowhere", "http://127.0.0.1:$MAIN"],
            prefix: "/pools/web/", user: "balancer", password_file: "$WORK/password",
        )), backends: []),
        (name: "secured", discover: (etcd: (endpoints: ["https://127.0.0.1:$secured"],
            prefix: "/pools/secured/", ca: "$WORK/ca.pem", $tls)), backends: []),
        (name: "wrong", discover: (etcd: (endpoints: ["https://127.0.0.1:$secured"],
            prefix: "/pools/secured/", ca: "$WORK/other.pem", $tls)), backends: ["${AT[c]}"]),
    ],
)
CONF
put one "{\"address\": \"${AT[a]}\"}"
start any mahoraga env -C "$WORK" "$MAHORAGA" run
balancer=$STARTED
wait_port "$front" mahoraga

# ---- Membership, weights, states, mistakes ---------------------------------------------------

step 'a backend is found, by TLS too, and a wrong authority is told'
until_true 10 'one backend' has web 'list(all) == ["one"]'
until_true 10 'one backend by TLS' has secured 'list(all) == ["a"]'
until_true 10 'an alert about the wrong authority' alerts 'UnknownIssuer'
has wrong "list(all) == ['${AT[c]}']" || die 'the backend of the file is gone'

# A client that comes again and again, for as long as this runs: it notes each failure.
cat >"$WORK/client.py" <<'PYTHON'
import os, socket, sys, time
asked = failed = 0
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as client:
            client.sendall(b"ping")
            if client.recv(4) != b"ping":
                raise OSError("no echo")
    except OSError as error:
        failed += 1
        print("failed:", error, flush=True)
    asked += 1
    with open(sys.argv[2] + ".new", "w", encoding="utf-8") as file:
        file.write(f"{asked} {failed}")
    os.replace(sys.argv[2] + ".new", sys.argv[2])
    time.sleep(0.02)
PYTHON
start any client python3 "$WORK/client.py" "$front" "$WORK/asked"

step 'a weight and a state count'
put two "{\"address\": \"${AT[b]}\", \"weight\": 3}"
until_true 5 'two backends' has web 'len(all) == 2 and all["two"]["weight"] == 3'
put one "{\"address\": \"${AT[a]}\", \"state\": \"drain\"}"
until_true 5 'a drained backend' has web 'all["one"]["state"] == "drain"'

step 'a bad value, one of 1 MB and a second key of an address are told'
put two '{"address": "127.0.0.1:1", "weight": 999}'
until_true 5 'an alert with the key' alerts 'key `/pools/web/two`: invalid `weight` `999`'
has web "all['two']['address'] == '${AT[b]}'" || die 'a bad value has changed the backend'
put two "{\"address\": \"${AT[b]}\", \"weight\": 2}"
head -c 1000000 /dev/zero | tr '\0' x | ctl put /pools/web/large
until_true 5 'an alert about the large value' alerts 'invalid value: expected at most 65536 bytes'
ctl del /pools/web/large
put three "{\"address\": \"${AT[b]}\"}"
until_true 5 'an alert about the address' alerts 'key `/pools/web/two`: it is left out'
ctl del /pools/web/three
until_true 5 'no alert' alerts ''
has web 'all["two"]["weight"] == 2' || die 'the weight is not that of the last write'

# bans TEXT: the list of bans has the text.
bans() { (cd "$WORK" && "$MAHORAGA" bans --json) | grep -F "$1"; }

no_bans() { ! bans prefix; }

step 'states and bans of the fleet count, and a ban ends with its lease'
ctl put /fleet/states/web/one '{"state": "maint"}'
until_true 5 'a backend in maint' has web 'all["one"]["state"] == "maint"'
ctl del /fleet/states/web/one
until_true 5 'its own state' has web 'all["one"]["state"] == "drain"'
lease=$(etcdctl --endpoints "http://127.0.0.1:$PORT_NOW" lease grant 2 | cut -d ' ' -f 2)
ctl put --lease "$lease" /fleet/bans/203.0.113.0/24 '{"reason": "floods"}'
ctl put --lease "$lease" /fleet/bans/198.51.100.7 '{"reason": "trusted"}'
until_true 5 'a ban' bans '203.0.113.0/24'
! bans 198.51.100.7 || die 'a trusted client is banned'
until_true 10 'the end of the ban' no_bans
(cd "$WORK" && "$MAHORAGA" ban 192.0.2.9 --for 1h --reason own) >/dev/null
has_key() { etcdctl --endpoints "http://127.0.0.1:$PORT_NOW" get /fleet/bans/192.0.2.9 | grep own; }
until_true 5 'the own ban in etcd' has_key
(cd "$WORK" && "$MAHORAGA" unban 192.0.2.9) >/dev/null
has_no_key() { ! has_key; }
until_true 5 'no own ban in etcd' has_no_key

# ---- etcd goes -------------------------------------------------------------------------------

# What is written while the balancer can't see it, at another port.
elsewhere() {
    free_port
    PORT_NOW=$PORT
    start_etcd main "http://127.0.0.1:$PORT_NOW" "$DATA/main"
}

step 'a stop changes nothing, and a compaction meanwhile loses nothing'
stop "$main"
until_true 5 'an alert' alerts 'keeping the last known addresses'
has web 'len(all) == 2' || die 'a stop has changed the pool'
elsewhere
put one "{\"address\": \"${AT[a]}\", \"state\": \"ready\"}"
for ((i = 0; i < 20; i++)); do
    put two "{\"address\": \"${AT[b]}\", \"weight\": $((i + 1))}"
done
revision=$(etcdctl --endpoints "http://127.0.0.1:$PORT_NOW" get / --write-out json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["header"]["revision"])')
ctl compaction "$revision"
stop "$ETCD"
PORT_NOW=$MAIN
start_etcd main "http://127.0.0.1:$MAIN" "$DATA/main" --quota-backend-bytes $((16 << 20))
main=$ETCD
until_true 12 'what was written meanwhile' has web \
    'all["two"]["weight"] == 20 and all["one"]["state"] == "ready"'
until_true 5 'no alert' alerts ''

step 'users: a token is renewed, and a wrong password is told'
ctl user add root:rootpw
ctl user add balancer:secret
ctl role add reader
ctl role grant-permission reader read --prefix=true /pools/
ctl role grant-permission reader read --prefix=true /fleet/
ctl user grant-role balancer reader
ctl user grant-role root root
ctl auth enable
USER_FLAGS=(--user root:rootpw)
put two "{\"address\": \"${AT[b]}\", \"weight\": 5}"
until_true 15 'a change after authentication began' has web 'all["two"]["weight"] == 5'
printf 'wrong\n' >"$WORK/password"
stop "$main"
start_etcd main "http://127.0.0.1:$MAIN" "$DATA/main" --quota-backend-bytes $((16 << 20))
main=$ETCD
until_true 12 'an alert about the password' alerts 'invalid user ID or password'
printf 'secret\n' >"$WORK/password"
put two "{\"address\": \"${AT[b]}\", \"weight\": 6}"
until_true 20 'a change after the password is right' has web 'all["two"]["weight"] == 6'

if ((LONG)); then
    step 'etcd hangs (SIGSTOP): it is noticed, and changes nothing'
    kill -STOP "$main"
    until_true 20 'an alert' alerts 'no answer within 5s'
    has web 'len(all) == 2' || die 'an etcd that hangs has changed the pool'
    kill -CONT "$main"
    put two "{\"address\": \"${AT[b]}\", \"weight\": 7}"
    until_true 40 'a change after it' has web 'all["two"]["weight"] == 7'

    step 'the quota is full: reading goes on'
    head -c 700000 /dev/urandom | base64 -w0 >"$WORK/junk"
    for ((i = 0; i < 20; i++)); do
        ctl put "/junk/$i" <"$WORK/junk" 2>/dev/null || break
    done
    ! put two "{\"address\": \"${AT[b]}\", \"weight\": 8}" 2>/dev/null || die 'no quota is full'
    has web 'all["two"]["weight"] == 7' || die 'a full etcd has changed the pool'
    until_true 5 'no alert' alerts ''
fi

step 'a wipe keeps the last backends until there are others'
stop "$main"
rm -rf "$DATA/main"
USER_FLAGS=()
start_etcd main "http://127.0.0.1:$MAIN" "$DATA/main"
main=$ETCD
until_true 12 'an alert about no key' alerts 'no key under `/pools/web/`'
has web 'len(all) == 2' || die 'an empty prefix has changed the pool'
put two "{\"address\": \"${AT[b]}\", \"weight\": 1}"
until_true 5 'the new backend alone' has web \
    'all["two"]["weight"] == 1 and all.get("one", {}).get("leaving", True)'

# ---- Many changes ----------------------------------------------------------------------------

# As fast as 10,000 in a minute, over the gateway.
seconds=$((LONG ? 60 : 3))
step "10,000 changes a minute, for $seconds s"
put three "{\"address\": \"${AT[c]}\"}"
before=$(status | python3 -c 'import json, sys; print(json.load(sys.stdin)["etcd"]["changes"])')
python3 - "$MAIN" "$seconds" "${AT[c]}" <<'PYTHON'
import base64, http.client, json, sys, time
port, seconds, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
encoded = lambda text: base64.b64encode(text.encode()).decode()
etcd = http.client.HTTPConnection("127.0.0.1", port)
count = seconds * 10_000 // 60
began = time.monotonic()
for n in range(count):
    value = json.dumps({"address": address, "weight": n % 250 + 1})
    body = {"key": encoded("/pools/web/three"), "value": encoded(value)}
    etcd.request("POST", "/v3/kv/put", json.dumps(body))
    assert b"revision" in etcd.getresponse().read()
    time.sleep(max(0, began + (n + 1) * seconds / count - time.monotonic()))
body = {"key": encoded("/pools/web/three"),
        "value": encoded(json.dumps({"address": address, "weight": 256}))}
etcd.request("POST", "/v3/kv/put", json.dumps(body))
etcd.getresponse().read()
print(f"{count} changes in {time.monotonic() - began:.1f} s")
PYTHON
until_true 5 'the last weight' has web 'all["three"]["weight"] == 256'
status >"$WORK/status.json"
python3 - "$WORK/status.json" "$before" "$seconds" "$WORK/asked" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    status = json.load(file)
arrived = status["etcd"]["changes"] - int(sys.argv[2])
count = int(sys.argv[3]) * 10_000 // 60
control = status["control"]
with open(sys.argv[4], encoding="utf-8") as file:
    asked, failed = map(int, file.read().split())
print(
    f"{arrived} changes arrived; a turn of the control thread: half below {control['p50_us']} µs, "
    f"99% below {control['p99_us']} µs, the longest {control['max_us']} µs; "
    f"{asked} requests of the client, {failed} failed"
)
wrong = []
if arrived < count:
    wrong.append(f"{count} changes were made")
if control["p99_us"] > 50_000:
    wrong.append("the control thread waits")
if failed or asked < 100:
    wrong.append("the client was not served")
print("FAILED etcd: " + "; ".join(wrong) if wrong else "ok etcd")
sys.exit(bool(wrong))
PYTHON
stop "$balancer"

# ---- Limits over the fleet -------------------------------------------------------------------

step 'three balancers share a limit, one of them is stopped, and etcd is killed'
fleet=()
for name in one two three; do
    free_port
    mkdir "$WORK/$name"
    cat >"$WORK/$name/config.ron" <<CONF
(
    workers: 1,
    listeners: [(name: "web", bind: "127.0.0.1:$PORT", pool: "web", fleet_max_connections: 30)],
    access_log: "off",
    fleet: (etcd: (endpoints: ["http://127.0.0.1:$MAIN"], prefix: "/limits/"),
        name: "$name", lease: "2s"),
    pools: [(name: "web", backends: ["${AT[a]}"])],
)
CONF
    start any "$name" env -C "$WORK/$name" "$MAHORAGA" run
    fleet+=("$PORT:$STARTED:$WORK/$name/mahoraga.sock")
    wait_port "$PORT" "$name"
done
python3 "$(dirname "${BASH_SOURCE[0]}")/fleet_limits.py" 30 $((LONG ? 30 : 3)) "$main" "${fleet[@]}"
