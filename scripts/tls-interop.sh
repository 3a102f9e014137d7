#!/usr/bin/env bash
# TLS with programs of others: clients of listeners that end it, and backends that speak it.
#
#   scripts/tls-interop.sh [clients] [backends] [browsers]     default: these three
#   scripts/tls-interop.sh --scanners                          testssl.sh and sslyze alone
#
#   clients    openssl s_client (versions, ciphers, curves, kinds of keys, names, resumption,
#              certificates of clients), curl, Python, Java, Go, HAProxy and nginx
#   backends   openssl s_server, HAProxy and nginx; and backends that must be refused, each with
#              its reason: expired, wrong name, self-signed, and so on
#   browsers   headless Chromium, with and without the authority in its store
#   --scanners both scanners on listeners of both policies: nothing above "low"; testssl.sh says
#              of a passthrough listener what it says of the server itself. Takes five minutes.
#
# Prints a line for each check, `ok ...` or `FAIL ...`, and `skipped ...` for a language that is not
# installed. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get, and sslyze by pip
#   SCANS=DIR       keep what the scanners print
# Exits 1 when a check failed.

# shellcheck disable=SC2154,SC2016 # ports are set by name; backticks are in words of the log
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
(($#)) || set -- clients backends browsers
for part; do
    [[ $part =~ ^(clients|backends|browsers|--scanners)$ ]] || die "no part named $part (--help)"
done
[[ " $* " != *' browsers '* ]] || need_tools chromium certutil
[[ " $* " != *' --scanners '* ]] || need_tools testssl
need_tools curl haproxy nginx nginx-stream openssl python3
find_mahoraga

TLS=$REPO/scripts/tls
cd "$WORK"
# shellcheck source-path=SCRIPTDIR source=tls/stage.sh
source "$TLS/stage.sh"
# shellcheck source-path=SCRIPTDIR source=tls/clients.sh
source "$TLS/clients.sh"
# shellcheck source-path=SCRIPTDIR source=tls/backends.sh
source "$TLS/backends.sh"
# shellcheck source-path=SCRIPTDIR source=tls/scanners.sh
source "$TLS/scanners.sh"

declare -A ALERTS=(
    [40]=handshake_failure [42]=bad_certificate [43]=unsupported_certificate [48]=unknown_ca
    [70]=protocol_version [112]=unrecognized_name [116]=certificate_required
    [120]=no_application_protocol
)

# ---- openssl s_client ----------------------------------------------------------------------------

# by_openssl PORT ARGUMENT...: asks for a page. Prints `New` or `Reused`, version, cipher, kind of
# signature and page; or the alert instead.
by_openssl() {
    local port=$1 alert
    local -a name=()
    shift
    [[ " $* " == *name\ * ]] || name=(-servername "$NAME")
    printf 'GET / HTTP/1.0\r\n\r\n' |
        timeout 10 openssl s_client -connect "127.0.0.1:$port" "${name[@]}" \
            -CAfile ca.pem -verify_return_error -ign_eof "$@" >s_client.out 2>&1 || true
    alert=$(sed -n 's/.*SSL alert number //p' s_client.out | head -n 1)
    if [[ -n $alert ]]; then
        echo "alert ${ALERTS[$alert]:-$alert}"
        return
    fi
    tr -d '\r' <s_client.out | awk -F ', |Cipher is |: ' '
        /^Peer signature type/ { signature = " " $2 }
        /^(New|Reused), / { agreed = $1 " " $2 " " $4 }
        /^hello/ { page = " " $0 }
        END { print agreed signature page }'
}

# command_of_openssl PORT LETTER ARGUMENT...: gives s_client a command before it asks for a page.
command_of_openssl() {
    local port=$1 letter=$2
    shift 2
    { sleep 0.2 && echo "$letter" && sleep 0.2 && printf 'GET / HTTP/1.0\r\n\r\n' && sleep 0.3; } |
        timeout 10 openssl s_client -connect "127.0.0.1:$port" -servername "$NAME" "$@" 2>&1 |
        grep -oE '^hello|no renegotiation' | paste -sd ' ' || true
}

# taken_by PORT VERSION OPTION VALUE...: those of the values that a handshake succeeds with.
taken_by() {
    local port=$1 version=$2 option=$3 value
    shift 3
    for value; do
        ! openssl s_client -connect "127.0.0.1:$port" -servername "$NAME" "$version" \
            "$option" "$value" </dev/null 2>&1 | grep '^New, TLS' >/dev/null || echo "$value"
    done | sort | paste -sd ' '
}

versions_and_ciphers() {
    local policy option weak=@SECLEVEL=0
    local every=ALL:COMPLEMENTOFALL$weak
    local -a all good good13
    good=(ECDHE-{ECDSA,RSA}-{AES128-GCM-SHA256,AES256-GCM-SHA384,CHACHA20-POLY1305})
    good13=(TLS_{AES_128_GCM_SHA256,AES_256_GCM_SHA384,CHACHA20_POLY1305_SHA256})
    for policy in modern intermediate; do
        for option in -tls1 -tls1_1 -tls1_2; do
            [[ $policy$option != intermediate-tls1_2 ]] || continue
            mark
            expect "$policy refuses $option" 'alert @(protocol_version|handshake_failure)' \
                "$(by_openssl "${!policy}" "$option" -cipher "DEFAULT$weak")"
            expect '  in the log' '*@(no version of TLS|older than TLS 1.2)*' \
                "$(logged $policy tls_error)"
        done
    done
    expect 'modern speaks 1.3' 'New TLSv1.3 TLS_* hello' "$(by_openssl "$modern")"
    expect 'intermediate speaks 1.3' 'New TLSv1.3 TLS_* hello' "$(by_openssl "$intermediate")"
    expect 'intermediate speaks 1.2' 'New TLSv1.2 ECDHE-* hello' \
        "$(by_openssl "$intermediate" -tls1_2)"
    # Every cipher that this OpenSSL can speak with TLS 1.2 and a certificate.
    mapfile -t all < <(openssl ciphers -s -tls1_2 "$every" | tr : '\n' | grep -vE '^TLS_|PSK|SRP')
    expect "of ${#all[@]} ciphers of 1.2 only AEAD with ECDHE" "${good[*]}" \
        "$(taken_by "$intermediate" -tls1_2 -cipher "${all[@]/%/$weak}" | sed "s/$weak//g")"
    for policy in modern intermediate; do
        expect "ciphers of 1.3, $policy" "${good13[*]}" \
            "$(taken_by "${!policy}" -tls1_3 -ciphersuites "${good13[@]}" \
                TLS_AES_128_CCM_SHA256 TLS_AES_128_CCM_8_SHA256)"
        expect "curves, $policy" 'P-256 P-384 X25519' "$(taken_by "${!policy}" -tls1_3 -groups \
            P-256 P-384 P-521 X25519 X448 ffdhe2048 ffdhe3072)"
    done
    expect 'a curve is asked for again' 'New TLSv1.3 * hello' \
        "$(by_openssl "$modern" -groups X448:P-256)"
    expect 'keys are updated both ways' 'hello' "$(command_of_openssl "$modern" K -tls1_3)"
    expect 'renegotiation is refused' '*no renegotiation*' \
        "$(command_of_openssl "$intermediate" R -tls1_2)"
    mark
    expect 'a client with other protocols' 'alert no_application_protocol' \
        "$(by_openssl "$modern" -alpn h2,spdy/3)"
    expect '  in the log' 'the client takes none of the protocols in `alpn`' \
        "$(logged modern tls_error)"
}

keys_and_names() {
    local version name
    for version in -tls1_2 -tls1_3; do
        expect "ECDSA key, $version" '* ECDSA hello' \
            "$(by_openssl "$intermediate" $version -sigalgs ECDSA+SHA256)"
        expect "RSA key, $version" '* RSA-PSS hello' \
            "$(by_openssl "$intermediate" $version -sigalgs RSA-PSS+SHA256:ECDSA+SHA384)"
        expect "Ed25519 key, $version" '* ed25519 hello' \
            "$(by_openssl "$intermediate" $version -sigalgs ed25519:ECDSA+SHA384)"
        for name in a.test one.b.test; do
            expect "certificate of $name, $version" '* hello' \
                "$(by_openssl "$names" $version -servername "$name" -verify_hostname "$name")"
        done
        for name in b.test two.one.b.test unknown.test; do
            expect "no certificate of $name, $version" 'alert unrecognized_name' \
                "$(by_openssl "$names" $version -servername "$name")"
        done
        expect "no name, $version" 'alert unrecognized_name' \
            "$(by_openssl "$names" $version -noservername)"
    done
}

resumption() {
    local version again
    for version in -tls1_2 -tls1_3; do
        by_openssl "$intermediate" $version -sess_out session >/dev/null
        mark
        again=$(by_openssl "$intermediate" $version -sess_in session)
        expect "resumes, $version" 'Reused * hello true' "$again $(logged intermediate tls_resumed)"
        expect "a ticket opens no other listener, $version" "New * hello" \
            "$(by_openssl "$optional" $version -sess_in session)"
        by_openssl "$required" $version -cert alice.pem -key alice.key -sess_out session >/dev/null
        mark
        by_openssl "$required" $version -sess_in session >/dev/null
        expect "who resumes is known, $version" 'true alice' \
            "$(logged required tls_resumed) $(logged required tls_client_cn)"
    done
    expect 'no early data' '*Max Early Data: 0' \
        "$(by_openssl "$modern" >/dev/null; grep -m 1 'Max Early Data' s_client.out)"
}

clients_certificates() {
    local version port refused
    for version in -tls1_2 -tls1_3; do
        for port in required optional; do
            expect "$port: right, $version" 'New * hello' \
                "$(by_openssl "${!port}" $version -cert alice.pem -key alice.key)"
            mark
            expect "$port: of another authority, $version" 'alert unknown_ca' \
                "$(by_openssl "${!port}" $version -cert mallory.pem -key mallory.key)"
            expect '  in the log' 'unknown issuer: *' "$(logged $port tls_error)"
            mark
            expect "$port: one of a server, $version" 'alert *' \
                "$(by_openssl "${!port}" $version -cert ecdsa.pem -key ecdsa.key)"
            expect '  in the log' '* is not one for clients' "$(logged $port tls_error)"
        done
        mark
        refused=$(by_openssl "$required" $version)
        expect "required: none, $version" 'alert *' "$refused"
        expect '  in the log' 'the client has shown no certificate' "$(logged required tls_error)"
        expect "optional: none, $version" 'New * hello' "$(by_openssl "$optional" $version)"
    done
}

# ---- All of it -----------------------------------------------------------------------------------

make_certificates
HTTP=
STREAM=
http1='alpn: ["http/1.1"], certificates: ['
if [[ " $* " == *' backends '* ]]; then
    good_backends
    bad_backends
fi
start_web "$HTTP" "$STREAM"
pool web "$plain"
listener modern web "policy: \"modern\", $http1$(pairs ecdsa rsa ed25519)]"
listener intermediate web "$http1$(pairs ecdsa rsa ed25519)]"
listener names web "unknown_name: \"refuse\", $http1$(pairs a wild)]"
for clients in required optional; do
    listener $clients web \
        "$http1$(pairs ecdsa)], clients: (ca: \"ca.pem\", certificate: \"$clients\")"
done
listener h2 web_h2 "alpn: [\"h2\"], certificates: [$(pairs ecdsa)]"
pool web_h2 "$plain_h2"
listener h2_both web_tls_h2 "alpn: [\"h2\"], certificates: [$(pairs ecdsa)]"
pool web_tls_h2 "$web_tls" "verify: \"ca.pem\", sni: \"$NAME\", alpn: [\"h2\"]"
listener passthrough web_tls
pool web_tls "$web_tls"
# For the scanners, certificates that Mozilla recommends.
listener scan_modern web "policy: \"modern\", $http1$(pairs ecdsa)]"
listener scan_intermediate web "$http1$(pairs ecdsa rsa)]"
start_balancer
expect 'curl through a passthrough listener' 'hello HTTP 2' "$(get_tls "$passthrough")"
for part; do
    case $part in
    clients)
        versions_and_ciphers
        keys_and_names
        resumption
        clients_certificates
        by_curl
        by_languages
        by_proxies
        ;;
    backends)
        check_good_backends
        check_bad_backends
        flags
        ;;
    browsers) browsers ;;
    --scanners) scanners ;;
    esac
done
((FAILURES == 0)) || die "$FAILURES checks failed"
echo "ok   tls-interop in $SECONDS s"
