# shellcheck shell=bash disable=SC2154 # ports are set by name
# What scripts/tls-interop.sh stands on: certificates, a balancer, a server, and lines about checks.
# Sourced in $WORK, where all files are.

NAME=web.test
FAILURES=0
LISTENERS=
POOLS=

# expect WHAT PATTERN GOT: a line about a check. A WHAT that begins with spaces is about the same as
# the one before.
expect() {
    local what=$1
    if [[ $what == '  '* ]]; then
        what="$SUBJECT,${what# }"
    else
        SUBJECT=$what
    fi
    # shellcheck disable=SC2053 # a pattern
    if [[ $3 == $2 ]]; then
        echo "ok   $what: $3"
    else
        echo "FAIL $what: expected '$2', got '$3'"
        FAILURES=$((FAILURES + 1))
    fi
}

# port_for NAME: a free port, in the variable of this name.
port_for() {
    free_port
    while [[ " ${TAKEN:-} " == *" $PORT "* ]]; do free_port; done
    TAKEN="${TAKEN:-} $PORT"
    printf -v "$1" '%s' "$PORT"
}

# ---- Certificates --------------------------------------------------------------------------------

# authority NAME: NAME.pem and NAME.key.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 80 \
        -subj "/CN=$1" -keyout "$1.key" -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        2>>openssl.log
}

# issue NAME AUTHORITY NAMES USE [BASIC_CONSTRAINTS]: NAME.pem and NAME.key, by $KEY (P-256), from
# $FROM (now). A distribution point that nothing answers at, as scanners miss one.
issue() {
    local name=$1 authority=$2 names=$3 use=$4 from=${FROM:-$(date -u +%Y%m%d%H%M%SZ)}
    local -a key=(ec -pkeyopt ec_paramgen_curve:P-256)
    [[ -z ${KEY:-} ]] || key=("$KEY")
    {
        printf '[ca]\ndefault_ca=a\n[a]\nnew_certs_dir=.\ndatabase=index\nrand_serial=yes\n'
        printf 'policy=p\nunique_subject=no\ndefault_md=sha256\n[p]\ncommonName=supplied\n[e]\n'
        printf 'basicConstraints=%s\n' "${5:-CA:FALSE}"
        printf 'keyUsage=digitalSignature%s\n' "${5:+,keyCertSign}"
        printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$names" "$use"
        printf 'crlDistributionPoints=URI:http://crl.test/ca.crl\n'
    } >"$name.cnf"
    : >index
    {
        openssl req -newkey "${key[@]}" -nodes -subj "/CN=$name" -keyout "$name.key" \
            -out "$name.csr"
        openssl ca -batch -notext -config "$name.cnf" -extensions e -in "$name.csr" \
            -out "$name.pem" -cert "$authority.pem" -keyfile "$authority.key" \
            -startdate "$from" -enddate "$(date -u -d "${from:0:8} +80 days" +%Y%m%d%H%M%SZ)"
    } 2>>openssl.log || die "openssl: $(tail -n 5 openssl.log)"
    chmod 600 "$name.key"
    cat "$name.pem" "$name.key" >"$name.both"
}

make_certificates() {
    local names=DNS:$NAME,DNS:localhost
    authority ca
    authority other-ca
    issue ecdsa ca "$names" serverAuth
    KEY=rsa:2048 issue rsa ca "$names" serverAuth
    KEY=ed25519 issue ed25519 ca "$names" serverAuth
    issue a ca DNS:a.test serverAuth
    # Its authority stands behind it in the file.
    issue between ca DNS:between.test serverAuth CA:TRUE,pathlen:0
    issue wild between 'DNS:*.b.test' serverAuth
    cat between.pem >>wild.pem
    issue alice ca DNS:alice.test clientAuth
    issue mallory other-ca DNS:mallory.test clientAuth
}

# ---- mahoraga ------------------------------------------------------------------------------------

# pairs NAME...: certificates of a listener.
pairs() {
    local name
    for name; do
        printf '(certificate: "%s.pem", key: "%s.key"),' "$name" "$name"
    done
}

# listener NAME POOL [TLS]
listener() {
    port_for "$1"
    LISTENERS+="(name: \"$1\", bind: \"127.0.0.1:$PORT\", pool: \"$2\"${3:+, tls: ($3)}),"$'\n'
}

# pool NAME PORT [TLS]
pool() {
    POOLS+="(name: \"$1\", ${3:+tls: ($3), }backends: [\"127.0.0.1:$2\"]),"$'\n'
}

start_balancer() {
    local fields="\"standard\", \"tls_version\", \"tls_alpn\", \"tls_resumed\", \"tls_error\","
    fields+="\"tls_client_cn\", \"backend_tls_version\", \"backend_tls_resumed\","
    fields+="\"backend_tls_error\""
    cat >config.ron <<CONF
(
    workers: 1,
    $([[ $(id -u) != 0 ]] || echo 'user: "root",')
    access_log: (to: "access.log", format: "json", fields: [$fields]),
    listeners: [$LISTENERS],
    pools: [$POOLS],
)
CONF
    start any mahoraga "$MAHORAGA" run
    wait_port "$PORT" mahoraga
    touch access.log
}

# What the access log says from here on is about the next check.
mark() { MARK=$(($(stat -c %s access.log) + 1)); }

# logged LISTENER FIELD [COUNT]: the field of the COUNT (1) sessions since the mark.
logged() {
    local i lines
    for ((i = 0; i < 100; i++)); do
        lines=$(tail -c "+$MARK" access.log | grep "\"listener\":\"$1\"" || true)
        (($(grep -c . <<<"$lines") < ${3:-1})) || break
        sleep 0.03
    done
    sed -nE "s/.*\"$2\":(\"([^\"]*)\"|([^,}]*)).*/\2\3/p" <<<"$lines" | paste -sd ' '
}

# start_web HTTP STREAM: nginx with a page on port $plain, by HTTP/2 on $plain_h2, by TLS and either
# version on $web_tls; and with these servers.
start_web() {
    local kind temp=
    for kind in client_body proxy fastcgi uwsgi scgi; do
        temp+="${kind}_temp_path $WORK/web-$kind; "
    done
    port_for plain
    port_for web_tls
    port_for plain_h2
    head -c 4000000 /dev/urandom >big
    start_nginx any web "$plain" <<CONF
http {
    $temp
    access_log off;
    # Scanners miss these.
    add_header Strict-Transport-Security 'max-age=63072000';
    add_header X-Frame-Options DENY;
    add_header X-Content-Type-Options nosniff;
    add_header Content-Security-Policy "default-src 'none'";
    server_tokens off;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {
        listen 127.0.0.1:$plain;
        listen 127.0.0.1:$plain_h2 http2;
        listen 127.0.0.1:$web_tls ssl http2;
        ssl_certificate ecdsa.pem;
        ssl_certificate_key ecdsa.key;
        ssl_ciphers ECDHE+AESGCM;
        location / { return 200 "hello\n"; }
        location = /big { root .; }
    }
    $1
}
stream {
    $2
}
CONF
}
