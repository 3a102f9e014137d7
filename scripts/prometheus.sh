#!/usr/bin/env bash
# Has a real Prometheus scrape a balancer under load over its listener for metrics, evaluate
# alerts.yml, and answer every query of grafana.json. It takes some 15 seconds.
#
#   scripts/prometheus.sh
#
# Needs prometheus with promtool, nginx, wrk, curl, openssl and python3 (INSTALL=1: gets them as
# root).

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source loadtest/lib.sh
help_if_asked "$@"
need_tools prometheus promtool nginx nginx-stream wrk curl openssl python3
find_mahoraga

promtool check rules scripts/alerts.yml >/dev/null || die 'promtool finds mistakes in alerts.yml'
promtool test rules scripts/alerts.test.yml >/dev/null || die 'rules do not alert as they should'

start_http any "$WORK"
backend=$PORT backend_pid=$STARTED
free_port
front=$PORT
free_port
secure=$PORT
free_port
metrics=$PORT
free_port
prometheus=$PORT
(umask 077 && head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$WORK/token")
(umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
    -subj / -addext subjectAltName=DNS:localhost \
    -keyout "$WORK/tls.key" -out "$WORK/tls.pem" 2>/dev/null)
cat >"$WORK/config.ron" <<RON
(
    access_log: "off", admin: (socket: "$WORK/mahoraga.sock"),
    metrics: (bind: "0.0.0.0:$metrics", allow: ["127.0.0.0/8"], read_token: "$WORK/token"),
    listeners: [
        (name: "front", bind: "127.0.0.1:$front", pool: "web"),
        (name: "secure", bind: "127.0.0.1:$secure", pool: "web",
            tls: (certificates: [(certificate: "$WORK/tls.pem", key: "$WORK/tls.key")])),
    ],
    pools: [(name: "web", check: (type: "tcp", interval: "200ms", fall: 1),
        queue: (max: 100), max_connections: 4, backends: ["127.0.0.1:$backend"])],
)
RON
start any mahoraga "$MAHORAGA" run "$WORK/config.ron"
wait_port "$front" mahoraga
start any wrk wrk -t 1 -c 8 -d 60 -H 'Connection: close' "http://127.0.0.1:$front/small"
start any wrk-tls wrk -t 1 -c 2 -d 60 -H 'Connection: close' "https://127.0.0.1:$secure/small"

# What a scraper without the token gets, and what the text looks like.
url=http://127.0.0.1:$metrics
status=$(curl -sS -o /dev/null -w '%{http_code}' "$url/metrics")
[[ $status == 401 ]] || die "/metrics without a token: $status instead of 401"
curl -fs --retry 20 --retry-delay 1 "$url/readyz" >/dev/null || die '/readyz does not answer'
curl -fsS -H "Authorization: Bearer $(<"$WORK/token")" "$url/metrics" >"$WORK/metrics.txt"
promtool check metrics <"$WORK/metrics.txt" || die 'promtool finds mistakes in /metrics'

cat >"$WORK/prometheus.yml" <<YML
global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }
rule_files: ["$PWD/scripts/alerts.yml"]
scrape_configs:
  - job_name: mahoraga
    static_configs: [{ targets: ["127.0.0.1:$metrics"] }]
    authorization: { credentials_file: "$WORK/token" }
YML
promtool check config "$WORK/prometheus.yml" >/dev/null || die 'a wrong prometheus.yml'
start any prometheus prometheus --config.file="$WORK/prometheus.yml" \
    --storage.tsdb.path="$WORK/tsdb" --web.listen-address="127.0.0.1:$prometheus"
wait_port "$prometheus" prometheus

# The server goes away at the end, which the rules must notice.
python3 scripts/prometheus_queries.py "http://127.0.0.1:$prometheus" scripts/grafana.json \
    "$backend_pid" || die 'Prometheus has not what it should have'
