//! Requests of all forms, cut anywhere, and bytes that are no request.

use super::*;
use crate::peek::tests::{assert_from, found};
use crate::peek::{Field, Peeked};

#[test]
fn each_field_is_found_at_the_end_of_its_line() {
    let lines = [
        "GET /shop/cart?item=7#top HTTP/1.1\r\n",
        "Accept: */*\r\n",
        "Host: Shop.Example.com.:8080\r\n",
        "Cookie: lang=en; sid=abc; sid=late\r\n",
        "Cookie: sid=later\r\n",
        "Host: late.example.com\r\n",
        "\r\n",
        "a body\r\n\0",
    ];
    let first = lines.concat();
    let end_of = |line: usize| lines[..=line].concat().len();
    for (field, line, answer) in [
        (Field::HttpPath, 0, found(b"/shop/cart")),
        (Field::HttpHost, 2, found(b"shop.example.com")),
        (Field::HttpCookie("lang".into()), 3, found(b"en")),
        (Field::HttpCookie("sid".into()), 3, found(b"abc")),
        // Only the end of the head shows that there is none.
        (Field::HttpCookie("SID".into()), 6, Peeked::Absent),
        (Field::HttpCookie("si".into()), 6, Peeked::Absent),
    ] {
        assert_from(end_of(line), answer, &field, first.as_bytes());
    }
}

#[test]
fn an_answer_has_a_status() {
    let code = |answer: &str| status(answer.as_bytes()).map(NonZeroU16::get);
    assert_eq!(code("HTTP/1.1 200 OK\r\n"), Some(200));
    assert_eq!(code("HTTP/1.0 404\r\n"), Some(404));
    assert_eq!(code("HTTP/1.1 599 "), Some(599));
    for none in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.x 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "SSH-2.0-OpenSSH_9.2p1",
    ] {
        assert_eq!(code(none), None, "{none}");
    }
}

#[test]
fn a_request_of_curl() {
    let first = b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\n\
                  Accept: */*\r\nCookie: sid=1\r\n\r\n";
    assert_from(26, found(b"/index.html"), &Field::HttpPath, first);
    assert_from(48, found(b"127.0.0.1"), &Field::HttpHost, first);
    let sid = Field::HttpCookie("sid".into());
    assert_from(first.len() - 2, found(b"1"), &sid, first);
}

#[test]
fn forms_of_the_target() {
    let cases: [(&str, Option<&str>, Option<&str>); 19] = [
        ("GET / HTTP/1.1", Some("/"), Some("header")),
        ("GET /A%2f?b HTTP/1.1", Some("/A%2f"), Some("header")),
        ("GET //double HTTP/1.0", Some("//double"), Some("header")),
        ("GET /?a HTTP/1.9", Some("/"), Some("header")),
        ("GET http://h HTTP/1.1", Some("/"), Some("h")),
        ("GET HTTPS://H:8/p?q HTTP/1.1", Some("/p"), Some("h")),
        ("GET http://h?q=/ HTTP/1.1", Some("/"), Some("h")),
        ("GET http://[::1]:80/p HTTP/1.1", Some("/p"), Some("[::1]")),
        ("OPTIONS * HTTP/1.1", None, Some("header")),
        ("CONNECT h:443 HTTP/1.1", None, Some("h")),
        // A user before the host, which hides it; no host; no form at all.
        ("GET http://user@h/p HTTP/1.1", Some("/p"), None),
        ("GET http:///p HTTP/1.1", None, None),
        ("GET 1ttp://h/p HTTP/1.1", None, None),
        ("GET path HTTP/1.1", None, None),
        ("GET http:/p HTTP/1.1", None, None),
        ("GET ?q HTTP/1.1", None, None),
        ("GET  HTTP/1.1", None, None),
        ("GET /a\tb HTTP/1.1", None, None),
        ("GET /a b HTTP/1.1", None, None),
    ];
    for (line, expected_path, expected_host) in cases {
        let first = format!("{line}\r\nHost: header\r\n\r\n");
        let expected_path = expected_path.map(str::as_bytes).ok_or(Miss::Absent);
        assert_eq!(path(first.as_bytes()), expected_path, "{line}");
        let host = host(first.as_bytes());
        let host = host.as_ref().map(Name::as_bytes);
        let expected_host = expected_host.map(str::as_bytes).ok_or(&Miss::Absent);
        assert_eq!(host, expected_host, "{line}");
    }
}

#[test]
fn invalid_request_lines_are_refused() {
    for line in [
        "GET /",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.",
        "GET / HTTP/1.x",
        "GET / HTTP/1.10",
        "GET / http/1.1",
        "GET / RTSP/1.0",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "G{T / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /\r HTTP/1.1",
    ] {
        let first = format!("{line}\r\nHost: h\r\nCookie: a=b\r\n\r\n");
        assert_eq!(path(first.as_bytes()), Err(Miss::Absent), "{line:?}");
        assert_eq!(host(first.as_bytes()), Err(Miss::Absent), "{line:?}");
        assert_eq!(
            cookie(first.as_bytes(), b"a"),
            Err(Miss::Absent),
            "{line:?}"
        );
    }
}

#[test]
fn empty_lines_and_bare_line_feeds() {
    for (first, expected) in [
        ("\r\nGET /p HTTP/1.1\r\n", Ok("/p")),
        ("\nGET /p HTTP/1.1\n", Ok("/p")),
        ("\r\n\r\nGET /p HTTP/1.1\r\n", Err(Miss::Absent)),
        ("\rGET /p HTTP/1.1\r\n", Err(Miss::Absent)),
        ("\r", Err(Miss::Incomplete)),
        ("\r\n", Err(Miss::Incomplete)),
    ] {
        assert_eq!(
            path(first.as_bytes()),
            expected.map(str::as_bytes),
            "{first:?}"
        );
    }
    let first = b"\nGET /p HTTP/1.1\nHost: h\nCookie: a=b\n\n";
    assert_eq!(host(first).as_ref().map(Name::as_bytes), Ok(&b"h"[..]));
    assert_eq!(cookie(first, b"a"), Ok(&b"b"[..]));
    assert_eq!(cookie(first, b"c"), Err(Miss::Absent));
}

#[test]
fn a_byte_that_can_not_stand_there_does_not_wait_for_the_line() {
    let long = [b'A'; METHOD_MAX + 1];
    for (first, expected) in [
        (&long[..METHOD_MAX], Miss::Incomplete),
        (&long, Miss::Absent),
        (b"GET", Miss::Incomplete),
        (b"GET:", Miss::Absent),
        (b"GET /a\x01", Miss::Absent),
        (b"GET /a\r", Miss::Incomplete),
        (b"GET /a\ra", Miss::Absent),
    ] {
        assert_eq!(path(first), Err(expected), "{first:?}");
    }
    let first = b"GET / HTTP/1.1\r\nA: b\0";
    assert_eq!(host(first), Err(Miss::Absent));
    assert_eq!(path(first), Ok(&b"/"[..]));
}

#[test]
fn lines_of_all_lengths_end_where_they_end() {
    for length in 1..100 {
        let word = "a".repeat(length);
        let first = format!("GET /{word} HTTP/1.1\r\nCookie: {word}={word}\r\n\r\n");
        assert_eq!(
            path(first.as_bytes()).map(|path| path[1..].len()),
            Ok(length)
        );
        let value = cookie(first.as_bytes(), word.as_bytes());
        assert_eq!(value, Ok(word.as_bytes()));
        assert_eq!(cookie(first.as_bytes(), b"none"), Err(Miss::Absent));
        // A control character anywhere in an incomplete line.
        let mut line = format!("GET /{word}").into_bytes();
        assert_eq!(path(&line), Err(Miss::Incomplete));
        line[4 + length] = 0x1f;
        line.extend_from_slice(&[b'a'; 20]);
        assert_eq!(path(&line), Err(Miss::Absent), "{length}");
    }
}

#[test]
fn broken_headers_hide_what_follows() {
    for line in [
        " folded: a",
        "\tfolded: a",
        "Space : a",
        "no colon",
        ": no name",
        "a\rb: c",
        "A: b\rc",
        "A: b\0",
    ] {
        let first = format!("GET / HTTP/1.1\r\n{line}\r\nHost: h\r\n\r\n");
        assert_eq!(host(first.as_bytes()), Err(Miss::Absent), "{line:?}");
    }
    let first = b"GET / HTTP/1.1\r\nA:\tb\t\xfc\r\nHost:h\r\n";
    assert!(
        host(first).is_ok(),
        "a tab and other character sets may stand there"
    );
}

#[test]
fn hosts() {
    for (value, expected) in [
        ("Example.COM", Some("example.com")),
        ("\t example.com. \t", Some("example.com")),
        ("example.com:", Some("example.com")),
        ("example.com:8080", Some("example.com")),
        ("127.0.0.1:80", Some("127.0.0.1")),
        ("[2001:DB8::1]:80", Some("[2001:db8::1]")),
        ("[::1]", Some("[::1]")),
        ("", None),
        (":80", None),
        (".", None),
        ("[::1", None),
        ("[::1]80", None),
        ("example.com:http", None),
        ("2001:db8::1", None),
        ("user@example.com", None),
        ("example.com/path", None),
        ("a b", None),
        ("b\u{fc}cher.example", None),
    ] {
        let first = format!("GET / HTTP/1.1\r\nhOST: {value}\r\nHost: second\r\n\r\n");
        let host = host(first.as_bytes());
        let expected = expected.map(str::as_bytes).ok_or(&Miss::Absent);
        assert_eq!(host.as_ref().map(Name::as_bytes), expected, "{value:?}");
    }
    let none = b"GET / HTTP/1.0\r\nX-Host: h\r\nHos: h\r\n\r\n";
    assert_eq!(host(none), Err(Miss::Absent));
    assert_eq!(host(&none[..none.len() - 1]), Err(Miss::Incomplete));
}

#[test]
fn cookies() {
    for (headers, expected) in [
        ("Cookie: sid=1", Some("1")),
        ("cOOKIE:sid=1", Some("1")),
        ("Cookie: a=b;sid=1;c=d", Some("1")),
        ("Cookie: a=b\r\nX: y\r\nCookie: sid=1", Some("1")),
        ("Cookie: sid=1; sid=2", Some("1")),
        ("Cookie:   sid  =  1  ", Some("1")),
        ("Cookie: sid=\"1\"", Some("1")),
        ("Cookie: sid=\"1", Some("\"1")),
        ("Cookie: sid=\"", Some("\"")),
        ("Cookie: sid=a=b==", Some("a=b==")),
        ("Cookie: sid=a b", Some("a b")),
        ("Cookie: sid; a=b; ;; sid=1", Some("1")),
        // The first field of the name decides, also when it is empty.
        ("Cookie: sid=; sid=1", None),
        ("Cookie: sid=\"\"", None),
        ("Cookie: SID=1", None),
        ("Cookie: xsid=1; sidx=1; a=sid=1", None),
        ("Cookie: a=\"; sid=1", Some("1")),
        ("Set-Cookie: sid=1", None),
        ("Cookie: sid", None),
        ("Cookie:", None),
    ] {
        let first = format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
        let expected = expected.map(str::as_bytes).ok_or(Miss::Absent);
        assert_eq!(cookie(first.as_bytes(), b"sid"), expected, "{headers:?}");
    }
}
