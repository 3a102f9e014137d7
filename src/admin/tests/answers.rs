//! Requests, their commands, and their answers.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::world::{By, READ, World, file, listener, temporary};
use crate::admin::{AdminListener, Author, Handle, Tokens, serve};
use crate::config::{
    AccessEdits, AdminHttp, AdminState, Backend, Change, ChangeError, Patch, RouteList, RouteRef,
};

#[tokio::test]
async fn names_may_hold_any_character() {
    let world = World::new().await;
    for (path, name) in [
        ("alpha", "alpha"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("10.0.0.1%3A80", "10.0.0.1:80"),
        ("unix:%2Frun%2Fa%20b%252F.sock", "unix:/run/a b%2F.sock"),
    ] {
        let path = format!("/v1/pools/main/backends/{path}");
        assert_eq!(world.get(&path).await.json()["name"], name);
        let answer = world.ask(By::Socket, Method::DELETE, &path).await;
        assert_eq!(answer.status, StatusCode::OK);
        let change = Change::RemoveBackend {
            pool: "main".to_owned(),
            backend: name.to_owned(),
        };
        let reported = world.played.lock().changes.pop().unwrap();
        assert_eq!(reported, (change, Author::Socket));
    }
}

#[tokio::test]
async fn backends_are_added_as_described() {
    let world = World::new().await;
    let path = "/v1/pools/main/backends";
    let answer = world
        .tell(Method::POST, path, r#"{"address": "localhost:81"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let changed = json!({ "snapshot": 7, "changed": true });
    assert_eq!(answer.json(), changed);
    let added = || world.played.lock().changes.pop().unwrap();
    let add = |backend| Change::AddBackend {
        pool: "main".to_owned(),
        backend: Box::new(backend),
    };
    let plain = Backend::written("localhost:81".parse().unwrap());
    assert_eq!(added(), (add(plain.clone()), Author::Socket));
    let body = r#"{"address": "unix:/a", "name": "b", "weight": 0, "max_connections": 5,
        "backup": true, "group": "g", "state": "maint", "keep": true}"#;
    assert_eq!(
        world.tell(Method::POST, path, body).await.status,
        StatusCode::CREATED
    );
    let full = Backend {
        name: "b".to_owned(),
        address: "unix:/a".parse().unwrap(),
        host: None,
        weight: 0,
        max_connections: NonZeroU32::new(5),
        backup: true,
        group: Some("g".to_owned()),
        state: AdminState::Maint,
        ..plain
    };
    assert_eq!(added(), (add(full), Author::Socket));
}

#[tokio::test]
async fn a_field_that_is_left_out_keeps_its_value() {
    let world = World::new().await;
    let changed = async |path: &str, body: &str| {
        let answer = world.tell(Method::PATCH, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{body}: {:?}", answer.body);
        world.played.lock().changes.pop().unwrap().0
    };
    let backend = |settings| Change::SetBackend {
        pool: "main".to_owned(),
        backend: "alpha".to_owned(),
        patch: Patch::all(settings),
    };
    let path = "/v1/pools/main/backends/alpha";
    let change = changed(path, r#"{"weight": 9}"#).await;
    assert_eq!(change, backend(&[("weight", "9")]));
    let change = changed(path, r#"{"max_connections": 0, "state": "drain"}"#).await;
    assert_eq!(
        change,
        backend(&[("max_connections", "off"), ("state", "drain")])
    );
    let pool = |settings| Change::SetPool {
        pool: "main".to_owned(),
        patch: Patch::all(settings),
    };
    let path = "/v1/pools/main";
    let change = changed(path, r#"{"strategy": "random", "max_connections": 3}"#).await;
    assert_eq!(
        change,
        pool(&[("strategy", "random"), ("max_connections", "3")])
    );
    // The control thread reads the other half of the queue.
    let change = changed(path, r#"{"queue_max": 3}"#).await;
    assert_eq!(change, pool(&[("queue_max", "3")]));
    let change = changed(path, r#"{"queue_timeout": "4s"}"#).await;
    assert_eq!(change, pool(&[("queue_timeout", "4s")]));
    let change = changed("/v1/listeners/web", r#"{"max_connections": 3}"#).await;
    let listener = "web".to_owned();
    let patch = Patch::all(&[("max_connections", "3")]);
    assert_eq!(change, Change::SetListener { listener, patch });
    let limits = world.get("/v1/limits").await.json();
    assert_eq!(limits, json!({ "connections": 3, "max_connections": 100 }));
    let change = changed("/v1/limits", r#"{"max_connections": 0}"#).await;
    let patch = Patch::all(&[("max_connections", "off")]);
    assert_eq!(change, Change::SetGlobal { patch });
    let change = changed("/v1/limits", r#"{"max_connections": "off"}"#).await;
    let patch = Patch::all(&[("max_connections", "off")]);
    assert_eq!(change, Change::SetGlobal { patch });
}

#[tokio::test]
async fn bans_are_listed_and_changed() {
    let world = World::new().await;
    let done = || world.played.lock().done.pop().unwrap();
    assert_eq!(world.get("/v1/bans").await.json()[0]["hits"], 3);
    let path = "/v1/bans?within=192.0.2.0/24&sort=hits&by=hand&limit=7";
    assert_eq!(world.get(path).await.status, StatusCode::OK);
    let asked = done();
    assert!(asked.contains("sort: Hits, limit: Some(7)"), "{asked}");
    for wrong in ["within=192.0.2.1/24", "sort=x", "limit=1000001", "x=y"] {
        let answer = world.get(&format!("/v1/bans?{wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let body = r#"{"prefix": "192.0.2.7", "for": "10m", "reason": "floods"}"#;
    let answer = world.tell(Method::POST, "/v1/bans", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(
        done(),
        "ban prefix 192.0.2.7, for 10m, reason floods over the admin socket"
    );
    for (body, status) in [
        (r#"{"for": "10m"}"#, StatusCode::BAD_REQUEST),
        (r#"{"prefix": 7}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (
            r#"{"prefix": "10.1.0.0/8"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            r#"{"prefix": "::1", "for": "1ms"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let answer = world.tell(Method::POST, "/v1/bans", body).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.body);
    }
    let unban = |path| world.ask(By::Socket, Method::DELETE, path);
    assert_eq!(
        unban("/v1/bans/192.0.2.0%2F24").await.status,
        StatusCode::OK
    );
    assert_eq!(done(), "unban 192.0.2.0/24 over the admin socket");
    let those = unban("/v1/bans?within=10.0.0.0/8&by=rule").await;
    assert_eq!(those.json()["bans"], 7);
    assert!(done().contains("by: Some(Rule), all: false"));
    for wrong in ["", "?all=true&by=rule", "?by=file", "?client=::1"] {
        let path = format!("/v1/bans{wrong}");
        let answer = world.ask(By::Socket, Method::DELETE, &path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let malformed = unban("/v1/bans/office").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    let refusal = ChangeError::Invalid("it is full".to_owned());
    world.played.lock().refusal = Some(refusal);
    let answer = world
        .tell(Method::POST, "/v1/bans", r#"{"prefix": "::1"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(unban("/v1/bans/::1").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_route_is_asked_for() {
    let world = World::new().await;
    let path = "/v1/listeners/web/route?client=::1&sni=a.example&alpn=h2";
    assert_eq!(world.get(path).await.status, StatusCode::OK);
    let done = world.played.lock().done.pop().unwrap();
    assert!(done.starts_with("web Some(::1) "), "{done}");
    let unknown = world.get("/v1/listeners/wbe/route").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let unsaid = world
        .get("/v1/listeners/plain/route?sni=a&http_host=a")
        .await;
    assert_eq!(unsaid.status, StatusCode::BAD_REQUEST);
    for query in [
        "protocol=ssh&http_host=a",
        "tls_client=dns%3D*.a",
        "tls_client=robot",
        "protocol=sch",
        "http_path=/a%20b",
        "client=web",
    ] {
        let path = format!("/v1/listeners/web/route?{query}");
        assert_eq!(
            world.get(&path).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
}

#[tokio::test]
async fn routes_are_shown_and_changed() {
    let world = World::new().await;
    let all = "/v1/listeners/web/routes";
    let shown = world.get(all).await.json();
    assert_eq!(shown, json!({ "version": "", "routes": null }));
    let unknown = world.get("/v1/listeners/wbe/routes").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let changed = async |method, path: &str, body: &str| {
        let answer = world.tell(method, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        world.played.lock().changes.pop().unwrap().0
    };
    let body = r#"{"routes": [{"sni": ["a.example"], "pool": "x"}], "version": "01"}"#;
    let (routes, version) = RouteList::read(body.as_bytes()).unwrap();
    assert_eq!(version.as_deref(), Some("01"));
    let listener = "web".to_owned();
    let change = Change::SetRoutes {
        listener,
        routes,
        version,
    };
    assert_eq!(changed(Method::PUT, all, body).await, change);
    let one = "/v1/listeners/web/routes/2";
    let body = r#"{"pools": [{"name": "x", "weight": 5}], "version": null}"#;
    let Change::WeighRoute {
        route,
        weights,
        version,
        ..
    } = changed(Method::PATCH, one, body).await
    else {
        panic!("another change");
    };
    assert_eq!((route, version), (RouteRef::Number(2), None));
    assert_eq!(weights.to_string(), "x 5");
}

#[tokio::test]
async fn changes_of_routes_that_are_malformed_or_too_late_are_refused() {
    let world = World::new().await;
    let all = "/v1/listeners/web/routes";
    let one = "/v1/listeners/web/routes/2";
    for (method, path, body, status) in [
        (Method::PUT, all, "{}", StatusCode::UNPROCESSABLE_ENTITY),
        (
            Method::PUT,
            all,
            r#"{"routes": {}}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            Method::PUT,
            all,
            r#"{"routes": [{}]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (Method::PATCH, one, "{}", StatusCode::BAD_REQUEST),
        (
            Method::PATCH,
            one,
            r#"{"pools": []}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            Method::PATCH,
            one,
            r#"{"pools": [{"name": "x", "weight": 1001}]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            Method::PATCH,
            "/v1/listeners/web/routes/%0A",
            r#"{"pools": [{"name": "x", "weight": 1}]}"#,
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let answer = world.tell(method, path, body).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.body);
    }
    let listener = "web".to_owned();
    world.played.lock().refusal = Some(ChangeError::Stale { listener });
    let stale = world.tell(Method::PUT, all, r#"{"routes": []}"#).await;
    assert_eq!(stale.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn access_lists_are_shown_and_edited() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/access_lists").await.json()[0]["refused"], 0);
    let path = "/v1/access_lists/office?client=192.0.2.7";
    assert_eq!(world.get(path).await.status, StatusCode::OK);
    assert_eq!(
        world.played.lock().done.pop().unwrap(),
        "office Some(192.0.2.7)"
    );
    let unknown = world.get("/v1/access_lists/ofice").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let path = "/v1/access_lists/office";
    let body = r#"{"deny": ["192.0.2.0/24"], "remove": ["::1"]}"#;
    let answer = world.tell(Method::PATCH, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let (change, _) = world.played.lock().changes.pop().unwrap();
    let edits = AccessEdits {
        deny: vec!["192.0.2.0/24".parse().unwrap()],
        remove: vec!["::1".parse().unwrap()],
        ..AccessEdits::default()
    };
    let edits = edits.checked().unwrap();
    let list = "office".to_owned();
    assert_eq!(change, Change::EditAccessList { list, edits });
    for (body, status) in [
        ("{}", StatusCode::BAD_REQUEST),
        (r#"{"deny": "::1"}"#, StatusCode::BAD_REQUEST),
        (
            r#"{"deny": ["10.1.0.0/8"]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            r#"{"deny": ["::1"], "allow": ["::1"]}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let answer = world.tell(Method::PATCH, path, body).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.body);
    }
}

/// Clients may still send `keep`, which has no effect.
#[tokio::test]
async fn to_keep_a_change_has_no_effect() {
    let world = World::new().await;
    let path = "/v1/pools/main/backends/alpha";
    for (query, keep) in [("?keep=true", true), ("?keep=false", false), ("", false)] {
        let path = format!("{path}{query}");
        world.ask(By::Socket, Method::DELETE, &path).await;
        let body = format!(r#"{{"weight": 9, "keep": {keep}}}"#);
        let path = "/v1/pools/main/backends/alpha";
        world.tell(Method::PATCH, path, &body).await;
        assert_eq!(world.played.lock().changes.drain(..).count(), 2);
    }
}

#[tokio::test]
async fn the_logs_are_opened_again() {
    let world = World::new().await;
    let answer = world.ask(By::Socket, Method::POST, "/v1/reopen").await;
    assert_eq!(answer.json(), json!({ "files": ["access.log"] }));
}

#[tokio::test]
async fn a_balancer_leaves_and_joins() {
    let world = World::new().await;
    let asks = async |path: &str| world.ask(By::Socket, Method::POST, path).await;
    let answer = asks("/v1/leave?wait_s=0.5").await;
    assert_eq!(answer.json(), json!({ "stage": "leaving" }));
    assert_eq!(asks("/v1/join").await.json(), json!({ "stage": "ready" }));
    let done = [
        "leave 500ms over the admin socket",
        "join over the admin socket",
    ];
    assert_eq!(world.played.lock().done, done);
    let answer = asks("/v1/leave?wait_s=-1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.error(), "wait_s: expected 0 to 86400");
}

#[tokio::test]
async fn a_reload_answers_with_its_notes() {
    let world = World::new().await;
    let answer = world.ask(By::Socket, Method::POST, "/v1/reload").await;
    let notes = ["workers takes effect at the next start"];
    assert_eq!(
        answer.json(),
        json!({ "snapshot": 8, "changed": true, "notes": notes })
    );
}

#[tokio::test]
async fn sessions_are_those_of_the_filter() {
    let world = World::new().await;
    let done = || world.played.lock().done.pop().unwrap();
    let query = "?pool=main&client=%3A%3A1&limit=5";
    world.get(&format!("/v1/sessions{query}")).await;
    assert_eq!(
        done(),
        "SessionFilter { id: None, listener: None, pool: Some(\"main\"), backend: None, \
         client: Some(::1), limit: Some(5), all: false }"
    );
    let answer = world
        .ask(
            By::Socket,
            Method::DELETE,
            "/v1/sessions?backend=10.0.0.1%3A80",
        )
        .await;
    assert_eq!(answer.json(), json!({ "sessions": 1 }));
    assert!(done().contains("backend: Some(\"10.0.0.1:80\")"));
    let answer = world.get("/v1/sessions?all=true").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    world
        .ask(By::Socket, Method::DELETE, "/v1/sessions/0-17")
        .await;
    assert!(done().contains("id: Some(SessionId { worker: 0, number: 17 })"));
    world
        .ask(By::Socket, Method::DELETE, "/v1/sessions?all=true")
        .await;
    assert_eq!(
        done(),
        "kill SessionFilter { id: None, listener: None, pool: None, backend: None, \
         client: None, limit: None, all: true } over the admin socket"
    );
}

#[tokio::test]
async fn the_description_is_served() {
    let world = World::new().await;
    let answer = world
        .ask(By::Http(Some(READ)), Method::GET, "/v1/openapi.json")
        .await;
    assert_eq!(answer.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_socket_is_private_and_removed() {
    let mut world = World::new().await;
    let mode = std::fs::metadata(&world.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let taken = listener(&world.socket).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::ResourceBusy);
    world.stop = None;
    for server in world.servers.drain(..) {
        super::world::bounded(server).await.unwrap();
    }
    assert!(!world.socket.exists());
    // A socket file that was left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&world.socket).unwrap());
    drop(listener(&world.socket).unwrap());
    assert!(!world.socket.exists());
}

#[tokio::test]
async fn http_is_for_this_machine() {
    let dir = temporary();
    let admin = AdminHttp {
        bind: "0.0.0.0:0".parse().unwrap(),
        read_token: Some(file(&dir, "token", READ, 0o600)),
        ..AdminHttp::default()
    };
    let tokens = Tokens::read(&admin.tokens()).unwrap();
    for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = AdminListener::http(bind.parse().unwrap(), tokens.clone()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{bind}");
    }
}

#[test]
fn it_works_in_the_runtime_of_the_control_thread() {
    tokio_uring::start(async {
        let world = World::new().await;
        assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
        let answer = world
            .ask(By::Http(Some(READ)), Method::GET, "/v1/pools")
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let path = world.socket.with_extension("two");
        let (handle, _calls) = Handle::new();
        let (stop, stopped) = tokio::sync::watch::channel(());
        let server = tokio::spawn(serve(listener(&path).unwrap(), handle, stopped));
        drop(stop);
        super::world::bounded(server).await.unwrap();
    });
}
