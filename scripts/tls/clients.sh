# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154,SC2016 # ports are set by name; words have backticks
# Clients other than s_client, for scripts/tls-interop.sh.

get() { curl -sS --max-time 10 "$@" 2>&1 || true; }

# get_tls PORT CURL_ARGUMENT...: prints the page and the version of HTTP.
get_tls() {
    local port=$1
    shift
    get --cacert ca.pem --resolve "$NAME:$port:127.0.0.1" -w 'HTTP %{http_version}' "$@" \
        "https://$NAME:$port/" | paste -sd ' '
}

by_curl() {
    local version
    for version in 1.2 1.3; do
        mark
        expect "curl, $version" 'hello HTTP 1.1' \
            "$(get_tls "$intermediate" --tlsv$version --tls-max $version)"
        expect '  in the log' "$version http/1.1" \
            "$(logged intermediate tls_version) $(logged intermediate tls_alpn)"
    done
    expect 'curl, HTTP/2 by ALPN' 'hello HTTP 2' "$(get_tls "$h2")"
    expect 'curl, HTTP/2 by ALPN at both ends' 'hello HTTP 2' "$(get_tls "$h2_both")"
    expect 'curl with a certificate' 'hello HTTP 1.1' \
        "$(get_tls "$required" --cert alice.pem --key alice.key)"
    mark
    expect 'curl that does not trust us' 'curl: (60)*' \
        "$(get_tls "$modern" --cacert other-ca.pem)"
    expect '  in the log' 'the client sent the alert `unknown_ca`: *' "$(logged modern tls_error)"
}

# by_language NAME COMMAND...: a client as client.py, with the identity in $IDENTITY.
by_language() {
    local name=$1 ask='http/1.1 hello'
    shift
    mark
    expect "$name" "TLSv1.2 $ask, TLSv1.2 $ask, TLSv1.3 $ask, TLSv1.3 $ask, TLSv1.3 $ask, refused" \
        "$("$@" ca.pem other-ca.pem "${IDENTITY:-alice.both}" "$intermediate" "$required" 2>&1 |
            paste -sd , | sed 's/,/, /g')"
    expect '  resumes, in the log' 'false true false true*' \
        "$(logged intermediate tls_resumed 5)"
    expect '  is known, in the log' alice "$(logged required tls_client_cn)"
}

by_languages() {
    by_language Python python3 "$TLS/client.py"
    if command -v javac >/dev/null; then
        openssl pkcs12 -export -in alice.both -out alice.p12 -passout pass:secret
        IDENTITY=alice.p12 by_language Java java "$TLS/Client.java"
    else
        echo 'skipped Java (no JDK here)'
    fi
    if command -v go >/dev/null; then
        GOCACHE=$WORK/go GO111MODULE=off by_language Go go run "$TLS/client.go"
    else
        echo 'skipped Go (it is not here)'
    fi
}

# Proxies of others that speak TLS with us, and verify our certificate.
by_proxies() {
    local name proxy again ours temp=
    ours='ssl verify required ca-file ca.pem alpn http/1.1 crt alice.both'
    for name in haproxy haproxy_wrong nginx nginx_wrong nginx_stream; do
        port_for "by_$name"
    done
    start_haproxy any by-haproxy "$by_haproxy" <<CONF
    mode http
    option httpclose
listen right
    bind 127.0.0.1:$by_haproxy
    server s 127.0.0.1:$required $ours sni str($NAME)
listen wrong
    bind 127.0.0.1:$by_haproxy_wrong
    server s 127.0.0.1:$required $ours sni str(other.test)
CONF
    ours="proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem;
        proxy_ssl_server_name on; proxy_ssl_certificate alice.pem;
        proxy_ssl_certificate_key alice.key;"
    for name in client_body proxy fastcgi uwsgi scgi; do
        temp+="${name}_temp_path $WORK/by-nginx-$name; "
    done
    start_nginx any by-nginx "$by_nginx" <<CONF
http {
    $temp
    access_log off;
    $ours
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    server {
        listen 127.0.0.1:$by_nginx;
        location / { proxy_pass https://127.0.0.1:$required; proxy_ssl_name $NAME; }
    }
    server {
        listen 127.0.0.1:$by_nginx_wrong;
        location / { proxy_pass https://127.0.0.1:$required; proxy_ssl_name other.test; }
    }
}
stream {
    proxy_ssl on;
    $ours
    server {
        listen 127.0.0.1:$by_nginx_stream;
        proxy_pass 127.0.0.1:$required;
        proxy_ssl_name $NAME;
    }
}
CONF
    for name in haproxy nginx nginx_stream; do
        proxy=by_$name
        for again in false true; do
            mark
            expect "$name as a client" hello "$(get "http://127.0.0.1:${!proxy}/")"
            expect '  in the log' "alice $again" \
                "$(logged required tls_client_cn) $(logged required tls_resumed)"
        done
    done
    expect 'haproxy that expects another name' '*503 Service Unavailable*' \
        "$(get "http://127.0.0.1:$by_haproxy_wrong/" | paste -sd ' ')"
    expect 'nginx that expects another name' '*502 Bad Gateway*' \
        "$(get "http://127.0.0.1:$by_nginx_wrong/" | paste -sd ' ')"
}

# ---- Browsers ------------------------------------------------------------------------------------

by_chromium() {
    HOME=$WORK/home timeout 60 chromium --headless=new --no-sandbox --disable-gpu --no-first-run \
        --disable-dev-shm-usage --disable-background-networking --disable-component-update \
        --disable-sync --host-resolver-rules="MAP $NAME 127.0.0.1, MAP * ~NOTFOUND" \
        --user-data-dir="$WORK/home/$1" --dump-dom "https://$NAME:$2/" 2>&1 |
        grep -oE '>hello|ERR_CERT_[A-Z_]*' | head -n 1 || true
}

browsers() {
    local policy
    mkdir -p home/.pki/nssdb
    certutil -d sql:home/.pki/nssdb -N --empty-password
    mark
    expect 'Chromium that does not trust us' ERR_CERT_AUTHORITY_INVALID \
        "$(by_chromium other "$modern")"
    expect '  in the log' 'the client sent the alert `certificate_unknown`: *' \
        "$(logged modern tls_error)"
    certutil -d sql:home/.pki/nssdb -A -t C,, -n ca -i ca.pem
    for policy in modern intermediate; do
        mark
        expect "Chromium, $policy" '>hello' "$(by_chromium own "${!policy}")"
        expect '  in the log' '1.3* http/1.1*' \
            "$(logged $policy tls_version) $(logged $policy tls_alpn)"
    done
}
