# shellcheck shell=bash disable=SC2154,SC2153 # ports are set by name, $NAME in stage.sh
# Backends that speak TLS, for scripts/tls-interop.sh: good ones, and those that must be refused.

# backend NAME PORT [MORE]: a listener without TLS, and its pool of one backend that speaks it.
backend() {
    listener "to_$1" "$1"
    pool "$1" "$2" "verify: \"ca.pem\", sni: \"$NAME\"${3:-}"
}

# Backends that speak TLS as they should, and require a certificate of ours.
good_backends() {
    local version shown name answer tls
    shown=", certificate: $(pairs alice | sed 's/,$//')"
    for version in 1.2 1.3; do
        name=s_server_${version/./_}
        port_for "$name"
        start any "$name" openssl s_server -accept "127.0.0.1:${!name}" "-tls${version/./_}" \
            -cert ecdsa.pem -key ecdsa.key -Verify 1 -CAfile ca.pem -verify_return_error -www
        wait_port "${!name}" "$name"
        backend "$name" "${!name}" "$shown"
        name=haproxy_${version/./_}
        port_for "$name"
        tls="ssl-min-ver TLSv$version ssl-max-ver TLSv$version"
        start_haproxy any "$name" "${!name}" <<CONF
    mode http
frontend in
    bind 127.0.0.1:${!name} ssl crt rsa.both $tls verify required ca-file ca.pem alpn http/1.1
    http-request return content-type text/plain \
        lf-string "%[ssl_fc_protocol] %[ssl_c_s_dn(cn)] %[ssl_fc_sni] %[ssl_fc_alpn]"
CONF
        backend "$name" "${!name}" "$shown, alpn: [\"http/1.1\"]"
        tls="ssl_certificate ed25519.pem; ssl_certificate_key ed25519.key; ssl_verify_client on;
            ssl_client_certificate ca.pem; ssl_protocols TLSv$version;"
        answer="\$ssl_protocol \$ssl_client_s_dn \$ssl_server_name"
        name=nginx_${version/./_}
        port_for "$name"
        HTTP+="server { listen 127.0.0.1:${!name} ssl; $tls return 200 \"$answer\"; }"$'\n'
        backend "$name" "${!name}" "$shown"
        name=nginx_stream_${version/./_}
        port_for "$name"
        answer="\"HTTP/1.0 200 OK\r\n\r\n$answer\""
        STREAM+="server { listen 127.0.0.1:${!name} ssl; $tls return $answer; }"$'\n'
        backend "$name" "${!name}" "$shown"
    done
}

check_good_backends() {
    local version name to resumed wanted
    for version in 1.2 1.3; do
        for name in s_server haproxy nginx nginx_stream; do
            case $name in
            # Its page is about the session, with the certificate of the client in a full handshake.
            s_server) wanted="TLSv$version, Cipher is" ;;
            haproxy) wanted="TLSv$version alice $NAME http/1.1" ;;
            *) wanted="TLSv$version CN=alice $NAME" ;;
            esac
            name+=_${version/./_}
            to=to_$name
            for resumed in false true; do
                mark
                expect "$name as a backend" "$wanted" \
                    "$(get "http://127.0.0.1:${!to}/" | grep -om 1 "$wanted")"
                expect '  in the log' "$version $resumed" \
                    "$(logged "$to" backend_tls_version) $(logged "$to" backend_tls_resumed)"
            done
        done
    done
}

# Backends that must be refused, and why.
# shellcheck disable=SC2016 # names of settings
declare -A WRONG=(
    [expired]='the certificate has expired, at 2020-03-2*'
    [early]='the certificate is not yet valid, only from 2090-01-01T00:00:00Z: *'
    [other_name]="wrong name: the certificate is for a.test, not for $NAME"
    [self_signed]='unknown issuer: none that `verify` trusts has signed the certificate'
    [other_authority]='unknown issuer: none that `verify` trusts has signed the certificate'
    # Without extensions; OpenSSL of version 3.2 and later adds some, but no name.
    [no_names]='@(the certificate is of X.509 version 1|wrong name: *for no name)*'
    [purpose]='the certificate is not one for servers'
    [issuer]='the certificate is one of an issuer (CA:TRUE), not of a server'
    [old]='protocol refused: the server takes neither TLS 1.2 nor TLS 1.3'
    [weak]='handshake refused: the server takes no cipher*'
    [clear]='the server does not speak TLS: is the port right?'
    [clients_1_2]='handshake refused: *client certificate*'
    [clients_1_3]='handshake refused: the server requires a client certificate'
)

bad_backends() {
    local names=DNS:$NAME name server
    FROM=20200101000000Z issue expired ca "$names" serverAuth
    FROM=20900101000000Z issue early ca "$names" serverAuth
    issue other_name ca DNS:a.test serverAuth
    KEY=rsa:2048 issue old ca "$names" serverAuth
    KEY=rsa:2048 issue weak ca "$names" serverAuth
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 80 \
        -subj "/CN=self" -addext "subjectAltName=$names" -addext basicConstraints=CA:FALSE \
        -keyout self_signed.key -out self_signed.pem 2>>openssl.log
    cp ecdsa.key no_names.key
    openssl x509 -req -in ecdsa.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 80 \
        -out no_names.pem 2>>openssl.log
    issue other_authority other-ca "$names" serverAuth
    issue purpose ca "$names" clientAuth
    issue issuer ca "$names" serverAuth CA:TRUE
    for name in "${!WRONG[@]}"; do
        port_for "wrong_$name"
        server="listen 127.0.0.1:$PORT ssl; ssl_certificate $name.pem;
            ssl_certificate_key $name.key;"
        case $name in
        old) server+=' ssl_protocols TLSv1.1; ssl_ciphers ALL@SECLEVEL=0;' ;;
        weak) server+=' ssl_protocols TLSv1.2; ssl_ciphers AES128-SHA;' ;;
        clear) server="listen 127.0.0.1:$PORT;" ;;
        clients_*)
            # nginx would let a client without a certificate in, and answer by status 400.
            server=
            start any "$name" openssl s_server -accept "127.0.0.1:$PORT" -Verify 1 -www \
                "-tls${name#clients_}" -cert ecdsa.pem -key ecdsa.key -CAfile ca.pem
            wait_port "$PORT" "$name"
            ;;
        esac
        [[ -z $server ]] || HTTP+="server { $server return 200 hello; }"$'\n'
        backend "wrong_$name" "$PORT"
    done
}

check_bad_backends() {
    local name to
    for name in "${!WRONG[@]}"; do
        to=to_wrong_$name
        mark
        expect "a backend that is wrong: $name" 'curl: (5[26])*' "$(get "http://127.0.0.1:${!to}/")"
        expect '  in the log' "${WRONG[$name]}" "$(logged "$to" backend_tls_error)"
    done
}

# The flags of `mahoraga proxy`, with TLS at both ends.
flags() {
    local flags
    port_for flags
    start any flags "$MAHORAGA" proxy --from "127.0.0.1:$flags" --to "tls:127.0.0.1:$web_tls" \
        --tls-cert ecdsa.pem --tls-key ecdsa.key --tls-cert rsa.pem --tls-key rsa.key \
        --tls-client-ca ca.pem --backend-ca ca.pem --backend-name "$NAME" --admin off
    wait_port "$flags" flags
    expect 'mahoraga proxy, TLS at both ends' 'hello HTTP 1.1' \
        "$(get_tls "$flags" --cert alice.pem --key alice.key)"
    expect '  4 MB through both' "$(sha256sum <big)" \
        "$(curl -sS --max-time 20 --cacert ca.pem --resolve "$NAME:$flags:127.0.0.1" \
            --cert alice.pem --key alice.key "https://$NAME:$flags/big" | sha256sum)"
    expect 'mahoraga proxy without a certificate' 'curl: *certificate required*' \
        "$(get_tls "$flags")"
}

