#!/usr/bin/env bash
# Real programs through mahoraga, each with the same result as without it: curl, wrk, iperf3,
# redis-benchmark, pgbench and psql, each against servers of its own on free ports of loopback.
#
#   scripts/real-programs.sh [curl] [wrk] [iperf3] [redis] [pgbench] [psql]   default: all
#
# Prints a line for each, `ok curl: ...`, `FAILED curl: ...` or `skipped curl: ...`, and a sum.
# Root gets missing tools by apt-get; other users skip the programs that need them. By environment:
#   CI=true         a skip counts as a failure
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
# Exits 1 when a program failed.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

declare -A TOOLS_FOR=(
    [curl]='curl nginx'
    [wrk]='wrk nginx'
    [iperf3]='iperf3 python3'
    [redis]='redis-server redis-cli redis-benchmark'
    [pgbench]='initdb postgres pgbench psql setpriv'
    [psql]='initdb postgres psql setpriv openssl'
)
WORKERS=2

# The checks run in subshells: their output is the result, and `die` is a failure.

# same WHAT EXPECTED GOT
same() { [[ -n $2 && $2 == "$3" ]] || die "$1: '$3' instead of '$2'"; }

fetch() { timeout 30 curl -fsS "$@"; }

# A download, an upload, and several URLs over one kept connection.
check_curl() {
    local root=$WORK/www direct through large small name port
    mkdir "$root"
    head -c 8000000 /dev/urandom >"$root/large"
    for name in a b c; do
        head -c 20000 /dev/urandom >"$root/$name"
    done
    start_http any "$root"
    direct=$PORT
    start_http any "$root"
    start_mahoraga any "$WORKERS" "$direct" "$PORT"
    through=$PORT
    large=$(sha256sum <"$root/large")
    small=$(cat "$root"/{a,b,c,a} | sha256sum)
    for port in $direct $through; do
        same download "$large" "$(fetch "127.0.0.1:$port/large" | sha256sum)"
        fetch -T "$root/large" "127.0.0.1:$port/uploaded-$port"
        same upload "$large" "$(sha256sum <"$root/uploaded-$port")"
        same "several URLs" "$small" "$(fetch "127.0.0.1:$port"/{a,b,c,a} | sha256sum)"
    done
    # Of the four requests the first one connects: curl prints how many connections each one made.
    same "connections" "1 0 0 0" "$(fetch -w '%{stderr}%{num_connects}\n' \
        "127.0.0.1:$through"/{a,b,c,a} 2>&1 >/dev/null | xargs)"
    echo "8 MB down and up with equal checksums, 4 URLs over 1 connection"
}

check_wrk() {
    local direct through
    start_http any "$WORK"
    direct=$(run_wrk "$ALL_CPUS" "$PORT" 64 2)
    start_mahoraga any "$WORKERS" "$PORT"
    through=$(run_wrk "$ALL_CPUS" "$PORT" 64 2)
    same "failed requests" "${direct##* }" "${through##* }"
    ((${through##* } == 0 && ${through%% *} > 0)) ||
        die "requests, rate, p50, p99, errors: $through"
    echo "${through%% *} requests over 64 connections, none failed (${direct%% *} without)"
}

check_iperf3() {
    local direct up down
    start_iperf3 any
    direct=$(run_iperf3 "$ALL_CPUS" "$PORT" 4 2)
    start_mahoraga any "$WORKERS" "$PORT"
    up=$(run_iperf3 "$ALL_CPUS" "$PORT" 4 2)
    down=$(run_iperf3 "$ALL_CPUS" "$PORT" 4 2 -R)
    ((${direct%% *} > 0 && ${up%% *} > 0 && ${down%% *} > 0)) || die "bytes: $direct, $up, $down"
    printf '%.1f Gbit/s up, %.1f down over 4 streams (%.1f up without)\n' \
        "${up##* }" "${down##* }" "${direct##* }"
}

check_redis() {
    local direct through port value counts
    free_port
    start any redis redis-server --bind 127.0.0.1 --port "$PORT" --save '' --appendonly no \
        --dir "$WORK"
    wait_port "$PORT" redis
    direct=$PORT
    start_mahoraga any "$WORKERS" "$PORT"
    through=$PORT
    value=$(head -c 150000 /dev/urandom | base64 -w 0)
    same SET OK "$(timeout 10 redis-cli -p "$through" -x SET key < <(printf %s "$value"))"
    for port in $direct $through; do
        same GET "$(sha256sum <<<"$value")" "$(timeout 10 redis-cli -p "$port" GET key | sha256sum)"
    done
    counts=$(redis_benchmark "$through")
    same redis-benchmark "$(redis_benchmark "$direct")" "$counts"
    echo "200 KB set and got back, redis-benchmark the same both ways: $counts"
}

# Prints what redis-benchmark ran and the length of the list that it left.
redis_benchmark() {
    timeout 10 redis-cli -p "$1" DEL mylist >/dev/null
    timeout 60 redis-benchmark -p "$1" -n 20000 -c 50 -t set,get,lpush,lrange_100 --csv \
        >"$WORK/redis.csv" || die "redis-benchmark on port $1 ended with $?"
    printf '%s tests, %s elements\n' "$(grep -cv '^"test"' "$WORK/redis.csv")" \
        "$(timeout 10 redis-cli -p "$1" LLEN mylist)"
}

start_postgres() {
    local data=$WORK/postgres
    local -a become=()
    mkdir "$data"
    # PostgreSQL refuses to run as root. setpriv becomes the server, so its pid is the one to end.
    if [[ $(id -u) == 0 ]]; then
        become=(setpriv --reuid postgres --regid postgres --init-groups)
        chown postgres: "$data"
        chmod 711 "$WORK" "$WORK/.."
        cd /
    fi
    "${become[@]}" initdb -D "$data" -U postgres -A trust --no-sync --no-locale -E UTF8 \
        >"$WORK/initdb.log"
    free_port
    start any postgres "${become[@]}" postgres -D "$data" -h 127.0.0.1 -p "$PORT" -k '' -F
    wait_port "$PORT" postgres
}

query() { timeout 30 psql -h 127.0.0.1 -p "$1" -U postgres -XAtc "$2"; }

check_pgbench() {
    local direct through sums rows transactions
    start_postgres
    direct=$PORT
    start_mahoraga any "$WORKERS" "$PORT"
    through=$PORT
    export PGHOST=127.0.0.1 PGPORT=$through PGUSER=postgres PGCONNECT_TIMEOUT=10
    timeout 60 pgbench -q -i -s 1 postgres 2>"$WORK/pgbench.log" || die "pgbench -i ended with $?"
    timeout 60 pgbench -c 8 -j 2 -T 3 postgres >"$WORK/pgbench.log" 2>&1 ||
        die "pgbench ended with $?"
    # -n: without the vacuum that would empty the history of the first run.
    timeout 60 pgbench -n -c 4 -C -t 20 postgres >"$WORK/pgbench.log" 2>&1 ||
        die "pgbench -C ended with $?"
    # Every transaction adds one amount to an account, a teller, a branch and the history.
    sums='select (select sum(abalance) from pgbench_accounts),
        (select sum(tbalance) from pgbench_tellers),
        (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)'
    same balances "$(query "$direct" "$sums")" "$(query "$through" "$sums")"
    same "balances to each other" 1 "$(query "$through" "$sums" | tr '|' '\n' | sort -u | wc -l)"
    rows='select * from pgbench_accounts order by aid'
    same "number of accounts" 100000 "$(query "$through" "$rows" | wc -l)"
    same "all accounts" "$(query "$direct" "$rows" | sha256sum)" \
        "$(query "$through" "$rows" | sha256sum)"
    transactions=$(query "$through" 'select count(*) from pgbench_history')
    echo "$transactions transactions, balances agree, 100000 rows equal"
}

# start_clusters NAME...: PostgreSQL servers with TLS, each with a certificate for NAME.pg.test and
# its name as cluster_name. Sets PORTS.
start_clusters() {
    local name data first=
    local -a become=()
    [[ $(id -u) != 0 ]] || become=(setpriv --reuid postgres --regid postgres --init-groups)
    PORTS=()
    for name; do
        data=$WORK/$name
        if [[ -z $first ]]; then
            mkdir "$data"
            if ((${#become[@]})); then
                chown postgres: "$data"
                chmod 711 "$WORK" "$WORK/.."
                cd /
            fi
            "${become[@]}" initdb -D "$data" -U postgres -A trust --no-sync --no-locale -E UTF8 \
                >"$WORK/initdb.log"
            first=$data
        else
            cp -a "$first" "$data"
        fi
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name.pg.test" \
            -addext "subjectAltName=DNS:$name.pg.test" -keyout "$data/server.key" \
            -out "$data/server.crt" 2>/dev/null
        cp "$data/server.crt" "$WORK/$name.crt"
        chmod 600 "$data/server.key"
        ((${#become[@]} == 0)) || chown postgres: "$data/server.key" "$data/server.crt"
    done
    for name; do
        free_port
        start any "$name" "${become[@]}" postgres -D "$WORK/$name" -h 127.0.0.1 -p "$PORT" -k '' \
            -F -c ssl=on -c "cluster_name=$name"
        PORTS+=("$PORT")
        wait_port "$PORT" "$name"
    done
}

# cluster OPTIONS: the name of the cluster that psql reaches with these.
cluster() {
    timeout 30 psql "port=$PORT hostaddr=127.0.0.1 user=postgres dbname=postgres $1" -XAtc \
        "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()"
}

# cancelled OPTIONS: what psql says of a query that it is interrupted at.
cancelled() {
    local pid i out=$WORK/cancelled
    timeout 30 psql "port=$PORT hostaddr=127.0.0.1 user=postgres dbname=postgres $1" -XAtc \
        "select 'began'" -c 'select pg_sleep(25)' >"$out" 2>&1 &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        ! grep -q began "$out" || break
        sleep 0.05
    done
    # The query must have begun too.
    sleep 0.2
    kill -s INT "$(pgrep -P "$pid" psql)"
    wait "$pid" || true
    tail -n 1 "$out"
}

# The example of docs/routing.md as it stands there, but for its addresses: of two clusters the
# second is the shop.
check_documented() {
    local name="*.db.example.com"
    free_port
    awk '/^## / { here = /^## PostgreSQL$/ } here && /^```ron/ { code = 1; next }
        code && /^```/ { exit } code' "$REPO/docs/routing.md" >"$WORK/example"
    grep -q "$name" "$WORK/example" || die "docs/routing.md has no example for $name"
    sed -e "1s/(/(workers: $WORKERS, admin: \"off\", access_log: \"off\",/" \
        -e "s/0\.0\.0\.0:5432/127.0.0.1:$PORT/" -e "s/10\.0\.0\.1:5432/127.0.0.1:${PORTS[0]}/" \
        -e "s/10\.0\.1\.1:5432/127.0.0.1:${PORTS[1]}/" -e 's/10\.0\.1\.2:5432/127.0.0.1:1/' \
        "$WORK/example" >"$WORK/example.ron"
    start any example "$MAHORAGA" run --config "$WORK/example.ron"
    wait_port "$PORT" example
    same "its name" "two|t" "$(cluster 'host=shop.db.example.com sslmode=require')"
    same "another name" "one|t" "$(cluster 'host=db.example.com sslmode=require')"
    same "cancelled by name" "$1" "$(cancelled 'host=shop.db.example.com sslmode=require')"
    for name in 'bar.db.example.com sslmode=require' 'shop.db.example.com sslmode=disable'; do
        ! cluster "host=$name" >"$WORK/refused" 2>&1 || die "$name is not refused"
    done
}

# TLS of clients that ends here, with a backend without TLS and one that is asked for it.
check_ended_tls() {
    local name
    # The balancer's user must be able to read it.
    install -m 600 "$WORK/one/server.key" "$WORK/ended.key"
    free_port
    cat >"$WORK/ended.ron" <<END
(
    workers: $WORKERS, admin: "off", access_log: (to: "off"),
    listeners: [(
        bind: "127.0.0.1:$PORT", pool: "plain", postgres_tls: "answer", postgres_cancel: true,
        tls: (certificates: [(certificate: "$WORK/one.crt", key: "$WORK/ended.key")]),
        routes: [(sni: ["two.pg.test"], pool: "asked")],
    )],
    pools: [
        (name: "plain", backends: ["127.0.0.1:${PORTS[0]}"]),
        (
            name: "asked", backends: ["127.0.0.1:${PORTS[1]}"],
            tls: (verify: "off", starttls: "postgres"), check: (type: "tcp", interval: "1s"),
        ),
    ],
)
END
    start any ended "$MAHORAGA" run --config "$WORK/ended.ron"
    wait_port "$PORT" ended
    same "ended here" "one|f" "$(cluster \
        "host=one.pg.test sslmode=verify-full sslrootcert=$WORK/one.crt")"
    same "asked for" "two|t" "$(cluster 'host=two.pg.test sslmode=require')"
    for name in one two; do
        same "cancelled where TLS ends" "$1" \
            "$(cancelled "host=$name.pg.test sslmode=require")"
    done
    ! cluster 'host=one.pg.test sslmode=disable' >"$WORK/refused" 2>&1 ||
        die "a client without TLS is not refused"
    grep -q 'FATAL:  TLS is required here' "$WORK/refused" || die "$(<"$WORK/refused")"
}

# SSL requests that are answered, and routed by the name in the hello; cancelled queries.
check_psql() {
    local want='ERROR:  canceling statement due to user request' name i
    start_clusters one two
    free_port
    cat >"$WORK/config.ron" <<END
(
    workers: $WORKERS, admin: "off", access_log: (to: "off"),
    listeners: [(
        bind: "127.0.0.1:$PORT", pool: "both", postgres_tls: "answer", postgres_cancel: true,
        routes: [(sni: ["one.pg.test"], pool: "one"), (sni: ["two.pg.test"], pool: "two")],
    )],
    pools: [
        (name: "one", backends: ["127.0.0.1:${PORTS[0]}"]),
        (name: "two", backends: ["127.0.0.1:${PORTS[1]}"]),
        (name: "both", backends: ["127.0.0.1:${PORTS[0]}", "127.0.0.1:${PORTS[1]}"]),
    ],
)
END
    start any mahoraga "$MAHORAGA" run --config "$WORK/config.ron"
    wait_port "$PORT" mahoraga
    for name in one two; do
        same "require" "$name|t" "$(cluster "host=$name.pg.test sslmode=require")"
        same "verify-full" "$name|t" "$(cluster \
            "host=$name.pg.test sslmode=verify-full sslrootcert=$WORK/$name.crt")"
    done
    same "plain text by turns" "one|f two|f" "$(for i in 1 2; do
        cluster "host=one.pg.test sslmode=disable"
    done | sort | xargs)"
    for i in 1 2; do
        same "cancelled in plain text" "$want" "$(cancelled 'sslmode=disable')"
        same "cancelled in TLS" "$want" "$(cancelled 'host=two.pg.test sslmode=require')"
    done
    check_documented "$want"
    check_ended_tls "$want"
    echo "2 clusters by name in TLS, also by the example of the document, and where it ends here;" \
        "7 queries cancelled"
}

# Runs in a subshell, which ends by itself every process that it started, even when the check fails.
isolated() {
    WORK=$WORK/$1
    PIDS=()
    trap clean_up EXIT
    trap 'exit 143' TERM
    mkdir "$WORK"
    "check_$1"
}

run_check() {
    local name=$1 missing status=0
    local -a tools
    read -ra tools <<<"${TOOLS_FOR[$name]}"
    missing=$(missing_tools "${tools[@]}" | xargs)
    if [[ -n $missing ]]; then
        echo "skipped $name: no $missing here (root gets it by apt-get)"
        skipped=$((skipped + 1))
        return
    fi
    isolated "$name" >"$WORK/$name.out" 2>"$WORK/$name.err" &
    PIDS+=($!)
    wait $! || status=$?
    PIDS=()
    if ((status == 0)); then
        echo "ok $name: $(<"$WORK/$name.out")"
        passed=$((passed + 1))
    else
        echo "FAILED $name: $(tail -n 1 "$WORK/$name.err")"
        sed 's/^/    /' "$WORK/$name.err" >&2
        failed=$((failed + 1))
    fi
}

help_if_asked "$@"
(($#)) || set -- curl wrk iperf3 redis pgbench psql
wanted=
for name; do
    [[ -n ${TOOLS_FOR[$name]:-} ]] || die "no program named $name (see --help)"
    wanted+=" ${TOOLS_FOR[$name]}"
done
read -ra tools <<<"taskset $wanted"
mapfile -t missing < <(missing_tools "${tools[@]}" | sort -u)
if ((${#missing[@]})) && can_install; then
    install_tools "${missing[@]}" || true
fi
find_mahoraga
ALL_CPUS=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)
passed=0 failed=0 skipped=0
for name; do
    run_check "$name"
done
echo "$passed passed, $failed failed$( ((skipped == 0)) || echo ", $skipped skipped")"
[[ $failed == 0 && (${CI:-} != true || $skipped == 0) ]]
