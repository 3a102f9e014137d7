#!/usr/bin/env bash
# PROXY protocol with programs of others: each must see the client, which connects from 127.0.0.77.
#
#   scripts/interop.sh
#
# HAProxy, nginx (http and stream), Apache, Varnish and Dovecot read the headers that mahoraga
# writes, of both versions. HAProxy, nginx and curl write headers that mahoraga reads, with what TLS
# shows of a client in TLVs. In between it passes on to a server that says whom it saw. Takes half a
# minute. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when a program saw another client.

# shellcheck disable=SC2154 # ports are set by name
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
need_tools apache2 curl dovecot haproxy nginx nginx-stream openssl python3 varnishd
find_mahoraga

CLIENT=127.0.0.77
ME="$(id -un)"

# expect WANT WHAT GOT
expect() {
    [[ $3 == "$1" ]] || die "$2: expected '$1', got '$3'"
    echo "ok  $2: $3"
}

# Asks as the client; more arguments are curl's.
ask() {
    local port=$1
    shift
    curl -sS --max-time 10 --interface "$CLIENT" "$@" "http://127.0.0.1:$port/" || true
}

# What a server says to the client, who sends nothing.
listen_to() {
    python3 - "$CLIENT" "$1" <<'PYTHON'
import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[2])), 10, (sys.argv[1], 0)) as client:
    print(client.makefile().read())
PYTHON
}

# port_for NAME: a free port, in the variable of this name.
port_for() {
    free_port
    while [[ " ${TAKEN:-} " == *" $PORT "* ]]; do free_port; done
    TAKEN="${TAKEN:-} $PORT"
    printf -v "$1" '%s' "$PORT"
}

# ---- Programs that read headers ---------------------------------------------------------------

port_for haproxy_in
port_for haproxy_tlvs
seen_tlvs='%[src] %[fc_pp_authority] %[fc_pp_unique_id]'
cat >"$WORK/haproxy-in.cfg" <<CONF
defaults
    mode http
    timeout client 10s
frontend reads
    bind 127.0.0.1:$haproxy_in
    tcp-request connection expect-proxy layer4 if { src 127.0.0.1 }
    http-request return content-type text/plain lf-string "%[src]"
frontend reads-tlvs
    bind 127.0.0.1:$haproxy_tlvs accept-proxy
    http-request return content-type text/plain lf-string "$seen_tlvs"
CONF
start any haproxy-in haproxy -db -f "$WORK/haproxy-in.cfg"
wait_port "$haproxy_in" haproxy-in

port_for nginx_http
port_for nginx_stream
for kind in client_body proxy fastcgi uwsgi scgi; do
    temp+="${kind}_temp_path $WORK/nginx-$kind; "
done
start_nginx any nginx-in "$nginx_http" <<CONF
http {
    $temp
    access_log off;
    server {
        listen 127.0.0.1:$nginx_http proxy_protocol;
        set_real_ip_from 127.0.0.0/8;
        real_ip_header proxy_protocol;
        location / { return 200 "\$remote_addr"; }
    }
}
stream {
    server {
        listen 127.0.0.1:$nginx_stream proxy_protocol;
        return "\$proxy_protocol_addr";
    }
}
CONF

port_for apache
mkdir "$WORK/htdocs"
echo apache >"$WORK/htdocs/index.html"
{
    for module in mpm_event authz_core dir headers remoteip; do
        echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
    done
    cat <<CONF
ServerName localhost
PidFile $WORK/apache.pid
ErrorLog /dev/stderr
User $ME
Group $(id -gn)
Listen 127.0.0.1:$apache
DocumentRoot $WORK/htdocs
RemoteIPProxyProtocol On
Header set X-Client "expr=%{REMOTE_ADDR}"
CONF
} >"$WORK/apache.conf"
# A child process of root's needs a user that is not root.
if [[ $(id -u) == 0 ]]; then
    sed -i "s/^User .*/User www-data/; s/^Group .*/Group www-data/" "$WORK/apache.conf"
    chmod 711 "$WORK"
fi
start any apache apache2 -DFOREGROUND -d "$WORK" -f "$WORK/apache.conf"
wait_port "$apache" apache

port_for varnish
cat >"$WORK/varnish.vcl" <<'CONF'
vcl 4.1;
backend none none;
sub vcl_recv { return (synth(200)); }
sub vcl_synth {
    synthetic(client.ip);
    return (deliver);
}
CONF
start any varnish varnishd -F -j none -n "$WORK/varnish" -f "$WORK/varnish.vcl" \
    -a "127.0.0.1:$varnish,PROXY" -s default,1m
wait_port "$varnish" varnish

port_for dovecot
# It runs as one user alone, or as root with these.
internal=$ME login=$ME
[[ $(id -u) != 0 ]] || internal=dovecot login=dovenull
cat >"$WORK/dovecot.conf" <<CONF
base_dir = $WORK/dovecot
state_dir = $WORK/dovecot
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
haproxy_trusted_networks = 127.0.0.0/8
login_trusted_networks =
default_internal_user = $internal
default_internal_group = $internal
default_login_user = $login
service imap-login {
    chroot =
    inet_listener imap {
        port = $dovecot
        haproxy = yes
    }
    inet_listener imaps {
        port = 0
    }
}
service anvil {
    chroot =
}
passdb {
    driver = static
    args = password=secret
}
CONF
start any dovecot dovecot -F -c "$WORK/dovecot.conf"
wait_port "$dovecot" dovecot

# ---- mahoraga ----------------------------------------------------------------------------------

listeners=
pools=
# route NAME BACKEND SEND ACCEPT: a listener that accepts headers or not, and its pool.
route() {
    local accept=
    port_for "$1"
    [[ -z $4 ]] || accept="accept_proxy: [\"$4\"], "
    listeners+="(name: \"$1\", bind: \"127.0.0.1:$PORT\", ${accept}pool: \"$1\"),"$'\n'
    pools+="(name: \"$1\", send_proxy: $3, backends: [\"127.0.0.1:$2\"]),"$'\n'
}

readers=(haproxy_in nginx_http nginx_stream apache varnish dovecot)
for version in v1 v2; do
    for reader in "${readers[@]}"; do
        route "to_${reader}_$version" "${!reader}" "\"$version\"" ''
    done
    route "relay_$version" "$nginx_http" "\"$version\"" 127.0.0.0/8
done
with_tlvs='(version: "v2", tlvs: ["unique_id", "crc32c"], relay: true)'
route relay_tlvs "$haproxy_tlvs" "$with_tlvs" 127.0.0.0/8
cat >"$WORK/config.ron" <<CONF
(
    workers: 2,
    access_log: (to: "$WORK/access.log", format: "json"),
    listeners: [$listeners],
    pools: [$pools],
)
CONF
start any mahoraga env -C "$WORK" "$MAHORAGA" run
balancer=$STARTED
wait_port "$relay_tlvs" mahoraga

for version in v1 v2; do
    for reader in haproxy_in nginx_http varnish; do
        name="to_${reader}_$version"
        expect "$CLIENT" "$reader reads $version" "$(ask "${!name}")"
    done
    name="to_nginx_stream_$version"
    expect "$CLIENT" "nginx_stream reads $version" "$(listen_to "${!name}")"
    name="to_apache_$version"
    seen=$(ask "${!name}" -o /dev/null -D - | tr -d '\r' | sed -n 's/^X-Client: //p')
    expect "$CLIENT" "apache reads $version" "$seen"
    name="to_dovecot_$version"
    printf 'a logout\r\n' |
        curl -sS --max-time 10 --interface "$CLIENT" "telnet://127.0.0.1:${!name}" \
            >"$WORK/imap-$version" 2>&1 || true
done
for ((i = 0; i < 100; i++)); do
    mapfile -t logins < <(grep -o "rip=[0-9.]*" "$WORK/dovecot.log" || true)
    ((${#logins[@]} < 2)) || break
    sleep 0.05
done
expect "rip=$CLIENT rip=$CLIENT" 'dovecot reads v1 and v2' "${logins[*]:-}"

# ---- Programs that write headers --------------------------------------------------------------

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bob \
    -keyout "$WORK/key.pem" -out "$WORK/cert.pem" 2>/dev/null
cat "$WORK/cert.pem" "$WORK/key.pem" >"$WORK/both.pem"
front=
writers=(v1 v2 ssl)
cat >"$WORK/haproxy-out.cfg" <<CONF
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
CONF
for writer in "${writers[@]}"; do
    port_for front
    printf -v "haproxy_$writer" '%s' "$front"
    case $writer in
    v1) tls='' options=send-proxy target=$relay_v1 ;;
    v2) tls='' options=send-proxy-v2 target=$relay_v2 ;;
    ssl)
        tls="ssl crt $WORK/both.pem ca-file $WORK/cert.pem verify optional alpn http/1.1"
        options='send-proxy-v2-ssl-cn proxy-v2-options'
        options+=' authority,ssl,cert-cn,ssl-cipher,cert-key,cert-sig,unique-id,crc32c'
        target=$relay_tlvs
        ;;
    esac
    cat >>"$WORK/haproxy-out.cfg" <<CONF
listen $writer
    bind 127.0.0.1:$front $tls
    unique-id-format id-of-haproxy
    server mahoraga 127.0.0.1:$target $options
CONF
done
start any haproxy-out haproxy -db -f "$WORK/haproxy-out.cfg"
wait_port "$front" haproxy-out

port_for nginx_out
start_nginx any nginx-out "$nginx_out" <<CONF
stream {
    server {
        listen 127.0.0.1:$nginx_out;
        proxy_pass 127.0.0.1:$relay_v1;
        proxy_protocol on;
    }
}
CONF

{
    expect "$CLIENT" 'haproxy writes v1' "$(ask "$haproxy_v1")"
    expect "$CLIENT" 'haproxy writes v2' "$(ask "$haproxy_v2")"
    as_bob=(--cert "$WORK/cert.pem" --key "$WORK/key.pem" --cacert "$WORK/cert.pem" --insecure)
    seen=$(curl -sS --max-time 10 --interface "$CLIENT" "${as_bob[@]}" \
        --resolve "shop.example:$haproxy_ssl:127.0.0.1" \
        "https://shop.example:$haproxy_ssl/" || true)
    # Its address; the name that it asked HAProxy for, as that says it; the id of the session here.
    [[ $seen =~ ^$CLIENT\ shop\.example\ [0-9]+-[0-9]+$ ]] ||
        die "haproxy writes v2 with TLVs: got '$seen'"
    echo "ok  haproxy writes v2 with TLVs: $seen"
}
expect "$CLIENT" 'nginx writes v1' "$(ask "$nginx_out")"
expect "$CLIENT" 'curl writes v1' "$(ask "$relay_v2" --haproxy-protocol)"
# The flags of `mahoraga proxy` do the same.
port_for flags
start any flags "$MAHORAGA" proxy --from "127.0.0.1:$flags" --to "127.0.0.1:$nginx_http" \
    --accept-proxy 127.0.0.77 --send-proxy v2 --admin off
wait_port "$flags" flags
expect "$CLIENT" 'curl writes v1 to mahoraga proxy' "$(ask "$flags" --haproxy-protocol)"
# A client that sends no header where one is required gets no answer.
expect '' 'a client without a header' "$(ask "$flags" 2>/dev/null)"

# ---- What mahoraga knew --------------------------------------------------------------------------

stop "$balancer"
python3 - "$WORK/access.log" "$CLIENT" <<'PYTHON'
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    lines = [json.loads(line) for line in file]
others = [line for line in lines if line["client"].rsplit(":", 1)[0] != sys.argv[2]]
relayed = [line for line in lines if line["listener"].startswith("relay")]
assert len(lines) >= 16 and len(relayed) >= 4, len(lines)
assert not others, others
print(f"ok  access log: {len(lines)} sessions, all of {sys.argv[2]}")
PYTHON
echo 'ok interop'
