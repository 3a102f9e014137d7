#!/bin/sh
# Lets sessions go on when a shared address moves to another balancer (docs/failover.md).
#
#   keepalived-handover.sh start INTERFACE ADDRESSES PEERS
#   keepalived-handover.sh stop INTERFACE ADDRESSES
#   keepalived-handover.sh notify INTERFACE ADDRESSES PEERS TYPE NAME STATE PRIORITY
#
# Lists have commas. ADDRESSES are those that move, PEERS the other machines' own, on INTERFACE.
#
# Packets of a session come to whichever machine has the address. It sends those of sessions that
# it does not know to its peers, and drops them: the one that has the session answers the client
# itself, as the address stays its own by a local route. ARP is not answered for that route. A
# packet that came from a peer has the DSCP 63, and is not sent on.
set -eu

# How long conntrack remembers connections that have ended, or have not begun.
ENDED_S=2

do=$1 interface=$2 addresses=$3 peers=${4:-}

# of FAMILY LIST: those of 4 or 6, with spaces.
of() {
    for one in $(echo "$2" | tr , ' '); do
        case $one in
        *:*) [ "$1" != 6 ] || printf '%s ' "$one" ;;
        *) [ "$1" != 4 ] || printf '%s ' "$one" ;;
        esac
    done
}

# table FAMILY: the name of the family for nft, and of its header.
table() { [ "$1" = 4 ] && echo ip || echo ip6; }

routes() {
    for address in $(of 4 "$addresses"); do
        ip route "$1" local "$address" dev lo table local
    done
    for address in $(of 6 "$addresses"); do
        ip -6 route "$1" local "$address" dev lo table local
    done
}

rules() {
    family=$1 ip=$(table "$1")
    own=$(of "$family" "$addresses") others=$(of "$family" "$peers")
    [ -n "$own" ] && [ -n "$others" ] || return 0
    # What no peer knows: the last one answers by RST, where there is one peer only. Of several each
    # would reset the sessions of the others.
    [ "$(echo "$others" | wc -w)" = 1 ] && last=accept || last=drop
    printf 'table %s mahoraga_handover\ndelete table %s mahoraga_handover\n' "$ip" "$ip"
    printf 'table %s mahoraga_handover {\n    chain unknown {\n' "$ip"
    printf '        %s dscp 63 %s\n        %s dscp set 63\n' "$ip" "$last" "$ip"
    for peer in $others; do
        printf '        dup to %s device "%s"\n' "$peer" "$interface"
    done
    printf '        drop\n    }\n    chain prerouting {\n'
    printf '        type filter hook prerouting priority mangle\n'
    printf '        %s daddr { %s } tcp flags & (syn | ack | rst | fin) != syn ct state new ' \
        "$ip" "$(echo "$own" | sed 's/ *$//; s/ /, /g')"
    printf 'goto unknown\n    }\n}\n'
}

start() {
    # A machine answers ARP for what is on the interface alone, and asks with its own address.
    sysctl -qw "net.ipv4.conf.$interface.arp_ignore=1" "net.ipv4.conf.$interface.arp_announce=2"
    routes replace
    { rules 4; rules 6; } | nft -f -
    # Sessions that conntrack sees in their middle count as new, not as invalid. A client may use a
    # port again for a session with another balancer: a session that has ended must not be known.
    sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1
    for state in time_wait close last_ack syn_sent syn_recv; do
        sysctl -qw "net.netfilter.nf_conntrack_tcp_timeout_$state=$ENDED_S"
    done
}

# Whether a peer is there.
is_there() {
    for peer in $(echo "$peers" | tr , ' '); do
        ! ping -c 1 -W 1 "$peer" >/dev/null 2>&1 || return 0
    done
    return 1
}

case $do in
start) start ;;
stop)
    nft delete table ip mahoraga_handover 2>/dev/null || true
    nft delete table ip6 mahoraga_handover 2>/dev/null || true
    routes delete
    ;;
notify)
    case ${7:-} in
    # Sessions of a machine that is gone are to be reset, not to wait.
    MASTER) is_there || for ip in ip ip6; do
        nft flush chain $ip mahoraga_handover prerouting 2>/dev/null || true
    done ;;
    *) start ;;
    esac
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
