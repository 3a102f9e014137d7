//! The dashboard and the API over HTTP, with tokens that the program makes: `proxy --admin-http`
//! and `demo`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::balancer::{Balancer, Launch, Text};
use crate::peers::Backend;
use crate::process::Process;
use crate::watchdog::{eventually, patience, watched};

/// Requests something: the status code, and head and body of the answer.
fn ask(address: &str, request: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let text = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token.unwrap_or_default(),
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// What follows these words in the log, up to the next space.
fn named(balancer: &Balancer, words: &str) -> String {
    let line = balancer.log().lines_with(words).remove(0);
    let (_, rest) = line.split_once(words).unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_start_without_a_file_has_tokens_that_end_with_it() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let launch = launch.flag("--admin-http", "127.0.0.1:0");
        let mut balancer = launch.flag("--admin", "admin.sock").start();
        let url = named(&balancer, "dashboard on http://");
        let address = url.trim_end_matches('/');
        let name = named(&balancer, "the tokens of the admin API are in ");
        assert_eq!(name, format!("mahoraga-{}.tokens", balancer.process.0));
        let path = balancer.dir().join(&name);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let tokens: Vec<_> = text.split_whitespace().collect();
        let ["read", read, "write", write] = tokens[..] else {
            panic!("{text}");
        };
        let (code, page) = ask(address, "GET /", None);
        assert_eq!(code, 200);
        assert!(page.contains("content-security-policy: default-src 'self'"));
        let change = "PATCH /v1/limits\n{\"max_connections\": 9}";
        for (token, codes) in [
            (None, (401, 401)),
            (Some("0".repeat(64).as_str()), (401, 401)),
            (Some(read), (200, 403)),
            (Some(write), (200, 200)),
        ] {
            let looked = ask(address, "GET /v1/status", token).0;
            assert_eq!((looked, ask(address, change, token).0), codes, "{token:?}");
        }
        // Commands take the file as it is.
        let url = format!("http://{address}");
        let flags = ["--admin", &url, "--token-file", &name];
        balancer.words(&[&["weight", &backend.address, "3"], &flags[..]].concat());
        assert_eq!(balancer.log().count(read) + balancer.log().count(write), 0);
        balancer.assert_rest();
        balancer.process.signal(libc::SIGTERM);
        assert_eq!(balancer.wait().code(), Some(0));
        assert!(!path.exists(), "the file of the tokens is left");
    });
}

#[test]
fn the_demo_opens_with_figures_on_it() {
    watched(|| {
        let launch = Launch::demo();
        let dir = launch.dir().to_owned();
        let mut child = launch.spawn();
        let output = Text::collect(child.stdout.take().unwrap());
        eventually("the demo says what to try", || {
            output.count("Ctrl-C ends it") == 1
        });
        let line = output.lines_with("dashboard").remove(0);
        let (_, url) = line.split_once("http://").unwrap();
        let address = url.trim().trim_end_matches('/');
        let (code, status) = ask(address, "GET /v1/status", None);
        assert_eq!(code, 200, "{status}");
        let drain = "PATCH /v1/pools/demo/backends/backend-1\n{\"state\": \"drain\"}";
        assert_eq!(ask(address, drain, None).0, 403);
        let token = output.all();
        let is_token =
            |line: &&str| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
        let token = token.lines().find(is_token).unwrap();
        assert_eq!(ask(address, drain, Some(token)).0, 200);
        Process(child.id()).signal(libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        fs::remove_dir_all(dir).unwrap();
    });
}
