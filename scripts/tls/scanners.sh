# shellcheck shell=bash disable=SC2154
# testssl.sh and sslyze on listeners, for scripts/tls-interop.sh.

# Sets SSLYZE, or leaves it empty.
find_sslyze() {
    SSLYZE=${SSLYZE:-$(command -v sslyze || true)}
    [[ -z $SSLYZE && ${INSTALL:-0} == 1 ]] || return 0
    python3 -m venv "$WORK/venv" && "$WORK/venv/bin/pip" install -q sslyze || return 0
    SSLYZE=$WORK/venv/bin/sslyze
} >&2

# scan NAME PORT: testssl.sh, into $SCANS/testssl-NAME.txt and .json. It may phone nowhere.
scan() {
    rm -f "$SCANS/testssl-$1".{txt,json}
    testssl --warnings off --nodns none --ip 127.0.0.1 --color 0 --quiet --add-ca "$WORK/ca.pem" \
        --jsonfile "$SCANS/testssl-$1.json" "localhost:$2" >"$SCANS/testssl-$1.txt" </dev/null ||
        true
    expect "testssl.sh has tested $1" 'Done *' "$(grep -o 'Done ' "$SCANS/testssl-$1.txt")"
}

# comparable NAME: what testssl.sh said, without times and ports. Whether it can resume is not the
# same in two runs on one server: it often leaves before the ticket of TLS 1.3 has come.
comparable() {
    sed -E '/^ (Start|Done) /d; /Session Resumption/d; /HTTP clock skew/d' "$SCANS/testssl-$1.txt"
}

scanners() {
    local policy tests
    SCANS=$(realpath -m "${SCANS:-$WORK/scans}")
    mkdir -p "$SCANS"
    find_sslyze
    for policy in modern intermediate; do
        tests=scan_$policy
        scan "$policy" "${!tests}"
        expect "testssl.sh, $policy: nothing above low" '' \
            "$(python3 "$TLS/findings.py" testssl "$SCANS/testssl-$policy.json")"
        if [[ -z $SSLYZE ]]; then
            echo 'skipped sslyze (it is not here: INSTALL=1 gets it by pip)'
            continue
        fi
        mark
        "$SSLYZE" --certinfo_ca_file ca.pem --json_out "$SCANS/sslyze-$policy.json" --resum \
            --early_data --mozilla_config "$policy" "localhost:${!tests}" \
            >"$SCANS/sslyze-$policy.txt" 2>&1 || true
        expect "sslyze, $policy: as Mozilla has it" 'localhost:* OK - Compliant.' \
            "$(grep -A 1 -E '^ +localhost:.*: (OK|FAILED)' "$SCANS/sslyze-$policy.txt" | xargs)"
        expect "sslyze, $policy: no finding" '' \
            "$(python3 "$TLS/findings.py" sslyze "$SCANS/sslyze-$policy.json")"
    done
    if [[ -n $SSLYZE ]]; then
        # It takes a new ticket in the answer for a refusal of the old one.
        expect 'sslyze resumes, in the log' '[1-9]*' \
            "$(logged scan_intermediate tls_resumed | grep -o true | wc -l)"
    fi
    scan direct "$web_tls"
    scan passthrough "$passthrough"
    expect 'testssl.sh through a passthrough listener says what it says directly' '' \
        "$(diff <(comparable direct) <(comparable passthrough))"
}
