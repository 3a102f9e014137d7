#!/bin/sh
# Whether the balancer answers, for vrrp_script of keepalived (scripts/keepalived.conf).
#
#   keepalived-check.sh [SOCKET]
#
# It asks /healthz, not /readyz: a balancer that leaves is not ready, and is to keep its addresses
# until the other one has them.
exec curl -fsS -m 1 -o /dev/null --unix-socket "${1:-/run/mahoraga/mahoraga.sock}" \
    http://localhost/healthz
