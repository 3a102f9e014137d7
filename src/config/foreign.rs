//! Recognises other programs' configurations, and maps their words to ours.

use super::Config;
use super::table::Settings;
use super::tokens::{Lexeme, Span, TokenKind, tokens};
use super::tree::Value;

/// The smallest valid file.
pub(super) const SMALLEST: &str = "(listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")], \
                        pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])";

/// The format that an invalid text seems to be in, with the place that shows it.
pub(super) fn recognised(text: &str) -> Option<(Span, String)> {
    let tokens = tokens(text);
    let first = tokens.first()?;
    if lacks_parentheses(text, &tokens) {
        return Some((first.span.clone(), PARENTHESES.to_owned()));
    }
    let kind_at = |at: usize| tokens.get(at).map(|token| token.kind);
    let kind = format_of(text, first.kind, kind_at(1), kind_at(2))?;
    let sentence = format!(
        "this looks like {kind}, and a configuration is RON: the smallest one is {SMALLEST}"
    );
    Some((first.span.clone(), sentence))
}

/// Whether it is a configuration but for the parentheses around all of it.
fn lacks_parentheses(text: &str, tokens: &[Lexeme]) -> bool {
    let [first, second, third, ..] = tokens else {
        return false;
    };
    let word = &text[first.span.clone()];
    let is_group = first.kind == TokenKind::Word && second.kind == TokenKind::Colon;
    is_group
        && Config::table().iter().any(|setting| setting.name == word)
        // A mistake in the rest is shown once they are there.
        && (third.kind == TokenKind::Open('(') || Value::parse(&format!("({text}\n)")).is_ok())
}

fn format_of(
    text: &str,
    first: TokenKind,
    second: Option<TokenKind>,
    third: Option<TokenKind>,
) -> Option<&'static str> {
    let lines = text.lines().map(str::trim);
    let is_comment = |line: &str| line.starts_with('#') || line.starts_with("//");
    let lines = || {
        lines
            .clone()
            .filter(|line| !line.is_empty() && !is_comment(line))
    };
    let line = lines().next()?;
    let word = line.split_whitespace().next()?;
    let has_block = || lines().any(|line| line.ends_with('{'));
    match (first, second) {
        (TokenKind::Open('('), _) => None,
        _ if word.starts_with('<') => Some("XML"),
        (TokenKind::Open('{'), Some(TokenKind::Text | TokenKind::Close('}'))) => Some("JSON"),
        (TokenKind::Open('['), Some(TokenKind::Open('{'))) => Some("JSON"),
        (TokenKind::Open('{'), Some(TokenKind::Word)) if third == Some(TokenKind::Colon) => {
            Some("JSON5")
        }
        _ if is_of(HAPROXY, word) && !word.ends_with('{') && !has_block() => {
            Some("a configuration of HAProxy")
        }
        _ if is_of(NGINX, word) && text.contains('{') => Some("a configuration of nginx"),
        _ if is_of(NGINX, word) && lines().any(|line| line.ends_with(';')) => {
            Some("a configuration of nginx")
        }
        _ if has_block() || text.contains("reverse_proxy") => Some("a configuration of Caddy"),
        _ if lines().any(|line| line.starts_with('[') && line.ends_with(']')) => Some("TOML"),
        (TokenKind::Word, Some(TokenKind::Colon)) => Some("YAML"),
        _ if word.strip_suffix(':').is_some_and(is_key) => Some("YAML"),
        _ if word == "---" || word == "-" => Some("YAML"),
        _ if line.split_once('=').is_some_and(|(key, _)| is_key(key)) => Some("TOML"),
        _ => None,
    }
}

/// Whether it is what YAML and TOML take for the name of a field.
fn is_key(text: &str) -> bool {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !text.trim().is_empty() && text.trim().chars().all(is_of_key)
}

/// What the balancer lacks, if the word is a setting of it in other programs.
pub(super) fn unsupported(word: &str) -> Option<&'static str> {
    of(UNSUPPORTED, word)
}

/// Our setting for a word that means another one in each group. The group has these settings.
pub(super) fn ours_in_group(word: &str, group: &[&str]) -> Option<&'static str> {
    let mut found = entries(OF_GROUPS).filter(|(theirs, _)| {
        let (mark, words) = theirs.split_once(": ").unwrap_or_default();
        group.contains(&mark) && is_of(words, word)
    });
    found.next().map(|(_, say)| say)
}

/// Our setting for a word of HAProxy, nginx, Envoy or Caddy.
pub(super) fn ours(word: &str) -> Option<&'static str> {
    of(WORDS, word)
}

/// Our name of a strategy that other balancers call so, or write so: `ROUND_ROBIN`, `random(2)`.
pub(super) fn strategy(name: &str) -> Option<&'static str> {
    of(STRATEGIES, name)
}

/// Our type of a check that other balancers call so.
pub(super) fn check(name: &str) -> Option<&'static str> {
    of(CHECKS, name)
}

/// Our name of the protocol that others call so.
pub(super) fn protocol(name: &str) -> Option<&'static str> {
    of(PROTOCOLS, name)
}

/// Our header of the PROXY protocol that HAProxy calls so.
pub(super) fn proxy_header(name: &str) -> Option<&'static str> {
    of(PROXY_HEADERS, name)
}

/// Our name of what a header of the PROXY protocol says, which HAProxy calls so.
pub(super) fn header_part(name: &str) -> Option<&'static str> {
    of(HEADER_PARTS, name)
}

fn of(words: &'static str, word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_alphanumeric());
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    let word = parts.join("_");
    let mut found = entries(words).filter(|(theirs, _)| is_of(theirs, &word));
    found.next().map(|(_, say)| say)
}

/// Words of other programs, and what to say of them: each entry is two lines.
pub(super) fn entries(words: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut lines = words.lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?.trim_start())))
}

fn is_of(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// What a configuration without its parentheses lacks.
const PARENTHESES: &str = "a configuration stands in `(` and `)`: write `(` before its first \
                           setting, and `)` behind its last";

const HAPROXY: &str = "global defaults frontend backend listen peers resolvers userlist";
const NGINX: &str = "worker_processes worker_connections user events http stream upstream server \
                     error_log load_module include pid map daemon worker_rlimit_nofile env \
                     worker_cpu_affinity pcre_jit";

const UNSUPPORTED: &str = "\
tls ssl cert certificate certificates crt ssl_certificate
    `tls` of a listener ends TLS: (certificates: [(certificate: \"FILE\", key: \"FILE\")])
accept_proxy proxy_protocol
    the setting `accept_proxy` of a listener names the proxies whose PROXY headers it reads
transparent usesrc
    source: \"client\" in a pool has connections begin at their client's address";

/// Each behind a setting that only the group has in which it means this.
const OF_GROUPS: &str = "\
interval: name kind algorithm policy protocol mode
    `type` says what a check does
interval: url uri
    write the `path`, and the host as `host`, of type: \"http\"
interval: inter
    the setting is called `interval`
interval: downinter
    the setting is called `interval_down`
interval: fastinter
    the setting is called `interval_between`
then: type kind algorithm policy
    `name` says which strategy it is
strategy: algorithm policy lb method
    the setting `strategy` says how a backend is selected
strategy: fall rise inter interval
    the group `check` has `fall`, `rise` and `interval`
strategy: drain maint state disabled
    a backend has a `state`: \"ready\", \"drain\" or \"maint\"
strategy: port
    the address of each backend has its port
strategy: panic panic_threshold
    the setting is called `panic_below`
half_close: backends
    a pool has the `backends`: its name is the value of `pool` here
half_close: address addr listen port
    the address that clients connect to is the value of `bind`
half_close: source source_ports
    the settings `source` and `source_ports` stand in a pool, and in no listener
half_close: send_proxy send_proxy_v2
    the setting `send_proxy` stands in a pool, or in a backend
half_close: sni_member
    the setting `sni_member` stands in a pool
half_close: allow deny acl acls blocklist allowlist denylist blacklist whitelist
    an entry of `access_lists` has the prefixes: `access_list` names it here
half_close: ban_after ban_for
    the group `ban` has `after`, `within` and `for`
half_close: limits limit
    `source_limits` limits each client, `rate_limit` and `max_connections` all of them
half_closed: client server tunnel read write send receive
    `idle` ends a session in which no byte moves, on either side
half_closed: queue
    the group `queue` of a pool has the `timeout` of clients that wait
weight: disabled enabled down drain maint
    write state: \"maint\", or \"drain\" to keep its sessions
weight: port
    the port stands behind the address, as in address: \"127.0.0.1:9001\"
weight: addr ip host server
    the setting is called `address`
weight: check fall rise inter interval
    the group `check` of the pool says how its backends are probed
http_path: host hostname server_name domain domains
    `sni` compares the name that a client asks for in TLS, `http_host` that of plain HTTP
http_path: path paths prefix path_prefix path_beg url uri location
    the setting is called `http_path`
http_path: to backend backends use_backend cluster upstream target server
    the setting `pool` names the pool that its clients go to
http_path: source src source_ip src_ip ip cidr from remote_ip source_address
    the setting is called `client`
http_path: action deny reject refuse block
    write pool: \"refuse\"
http_path: weights weight split canary weighted_clusters
    the list `pools` has pools with weights, as in pools: [(name: \"a\", weight: 95)]
http_path: method methods header headers query
    routes look at the host and the path of a request only
http_path: proto protocols
    the setting is called `protocol`
http_path: not invert negate except unless not_client not_sni not_alpn not_protocol not_http_host
    no condition is negated: a route before this one takes those clients
http_path: tlv tlvs pp2_tlv
    the setting is called `proxy_tlv`
all: up down
    a limit is that of each session, of a source or of all, as in all: (down: \"10MB/s\")
pools: source_limits
    the group `source_limits` stands in a listener
pools: ban ban_after
    the group `ban` of a listener says when its clients are banned
pools: log_level loglevel level debug verbose verbosity
    the variable MAHORAGA_LOG sets the level of the operational log, as in MAHORAGA_LOG=debug
pools: global limits
    settings such as `workers` and `max_connections` stand here without a group
pools: backends servers server
    the list `backends` stands in a pool, and pools in the list `pools`
pools: timeouts timeout
    the group `timeouts` stands in a listener, or in `defaults`
pools: group uid gid setuid setgid
    `user` names the user that the balancer becomes, whose groups it takes
pools: daemon chroot pidfile pid
    what starts the balancer, such as systemd, sets this
all_down: send_proxy_v2 proxy_protocol
    the setting is called `send_proxy`
weight: send_proxy_v2 proxy_protocol
    the setting is called `send_proxy`
proxy_header: send_proxy send_proxy_v2 proxy_protocol check_send_proxy
    the setting is called `proxy_header`
proxy_header: ssl check_ssl certificates
    the setting is called `tls`
crl: crl_file ssl_crl revocation_list revocation_lists
    the setting is called `crl`
verify: cert certificate certificates crt ca ca_file ca_bundle
    `verify` says by which certificates a server is believed
pools: log log_file accesslog
    `access_log` names the file of the sessions; all else goes to standard error
pools: stats dashboard metrics api
    the group `admin` has the socket and the address of the API
pools: allow deny acl acls blocklist allowlist denylist blacklist whitelist
    an entry of `access_lists` has the prefixes, and a listener names it";

const WORDS: &str = "\
balance lb_policy lb_algorithm load_balancing
    the setting `strategy` of a pool says how a backend is selected
server servers endpoints hosts targets
    the list `backends` of a pool has the servers
upstream upstreams backend clusters
    the list `pools` has the groups of backends
frontend frontends listen listener
    the list `listeners` has the addresses that clients connect to, each as `bind`
proxy_pass default_backend use_backend reverse_proxy cluster
    the setting `pool` of a listener names where its clients go
maxconn max_conns fullconn worker_connections
    the setting is called `max_connections`
nbthread worker_processes threads
    the setting is called `workers`
leastconn least_conn
    write strategy: \"least_connections\" in a pool
roundrobin round_robin
    write strategy: \"round_robin\" in a pool
ip_hash hash source_hash
    write strategy: \"hash\" in a pool, which hashes the client's address
option httpchk health healthcheck health_check health_checks option_httpchk
    write check: \"http\", or check: (type: \"http\", path: \"/healthz\"), in a pool
stick stick_table sticky cookie
    the setting `persist` of a pool brings clients back to their backend
max_fails fail_timeout outlier_detection observe
    the setting `ejection` of a pool takes failing backends out
retries proxy_next_upstream proxy_next_upstream_tries redispatch
    the setting `attempts` of a listener says how many backends are tried
timeout proxy_timeout proxy_connect_timeout connect_timeout idle_timeout
    the group `timeouts` of a listener, or of `defaults`, has connect, idle and others
limit_conn limit_req conn_cur conn_rate conn_limit
    the group `source_limits` of a listener limits what one client may take
proxy_download_rate proxy_upload_rate limit_rate bwlim_in bwlim_out
    the group `bandwidth` of a listener, or of a backend, limits bytes per second
maxconnrate rate_limit_sessions local_rate_limit local_ratelimit
    the group `rate_limit` limits new connections, of a listener or of all
protocol mode proto
    every listener passes TCP on as it comes: leave this out
send_proxy send_proxy_v2
    the setting `send_proxy` of a pool has its connections begin with a PROXY header
backlog somaxconn
    the backlog follows from net.core.somaxconn, which sysctl sets, and from `overload`
slowstart slow_start_config
    the setting is called `slow_start`";

/// What HAProxy, nginx, Envoy, LVS, Traefik and linkerd call the strategies.
pub(super) const STRATEGIES: &str = "\
round_robin roundrobin rr wrr weighted_round_robin
    round_robin
least_connections leastconn least_conn least_request lc wlc
    least_connections
hash ip_hash source source_hash consistent_hash ring_hash ketama maglev
    hash
power_of_two p2c random_2 random_two
    power_of_two
least_time ewma peak_ewma
    least_time
sticky_round_robin sticky
    sticky_round_robin";

/// What HAProxy, nginx, Envoy and Traefik call the checks.
const CHECKS: &str = "\
httpchk option_httpchk http_health_check grpc
    http
tcp_check option_tcp_check tcp_health_check connect on
    tcp
https
    (type: \"http\", tls: true)
ssl check_ssl ssl_hello_chk
    tls
redis_check smtpchk mysql_check pgsql_check
    send_expect";

/// What HAProxy, nginx and Envoy call headers of the PROXY protocol.
const PROXY_HEADERS: &str = "\
v2_ssl v2_ssl_cn send_proxy_v2_ssl send_proxy_v2_ssl_cn
    (version: \"v2\", tlvs: [\"ssl\"])
on send_proxy proxy_v1 version_1
    v1
send_proxy_v2 proxy_v2 version_2
    v2";

/// What HAProxy's `proxy-v2-options` calls parts of a header.
const HEADER_PARTS: &str = "\
cert_cn cert_key cert_sig ssl_cn ssl_cipher ssl_version
    ssl
sni server_name host
    authority
uid uuid
    unique_id
checksum crc crc32
    crc32c";

/// What the protocols that a route knows are called elsewhere, by what the first bytes are.
const PROTOCOLS: &str = "\
https ssl wss mqtts ldaps
    tls
ws http1 http2 h2c grpc
    http
sftp scp openssh
    ssh
postgresql pgsql psql
    postgres
smtp esmtp ftp imap pop3 nntp mysql mariadb vnc telnet
    server_first
any unknown tcp
    other";

#[cfg(test)]
mod tests;
