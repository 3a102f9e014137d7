#!/usr/bin/env bash
# Two balancers that share bans and sticky clients (docs/peers.md), with certificates that openssl
# makes as that page says.
#
#   scripts/peers.sh
#
# Right when a client has the same backend on the second balancer after the first one was killed
# (SIGKILL), a ban of one holds on the other within 2 s and is lifted from there, one of a trusted
# network does not hold there, and a balancer that was stopped (SIGSTOP) learns what it missed.
# Takes half a minute. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when it is not right.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
need_tools curl openssl python3
find_mahoraga
declare -A LISTEN PEER PID

# until_true SECONDS WHAT COMMAND...: waits until the command succeeds; ELAPSED_MS is how long.
until_true() {
    local seconds=$1 what=$2 began i
    shift 2
    began=$(date +%s%N)
    for ((i = 0; i < seconds * 20; i++)); do
        if "$@"; then
            ELAPSED_MS=$((($(date +%s%N) - began) / 1000000))
            return
        fi
        sleep 0.05
    done
    die "not within $seconds s: $what"
}

# certificates: an authority, and a certificate for each of two balancers.
certificates() {
    local name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -subj "/CN=mahoraga peers" -keyout "$WORK/peers-ca.key" -out "$WORK/peers-ca.pem"
    for name in lb-1.test lb-2.test; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj "/CN=$name" -keyout "$WORK/$name.key" -out "$WORK/$name.csr"
        printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$name" \
            >"$WORK/$name.ext"
        openssl x509 -req -in "$WORK/$name.csr" -CA "$WORK/peers-ca.pem" \
            -CAkey "$WORK/peers-ca.key" -CAcreateserial -days 30 -extfile "$WORK/$name.ext" \
            -out "$WORK/$name.pem"
    done
}

# backend PORT TEXT: an HTTP server that answers with the text.
backend() {
    start any "backend-$2" python3 -c "
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '1')
        self.end_headers()
        self.wfile.write(b'$2')
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('127.0.0.1', $1), Answer).serve_forever()"
    wait_port "$1" "backend-$2"
}

# balancer NUMBER [TRUSTED]: starts one.
balancer() {
    local number=$1 trusted=${2:-} name=lb-$1.test
    cat >"$WORK/$name.ron" <<END
(
    admin: "$WORK/$name.sock",
    history: (path: "memory"),
    trusted: [$trusted],
    listeners: [(bind: "127.0.0.1:${LISTEN[$number]}", pool: "web")],
    pools: [(name: "web", strategy: "random", persist: "source_ip", backends: [$BACKENDS])],
    fleet: (peers: (
        listen: "127.0.0.1:${PEER[$number]}",
        members: [
            (name: "lb-1.test", address: "127.0.0.1:${PEER[1]}"),
            (name: "lb-2.test", address: "127.0.0.1:${PEER[2]}"),
        ],
        certificate: "$WORK/$name.pem",
        key: "$WORK/$name.key",
        ca: "$WORK/peers-ca.pem",
    )),
)
END
    "$MAHORAGA" check "$WORK/$name.ron" >"$WORK/$name.check" 2>&1 ||
        die "$(cat "$WORK/$name.check")"
    start any "$name" "$MAHORAGA" run "$WORK/$name.ron"
    PID[$number]=$STARTED
    wait_port "${LISTEN[$number]}" "$name"
}

# on NUMBER COMMAND...: a command to a balancer.
on() {
    local number=$1
    shift
    "$MAHORAGA" "$@" --admin "$WORK/lb-$number.test.sock" 2>>"$WORK/commands.log"
}

# ask NUMBER ADDRESS: the backend that a client of this address has by a balancer.
ask() { curl -s --max-time 5 --interface "$2" "http://127.0.0.1:${LISTEN[$1]}/"; }

connected() { [[ $(on "$1" status | grep "^peers") == *" connected, "* ]]; }
banned() { on "$1" bans | grep -qF "$2 "; }
not_banned() { ! banned "$@"; }
# Entries that came from the other one.
entries() {
    on "$1" status --json |
        python3 -c 'import json, sys
print(json.load(sys.stdin)["peers"]["members"][0]["received"])'
}
received() { (($(entries "$1") >= $2)); }

certificates 2>"$WORK/openssl.log" || die "$(cat "$WORK/openssl.log")"
BACKENDS=
for text in 1 2 3 4; do
    free_port
    backend "$PORT" "$text"
    BACKENDS+="\"127.0.0.1:$PORT\", "
done
for number in 1 2; do
    free_port
    LISTEN[$number]=$PORT
    free_port
    PEER[$number]=$PORT
done
balancer 1
balancer 2 '"198.51.100.0/24"'
until_true 20 'the balancers are connected' connected 1
until_true 20 'the balancers are connected' connected 2
say "connected: $(on 1 status | grep '^peers')"

say 'bans'
on 1 ban 192.0.2.9 --for 1h --reason 'floods the login' >/dev/null
until_true 2 'a ban of one holds on the other' banned 2 192.0.2.9
say "a ban held on the other after $ELAPSED_MS ms"
on 1 ban 198.51.100.7 >/dev/null
on 1 ban 192.0.2.10 >/dev/null
until_true 2 'a later ban holds on the other' banned 2 192.0.2.10
banned 2 198.51.100.7 && die 'a trusted network is banned by a peer'
on 2 unban 192.0.2.9 >/dev/null
until_true 2 'it is lifted on the one that made it' not_banned 1 192.0.2.9
say "it was lifted on the one that made it after $ELAPSED_MS ms"

say 'SIGSTOP'
kill -STOP "${PID[2]}"
on 1 ban 192.0.2.11 >/dev/null
on 1 unban 192.0.2.10 >/dev/null
sleep 12
kill -CONT "${PID[2]}"
until_true 15 'it learns of the ban that it missed' banned 2 192.0.2.11
until_true 5 'it learns of the lifted ban that it missed' not_banned 2 192.0.2.10
until_true 15 'it is connected again' connected 1
until_true 15 'it is connected again' connected 2

say 'sticky clients'
declare -A HAD
BEFORE=$(entries 2)
for ((client = 1; client <= 20; client++)); do
    HAD[$client]=$(ask 1 "127.0.1.$client")
done
until_true 5 'the other one knows the clients' received 2 $((BEFORE + 20))
kill -KILL "${PID[1]}"
for ((client = 1; client <= 20; client++)); do
    now=$(ask 2 "127.0.1.$client")
    [[ $now == "${HAD[$client]}" ]] ||
        die "client $client had backend ${HAD[$client]} and has $now by the second balancer"
done
say '20 of 20 clients kept their backends after SIGKILL of their balancer'
balancer 1
until_true 20 'it is connected again' connected 1
until_true 5 'it learns of bans that it lost' banned 1 192.0.2.11
say 'peers: right'
