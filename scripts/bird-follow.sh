#!/bin/sh
# Has bird announce the shared addresses while the balancer is ready (scripts/bird.conf): it asks
# /readyz twice a second, and enables or disables the protocols mahoraga_4 and
# mahoraga_6, or the one of them that there is.
#
#   bird-follow.sh [ADMIN_SOCKET [BIRD_SOCKET]]
#
# It goes on until it is ended, and then withdraws them.
set -u

admin=${1:-/run/mahoraga/mahoraga.sock} bird=${2:-/run/bird/bird.ctl}
said=

# say enable|disable: each time, as bird may have been started again.
say() {
    heard=
    for protocol in mahoraga_4 mahoraga_6; do
        # Its configuration may have one of them only, or bird may not run.
        birdc -s "$bird" "$1" "$protocol" >/dev/null 2>&1 && heard=$1
    done
    [ "$heard" = "$said" ] || echo "${heard:-bird does not answer}"
    said=$heard
}

trap 'say disable; exit 0' INT TERM
while :; do
    if curl -fsS -m 1 -o /dev/null --unix-socket "$admin" http://localhost/readyz 2>/dev/null; then
        say enable
    else
        say disable
    fi
    sleep 0.5
done
