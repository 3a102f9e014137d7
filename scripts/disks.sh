#!/usr/bin/env bash
# What disks do to a history, by real file systems: a disk that is full, one that is frozen, and a
# directory that can't be written. In each case requests through the balancer and answers of its API
# go on, `mahoraga status` says what is wrong, and the history has what came meanwhile once the disk
# works again. It takes some 25 seconds.
#
#   scripts/disks.sh
#
# Needs root, for mounts of its own namespace and a loop device; without them it says that it skips
# all. Needs curl, python3, mkfs.ext4 and fsfreeze (INSTALL=1: gets them as root). By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)

set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} != -* ]]; then
    if [[ $(id -u) != 0 ]]; then
        echo 'NOT CHECKED: a history on a full, a frozen and a read-only disk (only root may mount)'
        exit 0
    fi
    # Mounts end with the last process that sees them, however this script ends.
    if [[ -z ${DISKS_APART:-} ]]; then
        if ! refused=$(unshare --mount --propagation private true 2>&1); then
            echo "NOT CHECKED: a history on a full, a frozen and a read-only disk ($refused)"
            exit 0
        fi
        DISKS_APART=1 exec unshare --mount --propagation private "$0"
    fi
fi
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source loadtest/lib.sh
help_if_asked "$@"
need_tools curl python3 mkfs.ext4 fsfreeze
find_mahoraga

# A process that is killed leaves a frozen file system, which can't be unmounted: another one, in a
# session of its own, thaws it later than any wait for what a frozen one does ends.
FROZEN_MAX=60
thawer=

freeze() {
    # It holds no output that a reader of this script waits for.
    setsid sh -c "sleep $FROZEN_MAX; fsfreeze -u '$1'" >/dev/null 2>&1 </dev/null &
    thawer=$!
    disown "$thawer"
    fsfreeze -f "$1"
}

thaw() {
    # The other process may have done it.
    fsfreeze -u "$1" || true
    kill -- "-$thawer" 2>/dev/null || true
    thawer=
}

# What clean_up of lib.sh removes must be neither frozen nor mounted.
end() {
    trap - EXIT
    [[ -z $thawer ]] || thaw "$WORK/disk" || true
    stop_all
    for place in "$WORK"/{disk,closed}; do
        ! mountpoint -q "$place" || umount "$place" || umount -l "$place"
    done
    clean_up
}
trap end EXIT

# Clients, one after the other, each with a connection of its own, and questions to the API: each
# line of its output is one that was answered rightly, or why not.
cat >"$WORK/clients.py" <<'PYTHON'
import http.client, socket, sys, threading, time

front, api = int(sys.argv[1]), sys.argv[2]


def say(text):
    print(text, flush=True)


def traffic():
    while True:
        try:
            with socket.create_connection(("127.0.0.1", front), 3) as client:
                client.sendall(b"ping")
                right = client.recv(4) == b"ping"
            say("request" if right else "wrong: another answer than the backend's")
        except OSError as error:
            say(f"wrong: a request: {error}")
        time.sleep(0.02)


class Api(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(8)
        self.sock.connect(api)


threading.Thread(target=traffic, daemon=True).start()
while True:
    for path in ("/v1/status", "/v1/history?since=10m", "/v1/history/events"):
        try:
            connection = Api("mahoraga")
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            say("answer" if answer.status == 200 else f"wrong: {path}: {answer.status}")
            connection.close()
        except OSError as error:
            say(f"wrong: {path}: {error}")
    time.sleep(0.05)
PYTHON

# begin NAME DIRECTORY: a balancer whose history is in this directory, and its clients.
begin() {
    local front
    start_echo any
    local backend=$PORT
    free_port
    front=$PORT
    cat >"$WORK/$1.ron" <<RON
(
    workers: 1, access_log: "off", admin: (socket: "$WORK/$1.sock"),
    history: "$2/history.db",
    listeners: [(name: "front", bind: "127.0.0.1:$front", pool: "p")],
    pools: [(name: "p", backends: ["127.0.0.1:$backend"])],
)
RON
    start any "$1" "$MAHORAGA" run "$WORK/$1.ron"
    wait_port "$front" "$1"
    start any "clients-$1" python3 "$WORK/clients.py" "$front" "$WORK/$1.sock"
}

# What the API says, of a path.
api() { curl -fsS --max-time 8 --unix-socket "$WORK/$1.sock" "http://mahoraga$2"; }

# until_says NAME PATH TEXT: the API says so within 20 s.
until_says() {
    local i answer=
    for ((i = 0; i < 100; i++)); do
        answer=$(api "$1" "$2") || true
        [[ $answer != *"$3"* ]] || return 0
        sleep 0.2
    done
    log_of "$1"
    die "$1: $2 never says '$3', but: ${answer:0:2000}"
}

answers() { grep -c "^$2" "$WORK/clients-$1.log" || true; }

# goes_on NAME WHAT: clients are served and the API answers from now on; none failed before.
goes_on() {
    local i kind before wrong
    for kind in request answer; do
        before=$(answers "$1" "$kind")
        for ((i = 0; i < 100; i++)); do
            (($(answers "$1" "$kind") < before + 10)) || continue 2
            sleep 0.1
        done
        log_of "$1"
        die "$1: no more of '$kind' while the disk is $2"
    done
    ! wrong=$(grep -m 3 '^wrong' "$WORK/clients-$1.log") || die "$1: while the disk is $2: $wrong"
    echo "ok $1: clients and the API do not notice that the disk is $2"
}

# restored NAME TIMES: the file is written again, and no alert is left.
restored() {
    local i events
    for ((i = 0; i < 100; i++)); do
        events=$(api "$1" '/v1/history/events?since=10m' | grep -o '"history_restored"' || true)
        events=$(wc -w <<<"$events")
        ((events < $2)) || break
        sleep 0.2
    done
    ((events >= $2)) || die "$1: the history is not kept in its file again"
    until_says "$1" /v1/status '"alerts":[]'
}

# A disk that is full, and then frozen.
truncate -s 24M "$WORK/image"
mkfs.ext4 -q -m 0 "$WORK/image"
mkdir "$WORK/disk" "$WORK/closed"
if ! refused=$(mount -o loop "$WORK/image" "$WORK/disk" 2>&1); then
    echo "NOT CHECKED: a history on a full, a frozen and a read-only disk ($refused)"
    exit 0
fi
begin disk "$WORK/disk"
# A directory that can't be written, as that of another mount.
mount -t tmpfs -o size=16m tmpfs "$WORK/closed"
mount -o remount,ro "$WORK/closed"
begin closed "$WORK/closed"

until_says closed /v1/status 'cannot keep the history in'
goes_on closed read-only

until_says disk '/v1/history?since=10m' '"worker_accepted"'
cat /dev/zero >"$WORK/disk/filler" 2>/dev/null || true
until_says disk /v1/status 'the disk is full'
goes_on disk full
rm "$WORK/disk/filler"
restored disk 1

mount -o remount,rw "$WORK/closed"
restored closed 1

freeze "$WORK/disk"
until_says disk /v1/status 'no answer yet'
goes_on disk frozen
thaw "$WORK/disk"
until_says disk /v1/status '"alerts":[]'

# Nothing of all that is missing: each second has something.
for name in disk closed; do
    api "$name" '/v1/history?since=10m&step=1s&of=process&figures=ready' >"$WORK/history.json"
    python3 - "$WORK/history.json" "$name" <<'PYTHON'
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    ready = json.load(file)["subjects"][0]["figures"]["ready"]["mean"]
there = [place for place, value in enumerate(ready) if value is not None]
gaps = there[-1] - there[0] + 1 - len(there)
if len(there) < 10 or gaps > 1:
    sys.exit(f"disks.sh: {sys.argv[2]}: {gaps} of {len(there)} seconds are missing")
PYTHON
done
for name in disk closed; do
    goes_on "$name" 'in order'
done
echo 'all is right'
