//! Recognises other programs' configurations, and maps their words to ours.

use super::tokens::{Kind, Span, tokens};

/// The smallest valid file.
pub(super) const SMALLEST: &str = "(listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")], \
                        pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])";

/// The format that an invalid text seems to be in, with the place that shows it.
pub(super) fn recognised(text: &str) -> Option<(Span, String)> {
    let tokens = tokens(text);
    let first = tokens.first()?;
    let kind = format_of(text, first.kind, tokens.get(1).map(|token| token.kind))?;
    let sentence = format!(
        "this looks like {kind}, and a configuration is RON: the smallest one is {SMALLEST}"
    );
    Some((first.span.clone(), sentence))
}

fn format_of(text: &str, first: Kind, second: Option<Kind>) -> Option<&'static str> {
    let lines = text.lines().map(str::trim);
    let lines = || {
        lines
            .clone()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let word = lines()
        .next()
        .and_then(|line| line.split_whitespace().next())?;
    let has_block = || lines().any(|line| line.ends_with('{'));
    match (first, second) {
        (Kind::Open('('), _) => None,
        _ if word.starts_with('<') => Some("XML"),
        (Kind::Open('{'), Some(Kind::Text | Kind::Close('}'))) => Some("JSON"),
        (Kind::Open('['), Some(Kind::Open('{'))) => Some("JSON"),
        _ if HAPROXY.contains(&word) && !word.ends_with('{') && !has_block() => {
            Some("a configuration of HAProxy")
        }
        _ if NGINX.contains(&word) && text.contains('{') => Some("a configuration of nginx"),
        _ if NGINX.contains(&word) && lines().any(|line| line.ends_with(';')) => {
            Some("a configuration of nginx")
        }
        _ if has_block() || text.contains("reverse_proxy") => Some("a configuration of Caddy"),
        _ if lines().any(|line| line.starts_with('[') && line.ends_with(']')) => Some("TOML"),
        (Kind::Word, Some(Kind::Colon)) => Some("YAML"),
        _ if word == "---" || word == "-" => Some("YAML"),
        _ if lines().all(|line| line.contains('=')) => Some("TOML"),
        _ => None,
    }
}

/// Our setting for a word of HAProxy, nginx, Envoy or Caddy, in a group of these settings.
pub(super) fn ours(word: &str, group: &[&str]) -> Option<&'static str> {
    if ["type", "name", "kind", "algorithm", "policy"].contains(&word) {
        let (is_check, is_strategy) = (group.contains(&"interval"), group.contains(&"then"));
        let check = is_check.then_some("`type` says what a check does");
        return check.or_else(|| is_strategy.then_some("`name` says which strategy it is"));
    }
    let found = WORDS.iter().find(|(theirs, _)| theirs.contains(&word));
    found.map(|(_, ours)| *ours)
}

const HAPROXY: [&str; 8] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "userlist",
];

const NGINX: [&str; 10] = [
    "worker_processes",
    "worker_connections",
    "user",
    "events",
    "http",
    "stream",
    "upstream",
    "server",
    "error_log",
    "load_module",
];

const WORDS: [(&[&str], &str); 16] = [
    (
        &["balance", "lb_policy", "lb_algorithm", "load_balancing"],
        "the setting `strategy` of a pool says how a backend is selected",
    ),
    (
        &["server", "servers", "endpoints", "hosts", "targets"],
        "the list `backends` of a pool has the servers",
    ),
    (
        &["upstream", "upstreams", "backend", "clusters"],
        "the list `pools` has the groups of backends",
    ),
    (
        &["frontend", "frontends", "listen", "listener"],
        "the list `listeners` has the addresses that clients connect to, each as `bind`",
    ),
    (
        &[
            "proxy_pass",
            "default_backend",
            "use_backend",
            "reverse_proxy",
            "cluster",
        ],
        "the setting `pool` of a listener names where its clients go",
    ),
    (
        &["maxconn", "max_conns", "fullconn", "worker_connections"],
        "the setting is called `max_connections`",
    ),
    (
        &["nbthread", "worker_processes", "threads"],
        "the setting is called `workers`",
    ),
    (
        &["leastconn", "least_conn"],
        "write strategy: \"least_connections\" in a pool",
    ),
    (
        &["roundrobin", "round_robin"],
        "write strategy: \"round_robin\" in a pool",
    ),
    (
        &["ip_hash", "hash", "source_hash"],
        "write strategy: \"hash\" in a pool, which hashes the client's address",
    ),
    (
        &[
            "option",
            "httpchk",
            "health_check",
            "health_checks",
            "option_httpchk",
        ],
        "write check: \"http\", or check: (type: \"http\", path: \"/healthz\"), in a pool",
    ),
    (
        &["stick", "stick_table", "sticky", "cookie"],
        "the setting `persist` of a pool brings clients back to their backend",
    ),
    (
        &["max_fails", "fail_timeout", "outlier_detection", "observe"],
        "the setting `ejection` of a pool takes failing backends out",
    ),
    (
        &[
            "retries",
            "proxy_next_upstream",
            "proxy_next_upstream_tries",
            "redispatch",
        ],
        "the setting `attempts` of a listener says how many backends are tried",
    ),
    (
        &[
            "timeout",
            "proxy_timeout",
            "proxy_connect_timeout",
            "connect_timeout",
            "idle_timeout",
        ],
        "the group `timeouts` of a listener, or of `defaults`, has connect, idle and others",
    ),
    (
        &["slowstart", "slow_start_config"],
        "the setting is called `slow_start`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_recognised() {
        for (text, kind) in [
            ("{\"listeners\": []}", "JSON"),
            ("[{\"bind\": \":80\"}]", "JSON"),
            ("listeners:\n  - bind: 127.0.0.1:80\n", "YAML"),
            ("---\nlisteners: []\n", "YAML"),
            ("[[listeners]]\nbind = \"127.0.0.1:80\"\n", "TOML"),
            ("workers = 3\n", "TOML"),
            ("<xml/>", "XML"),
            ("<?xml version=\"1.0\"?>\n<a>\n</a>\n", "XML"),
            (
                "global\n  maxconn 100\nfrontend web\n  bind :80\n",
                "a configuration of HAProxy",
            ),
            (
                "# mine\ndefaults\n  mode tcp\n",
                "a configuration of HAProxy",
            ),
            (
                "stream {\n  server { listen 80; }\n}\n",
                "a configuration of nginx",
            ),
            (
                "http { upstream a { server b; } }\n",
                "a configuration of nginx",
            ),
            (
                "worker_processes auto;\nevents {\n}\n",
                "a configuration of nginx",
            ),
            (
                ":80 {\n  reverse_proxy 127.0.0.1:9001\n}\n",
                "a configuration of Caddy",
            ),
        ] {
            let (_, sentence) = recognised(text).unwrap_or_default();
            let want = format!("this looks like {kind},");
            assert!(sentence.starts_with(&want), "{text}: {sentence}");
        }
        for text in ["(listeners: [])", "(", "\"a\"", ""] {
            assert_eq!(recognised(text), None, "{text}");
        }
        let config = crate::config::parse(String::new(), SMALLEST.into());
        assert!(config.is_ok());
        // RON accepts it, as a map.
        let json = crate::config::parse(String::new(), "{\"listeners\": []}".into());
        let error = json.unwrap_err().to_string();
        assert!(error.contains("this looks like JSON"), "{error}");
    }

    #[test]
    fn a_word_has_one_meaning() {
        let mut words: Vec<_> = WORDS.iter().flat_map(|(theirs, _)| *theirs).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
