//! Access rights: every endpoint by every caller, and the limits of a browser.

use axum::http::{HeaderValue, Method, StatusCode, header};

use super::world::{By, READ, WRITE, World, with_body};
use crate::admin::endpoints::{Endpoint, endpoints};
use crate::admin::{Author, Role};
use crate::config::AdminHttp;

/// A path with its parameters filled in.
fn filled(endpoint: &Endpoint) -> String {
    endpoint
        .path
        .replace("{listener}", "a")
        .replace("{route}", "1")
        .replace("{id}", "0-1")
        .replace("{pool}", "main")
        .replace("{backend}", "alpha")
        .replace("{prefix}", "::1")
}

/// What a request of an endpoint needs to succeed, beside its path.
fn sample(endpoint: &Endpoint) -> (&'static str, &'static str) {
    match endpoint.id {
        "set_listener" | "set_global" => ("", r#"{"max_connections": 9}"#),
        "set_routes" => ("", r#"{"routes": []}"#),
        "set_route" => ("", r#"{"pools": [{"name": "main", "weight": 9}]}"#),
        "set_pool" => ("", r#"{"strategy": "random"}"#),
        "add_backend" => ("", r#"{"address": "127.0.0.1:80"}"#),
        "set_backend" => ("", r#"{"weight": 9}"#),
        "ban" => ("", r#"{"prefix": "::1"}"#),
        "edit_access_list" => ("", r#"{"deny": ["::1"]}"#),
        "explain" => ("?session=0-1", ""),
        "explain_dry_run" => ("?pool=main&client=::1", ""),
        "kill_sessions" | "unban_those" => ("?all=true", ""),
        _ => ("", ""),
    }
}

#[tokio::test]
async fn every_endpoint_answers_only_allowed_callers() {
    let world = World::new().await;
    let callers = [
        (By::Socket, Some(Role::Write)),
        (By::Http(Some(WRITE)), Some(Role::Write)),
        (By::Http(Some(READ)), Some(Role::Read)),
        (By::Http(Some("a-token-of-somebody-else")), None),
        (By::Http(None), None),
    ];
    for endpoint in endpoints() {
        for (by, role) in callers {
            let what = format!("{} {} {by:?}", endpoint.method, endpoint.path);
            let (query, body) = sample(&endpoint);
            let path = filled(&endpoint) + query;
            let mut request = world.request(by, endpoint.method.clone(), &path);
            if !body.is_empty() {
                request = with_body(request, body);
            }
            let before = world.played.lock().calls;
            // A stream of events has no end: read its head only.
            let expected = match (endpoint.role, role) {
                (None, _) => endpoint.success,
                (Some(_), None) => StatusCode::UNAUTHORIZED,
                (Some(wanted), Some(role)) if role < wanted => StatusCode::FORBIDDEN,
                (Some(_), Some(_)) => endpoint.success,
            };
            if endpoint.id == "events" && expected.is_success() {
                *request.method_mut() = Method::HEAD;
            }
            let answer = world.send(by, request).await;
            assert_eq!(answer.status, expected, "{what}: {:?}", answer.body);
            assert_eq!(
                answer.headers["x-content-type-options"], "nosniff",
                "{what}"
            );
            assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
            if !expected.is_success() {
                assert!(answer.headers.contains_key("www-authenticate"), "{what}");
                assert!(!answer.error().is_empty(), "{what}");
                // A request without the right does not reach the control thread.
                assert_eq!(world.played.lock().calls, before, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn changes_are_audited_with_their_author() {
    let world = World::new().await;
    for (by, author) in [
        (By::Socket, Author::Socket),
        (By::Http(Some(WRITE)), Author::Token(Role::Write)),
    ] {
        let request = world.request(by, Method::PATCH, "/v1/limits");
        let answer = world
            .send(by, with_body(request, r#"{"max_connections": 0}"#))
            .await;
        assert_eq!(answer.json()["snapshot"], 7);
        assert_eq!(world.played.lock().changes.pop().unwrap().1, author);
    }
}

#[tokio::test]
async fn tokens_are_read_from_the_header_of_authorization_alone() {
    let world = World::new().await;
    let status = async |value: &str| {
        let mut request = world.request(By::Http(None), Method::GET, "/v1/status");
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        world.send(By::Http(None), request).await.status
    };
    for fine in [format!("Bearer {READ}"), format!("bearer  {READ}")] {
        assert_eq!(status(&fine).await, StatusCode::OK, "{fine}");
    }
    let shorter = &READ[..READ.len() - 1];
    let long = "x".repeat(1_000);
    for wrong in [
        READ.to_owned(),
        format!("Basic {READ}"),
        format!("Bearer {shorter}"),
        format!("Bearer {READ}x"),
        format!("Bearer {long}"),
        "Bearer ".to_owned(),
        "Bearer".to_owned(),
    ] {
        assert_eq!(status(&wrong).await, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    // Two headers are an error, wherever the right one stands.
    let mut request = world.request(By::Http(Some(READ)), Method::GET, "/v1/status");
    let other = HeaderValue::from_static("Bearer x");
    request.headers_mut().append(header::AUTHORIZATION, other);
    let answer = world.send(By::Http(None), request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn other_hosts_are_refused() {
    let world = World::new().await;
    let port = world.bound.port();
    let status = async |host: &str, path: &str| {
        let mut request = world.request(By::Http(Some(READ)), Method::GET, path);
        let host = HeaderValue::from_str(host).unwrap();
        request.headers_mut().insert(header::HOST, host);
        world.send(By::Http(None), request).await.status
    };
    for here in ["127.0.0.1", "localhost", "LocalHost", "[::1]", "127.8.8.8"] {
        // `ssh -L` listens on a port of its own.
        for port in [format!(":{port}"), format!(":{}", port ^ 1), String::new()] {
            let host = format!("{here}{port}");
            assert_eq!(status(&host, "/v1/status").await, StatusCode::OK, "{host}");
        }
    }
    for there in [
        format!("127.evil.com:{port}"),
        format!("127.0.0.1.evil.com:{port}"),
        format!("localhost.evil.com:{port}"),
        format!("evil.com:{port}"),
        format!("127.0.0.1@evil.com:{port}"),
        format!("evil.com@127.0.0.1:{port}"),
        format!("0.0.0.0:{port}"),
        format!("10.0.0.1:{port}"),
        "localhost:".to_owned(),
        "lb.example.com".to_owned(),
        String::new(),
    ] {
        // They do not even get the health.
        for path in ["/v1/status", "/healthz"] {
            let status = status(&there, path).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "`{there}`");
        }
    }
    let other = format!("http://evil.com:{port}/v1/status");
    let here = format!("127.0.0.1:{port}");
    assert_eq!(status(&here, &other).await, StatusCode::FORBIDDEN);
    let mut request = world.request(By::Http(Some(READ)), Method::GET, "/v1/status");
    request.headers_mut().remove(header::HOST);
    *request.version_mut() = axum::http::Version::HTTP_10;
    let answer = world.send(By::Http(None), request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let world = World::new().await;
    let status = async |origin: &str| {
        let mut request = world.request(By::Http(Some(READ)), Method::GET, "/v1/status");
        let origin = HeaderValue::from_str(origin).unwrap();
        request.headers_mut().insert(header::ORIGIN, origin);
        world.send(By::Http(None), request).await.status
    };
    let own = format!("http://{}", world.bound);
    assert_eq!(status(&own).await, StatusCode::OK);
    for other in [
        format!("https://{}", world.bound),
        "http://evil.com".to_owned(),
        "http://127.0.0.1".to_owned(),
        format!("{own}.evil.com"),
        "null".to_owned(),
        String::new(),
    ] {
        assert_eq!(status(&other).await, StatusCode::FORBIDDEN, "{other}");
    }
}

#[tokio::test]
async fn a_reverse_proxy_is_let_in_by_its_origin() {
    let world = World::serving(AdminHttp {
        origins: vec!["https://lb.example.com".to_owned()],
        ..AdminHttp::default()
    });
    let world = world.await;
    let own = world.bound.to_string();
    let status = async |host: &str, origin: Option<&str>| {
        let mut request = world.request(By::Http(Some(READ)), Method::GET, "/v1/status");
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        world.send(By::Http(None), request).await.status
    };
    // It passes the Host on, or names the address that it connects to.
    for host in ["lb.example.com", "LB.example.com", &own] {
        for origin in [None, Some("https://lb.example.com")] {
            assert_eq!(
                status(host, origin).await,
                StatusCode::OK,
                "{host} {origin:?}"
            );
        }
    }
    for (host, origin) in [
        ("lb.example.com:8443", None),
        ("evil.com", Some("https://lb.example.com")),
        ("lb.example.com", Some("http://lb.example.com")),
        ("lb.example.com", Some("https://lb.example.com.evil.com")),
        (&own, Some("https://evil.com")),
    ] {
        let status = status(host, origin).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host} {origin:?}");
    }
}

/// As the demo answers.
fn open() -> AdminHttp {
    AdminHttp {
        is_open: true,
        ..AdminHttp::default()
    }
}

/// Images and scripts of another page send no `Origin`.
#[tokio::test]
async fn what_another_page_embeds_is_refused() {
    let world = World::serving(open()).await;
    let status = async |site: &str, mode: &str, path: &str| {
        let mut request = world.request(By::Http(None), Method::GET, path);
        let headers = request.headers_mut();
        headers.insert("sec-fetch-site", HeaderValue::from_str(site).unwrap());
        headers.insert("sec-fetch-mode", HeaderValue::from_str(mode).unwrap());
        world.send(By::Http(None), request).await.status
    };
    for site in ["same-origin", "none"] {
        assert_eq!(
            status(site, "cors", "/v1/status").await,
            StatusCode::OK,
            "{site}"
        );
    }
    for site in ["cross-site", "same-site"] {
        let refused = status(site, "no-cors", "/v1/status").await;
        assert_eq!(refused, StatusCode::FORBIDDEN, "{site}");
        assert_eq!(
            status(site, "navigate", "/").await,
            StatusCode::OK,
            "{site}"
        );
    }
}

#[tokio::test]
async fn callers_without_a_token_may_only_read_where_that_is_open() {
    let world = World::serving(open()).await;
    let role = async |by: By| {
        let answer = world.ask(by, Method::GET, "/v1/caller").await;
        answer.json()["role"].as_str().map(str::to_owned)
    };
    assert_eq!(role(By::Http(None)).await.as_deref(), Some("read"));
    assert_eq!(role(By::Http(Some("another"))).await, None);
    assert_eq!(role(By::Http(Some(WRITE))).await.as_deref(), Some("write"));
    for (method, path) in [(Method::POST, "/v1/reload"), (Method::GET, "/v1/config")] {
        let answer = world.ask(By::Http(None), method, path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    let closed = World::new().await;
    let answer = closed.ask(By::Http(None), Method::GET, "/v1/caller").await;
    assert!(answer.json()["role"].is_null());
}

#[tokio::test]
async fn no_page_of_another_origin_is_let_in_by_a_preflight() {
    let world = World::new().await;
    let answer = world
        .ask(By::Http(None), Method::OPTIONS, "/v1/reload")
        .await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let cors = answer
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control"));
    assert_eq!(cors.count(), 0);
}
