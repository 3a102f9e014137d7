//! Each error of a request is a problem document with its status.

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;

use super::world::{By, World, with_body};
use crate::admin::endpoints::Deadlines;
use crate::admin::model::Stage;
use crate::config::ChangeError;

const BACKENDS: &str = "/v1/pools/main/backends";
const ALPHA: &str = "/v1/pools/main/backends/alpha";

#[tokio::test]
async fn malformed_bodies_are_refused() {
    let world = World::new().await;
    for body in [
        "",
        "{",
        "[]",
        "7",
        r#"{"weight": 9, "weight": 9}"#,
        r#"{"wieght": 9}"#,
        r#"{"weight": 9} x"#,
        "{}",
        r#"{"keep": true}"#,
    ] {
        let answer = world.tell(Method::PATCH, ALPHA, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(!answer.error().is_empty());
    }
    for (body, error) in [
        (
            r#"{"wieght": 9}"#,
            "unknown field `wieght`, did you mean `weight`?",
        ),
        (
            "{",
            "invalid body: expected JSON, and not what is at column 1",
        ),
        ("7", "invalid body: expected a JSON object"),
        (
            r#"{"weight": null}"#,
            "expected at least one field to change (null leaves a field as it is)",
        ),
        (
            r#"{"wieght": null, "state": "ready"}"#,
            "unknown field `wieght`, did you mean `weight`?",
        ),
        (
            r#"{"state": "ready", "weight": [null]}"#,
            "invalid `weight` `[null]`: expected a whole number, 0 to 256",
        ),
        (
            r#"{"weight": {"null": {}}}"#,
            "invalid `weight` `{\"null\": {}}`: expected a whole number, 0 to 256",
        ),
        ("", "invalid body: it is empty: expected a JSON object"),
    ] {
        let answer = world.tell(Method::PATCH, ALPHA, body).await;
        assert_eq!(answer.error(), error);
    }
    let answer = world
        .tell(Method::PATCH, "/v1/pools/main", r#"{"keep": false}"#)
        .await;
    assert_eq!(
        answer.error(),
        "expected at least one field to change (null leaves a field as it is)"
    );
    assert!(world.played.lock().changes.is_empty());
}

#[tokio::test]
async fn values_are_judged_as_those_of_a_file() {
    let world = World::new().await;
    for (method, path, body) in [
        (Method::PATCH, ALPHA, r#"{"weight": 257}"#),
        (Method::PATCH, ALPHA, r#"{"weight": "9"}"#),
        (Method::PATCH, ALPHA, r#"{"weight": -1}"#),
        (Method::PATCH, ALPHA, r#"{"state": 7}"#),
        (Method::PATCH, ALPHA, r#"{"state": "redy"}"#),
        (Method::PATCH, ALPHA, r#"{"max_connections": 4000000000}"#),
        (
            Method::PATCH,
            "/v1/limits",
            r#"{"max_connections": 4000000000}"#,
        ),
        (
            Method::PATCH,
            "/v1/pools/main",
            r#"{"strategy": "leastconn"}"#,
        ),
        (Method::PATCH, "/v1/pools/main", r#"{"queue_timeout": "5"}"#),
        (Method::POST, BACKENDS, r#"{"address": "127.0.0.1"}"#),
        (Method::POST, BACKENDS, r#"{"address": "127.0.0.1:0"}"#),
        (Method::POST, BACKENDS, r#"{"address": "0.0.0.0:1"}"#),
        (
            Method::POST,
            BACKENDS,
            r#"{"address": "127.0.0.1:1", "name": ""}"#,
        ),
        (
            Method::POST,
            BACKENDS,
            r#"{"address": "127.0.0.1:1", "name": "a\u0007"}"#,
        ),
    ] {
        let answer = world.tell(method, path, body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(!answer.error().is_empty());
    }
    assert!(world.played.lock().changes.is_empty());
}

#[tokio::test]
async fn wrong_values_get_the_sentences_of_a_file() {
    let world = World::new().await;
    for (method, path, body, error) in [
        (
            Method::PATCH,
            ALPHA,
            r#"{"state": "redy", "weight": 257}"#,
            "invalid `state` `redy`, did you mean `ready`?; \
             invalid `weight` `257`: expected a whole number, 0 to 256",
        ),
        (
            Method::PATCH,
            ALPHA,
            r#"{"weight": "9"}"#,
            "invalid `weight` `\"9\"`: expected a whole number, 0 to 256: write 9",
        ),
        (
            Method::PATCH,
            ALPHA,
            r#"{"max_connections": 4000000000}"#,
            "invalid `max_connections` `4000000000`: \
             expected a whole number, 1 to 16777216, or \"off\"",
        ),
        (
            Method::POST,
            BACKENDS,
            r#"{"weight": 9}"#,
            "missing field `address`",
        ),
    ] {
        let answer = world.tell(method, path, body).await;
        assert_eq!(answer.error(), error);
    }
    let answer = world.tell(
        Method::PATCH,
        "/v1/pools/main",
        r#"{"strategy": "leastconn"}"#,
    );
    assert!(
        answer
            .await
            .error()
            .contains("did you mean `least_connections`?")
    );
    assert!(world.played.lock().changes.is_empty());
}

#[tokio::test]
async fn refusals_of_the_control_thread_reach_the_client() {
    let world = World::new().await;
    let unknown = ChangeError::Unknown {
        what: "backend",
        name: "alhpa".to_owned(),
        hint: ", did you mean `alpha`?".to_owned(),
    };
    let exists = ChangeError::Exists {
        pool: "main".to_owned(),
        name: "alpha".to_owned(),
    };
    let invalid = ChangeError::Invalid("every weight is 0".to_owned());
    let set = (Method::PATCH, ALPHA, r#"{"weight": 0}"#);
    let add = (
        Method::POST,
        "/v1/pools/main/backends",
        r#"{"address": "127.0.0.1:81", "name": "alpha"}"#,
    );
    for ((method, path, body), refusal, status) in [
        (set.clone(), unknown, StatusCode::NOT_FOUND),
        (add, exists, StatusCode::CONFLICT),
        (set, invalid, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        world.played.lock().refusal = Some(refusal.clone());
        let answer = world.tell(method, path, body).await;
        assert_eq!(
            (answer.status, answer.error()),
            (status, refusal.to_string())
        );
    }
    let answer = world.ask(By::Socket, Method::POST, "/v1/reload").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.error(), "every weight is 0");
}

#[tokio::test]
async fn unknown_names_are_guessed() {
    let world = World::new().await;
    for (path, error) in [
        (
            "/v1/pools/mian",
            "there is no pool called `mian`, did you mean `main`?",
        ),
        (
            "/v1/pools/x/backends",
            "there is no pool called `x`: expected `main` or `other`",
        ),
        (
            "/v1/pools/main/backends/alhpa",
            "there is no backend called `alhpa`, did you mean `alpha`?",
        ),
    ] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, &*answer.error()),
            (StatusCode::NOT_FOUND, error)
        );
    }
    world.played.lock().sessions = 0;
    let answer = world
        .ask(By::Socket, Method::DELETE, "/v1/sessions/0-99")
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.error(), "there is no session called `0-99`");
}

#[tokio::test]
async fn filters_of_sessions_are_by_names_that_there_are() {
    let world = World::new().await;
    world.played.lock().sessions = 0;
    for (query, error) in [
        (
            "listener=wbe",
            Some("there is no listener called `wbe`, did you mean `web`?"),
        ),
        (
            "pool=mian",
            Some("there is no pool called `mian`, did you mean `main`?"),
        ),
        (
            "backend=alhpa",
            Some("there is no backend called `alhpa`, did you mean `alpha`?"),
        ),
        (
            "pool=x&backend=alpha",
            Some("there is no pool called `x`: expected `main` or `other`"),
        ),
        ("listener=web&pool=main&backend=alpha", None),
        ("client=::1", None),
    ] {
        let path = format!("/v1/sessions?{query}");
        for method in [Method::GET, Method::DELETE] {
            let answer = world.ask(By::Socket, method.clone(), &path).await;
            match error {
                Some(error) => {
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {query}");
                    assert_eq!(answer.error(), error);
                }
                None => assert_eq!(answer.status, StatusCode::OK, "{method} {query}"),
            }
        }
        let done = std::mem::take(&mut world.played.lock().done);
        assert_eq!(
            done.iter().any(|one| one.starts_with("kill")),
            error.is_none()
        );
    }
    // A listener that was removed still has sessions.
    world.played.lock().sessions = 1;
    let path = "/v1/sessions?listener=gone";
    for method in [Method::GET, Method::DELETE] {
        let answer = world.ask(By::Socket, method, path).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_explanation_is_of_one_session_or_client() {
    let world = World::new().await;
    let one = "expected either `session` or `client`";
    let expected = "expected an IP address, or an address and a port such as 192.0.2.7:51234";
    let client = format!("invalid client \"web\": {expected}");
    let unknown = "there is no pool called `mian`, did you mean `main`?";
    let listener =
        "there is no pool called `web`, but a listener: `--listener web` looks at its routes";
    for (query, status, error) in [
        ("explain", 400, one),
        ("explain?session=0-1&client=::1", 400, one),
        ("explain?client=web", 400, &*client),
        ("explain?client=::1&last=0", 400, "last: expected 1 to 100"),
        (
            "explain?client=::1&last=101",
            400,
            "last: expected 1 to 100",
        ),
        ("explain/dry_run?pool=mian&client=::1", 404, unknown),
        ("explain/dry_run?pool=web&client=::1", 404, listener),
        ("explain/dry_run?pool=main&client=web", 400, &*client),
        (
            "explain/dry_run?pool=main&listener=web&client=::1",
            400,
            "expected either `pool` or `listener`",
        ),
        (
            "explain/dry_run?pool=main&client=::1&proxy_tlv=authority=*.example",
            400,
            "invalid proxy_tlv: `authority=*.example`: expected one host name",
        ),
        (
            // It is not even compiled.
            "explain/dry_run?pool=main&client=::1&proxy_tlv=0x02=~(",
            400,
            "invalid proxy_tlv: `0x02=~(`: expected one host name",
        ),
        (
            "explain/dry_run?pool=main&client=::1&sni=a%0d%0ab",
            400,
            "sni, url: expected no spaces",
        ),
    ] {
        let path = format!("/v1/{query}");
        let answer = world.ask(By::Socket, Method::GET, &path).await;
        assert_eq!(answer.status.as_u16(), status, "{query}");
        assert_eq!(answer.error(), error, "{query}");
    }
    for query in [
        "client=192.0.2.7",
        "session=0-17&last=100",
        "client=%5B::1%5D:80",
    ] {
        let path = format!("/v1/explain?{query}");
        let answer = world.ask(By::Socket, Method::GET, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
    }
    let done = world.played.lock().done.join("\n");
    assert!(done.contains("Connection([::1]:80), last: 1"), "{done}");
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_too() {
    let world = World::new().await;
    let nothing = "there is nothing at this path: /v1/openapi.json lists all paths";
    for (path, error) in [
        ("/assets/", nothing),
        ("/v2/status", nothing),
        ("/v1/status/", nothing),
        (
            "/v1/pools//backends",
            "there is no pool called ``: expected `main` or `other`",
        ),
        ("/healthz/x", nothing),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.error(), error);
    }
    let answer = world.ask(By::Socket, Method::PUT, "/v1/pools/main").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers[header::ALLOW], "GET,HEAD,PATCH");
    assert!(!answer.error().is_empty());
    let answer = world.get("/v1/pools/%ff").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.error().is_empty());
}

#[tokio::test]
async fn parameters_are_those_of_the_description() {
    let world = World::new().await;
    let unread = "cannot read the query: ";
    for (path, error) in [
        ("/v1/status?x=1", "this endpoint takes no query"),
        ("/v1/sessions?poll=main", unread),
        (
            "/v1/sessions?limit=x",
            "cannot read the query: limit: invalid digit found in string",
        ),
        ("/v1/sessions?limit=10001", "limit: 10000 sessions at most"),
        ("/v1/sessions?client=127.0.0", unread),
        ("/v1/events?recent=-1", unread),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.error().starts_with(error), "{}", answer.error());
        assert!(!answer.error().contains("eserialize"), "{}", answer.error());
    }
}

#[tokio::test]
async fn all_sessions_are_closed_only_with_all_true() {
    let world = World::new().await;
    for query in [
        "",
        "?all=false",
        "?all=true&pool=main",
        "?limit=5",
        "?pol=main",
    ] {
        let path = format!("/v1/sessions{query}");
        let answer = world.ask(By::Socket, Method::DELETE, &path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert!(world.played.lock().done.is_empty());
}

#[tokio::test]
async fn bodies_are_json_of_1_mib_at_most() {
    let world = World::new().await;
    let padded = |bytes: usize| r#"{"weight": 9}"#.to_owned() + &" ".repeat(bytes - 13);
    let answer = world.tell(Method::PATCH, ALPHA, &padded(1 << 20)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = world
        .tell(Method::PATCH, ALPHA, &padded((1 << 20) + 1))
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        answer.error(),
        "the body is too large: expected 1 MiB at most"
    );
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let request = world.request(By::Socket, Method::PATCH, ALPHA);
        let mut request = with_body(request, r#"{"weight": 9}"#);
        let media_type = HeaderValue::from_static(media_type);
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        let answer = world.send(By::Socket, request).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(!answer.error().is_empty());
    }
    let request = world.request(By::Socket, Method::POST, "/v1/reload");
    let request = request.map(|_| Full::from(Bytes::from_static(b"{}")));
    let answer = world.send(By::Socket, request).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let answer = world.tell(Method::POST, "/v1/reload", "{}").await;
    assert_eq!(answer.error(), "this endpoint takes no body");
    assert!(world.played.lock().done.is_empty());
}

#[tokio::test]
async fn readiness_follows_the_stage() {
    let world = World::new().await;
    for (stage, status) in [
        (Stage::Starting, StatusCode::SERVICE_UNAVAILABLE),
        (Stage::Ready, StatusCode::OK),
        (Stage::Leaving, StatusCode::SERVICE_UNAVAILABLE),
        (Stage::Left, StatusCode::SERVICE_UNAVAILABLE),
        (Stage::Stopping, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        world.played.lock().stage = stage;
        assert_eq!(world.get("/readyz").await.status, status);
        assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_control_thread_that_ended_or_hangs_gets_503_or_504() {
    let deadlines = Deadlines {
        answer: std::time::Duration::from_millis(50),
        ..Deadlines::default()
    };
    let world = World::with(deadlines).await;
    world.played.lock().is_stuck = true;
    for path in ["/healthz", "/readyz", "/v1/pools"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(answer.error().contains("busy"));
    }
    world.control.abort();
    while !world.control.is_finished() {
        tokio::task::yield_now().await;
    }
    let answer = world.get("/healthz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.error(), "the balancer is ending");
}
