//! The files of the page, and what their answers say to the browser.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::http::{HeaderValue, Method, StatusCode, header};

use super::world::{By, READ, World};
use crate::admin::page::{FILES, JS};

#[tokio::test]
async fn the_page_takes_no_token_and_lets_nothing_else_run() {
    let world = World::new().await;
    for file in FILES {
        for by in [By::Http(None), By::Http(Some(READ)), By::Socket] {
            let answer = world.ask(by, Method::GET, file.path).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", file.path);
            assert_eq!(answer.headers[header::CONTENT_TYPE], file.media_type);
            assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(answer.headers[header::CACHE_CONTROL], "no-cache");
            assert_eq!(answer.headers[header::X_FRAME_OPTIONS], "DENY");
            let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str();
            let policy = policy.unwrap();
            assert!(policy.starts_with("default-src 'self';"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(answer.body, file.bytes);
        }
    }
    assert_eq!(
        world.played.lock().calls,
        0,
        "the page asks for nothing yet"
    );
    for (method, path) in [
        (Method::POST, "/"),
        (Method::GET, "/assets/"),
        (Method::GET, "/x"),
    ] {
        let answer = world.ask(By::Http(None), method, path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn a_known_version_is_not_sent_again() {
    let world = World::new().await;
    let by = By::Http(None);
    let answer = world.ask(by, Method::GET, "/").await;
    let tag: String = answer.headers[header::ETAG].to_str().unwrap().to_owned();
    let other = world.ask(by, Method::GET, "/assets/app.js").await;
    assert_ne!(other.headers[header::ETAG], tag);
    let asked = async |known: &str| {
        let mut request = world.request(by, Method::GET, "/");
        let known = HeaderValue::from_str(known).unwrap();
        request.headers_mut().insert(header::IF_NONE_MATCH, known);
        world.send(by, request).await
    };
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let answer = asked(&known).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(answer.headers[header::ETAG], tag);
        assert!(answer.headers.contains_key(header::CONTENT_SECURITY_POLICY));
        assert!(answer.body.is_empty());
    }
    for other in ["\"x\"", "", &tag[1..]] {
        assert_eq!(asked(other).await.status, StatusCode::OK, "{other}");
    }
}

/// The sources are read, so that a slip is found without a browser too.
#[test]
fn sources_keep_to_the_rules_of_the_page() {
    let own = || FILES.iter().filter(|file| !file.path.contains("uplot"));
    let mut wrong = Vec::new();
    // The name of SVG is an address that nothing asks.
    let is_fine = |line: &str| line.contains("http://www.w3.org/2000/svg");
    for file in own() {
        let text = std::str::from_utf8(file.bytes).unwrap();
        for line in text.lines().filter(|line| !is_fine(line)) {
            let words = [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "localStorage",
                "sessionStorage",
                "document.cookie",
                "eval(",
                "new Function",
                "http://",
                "https://",
                "style=\"",
                " onclick=\"",
                "@import",
                "url(",
            ];
            let found = words.iter().filter(|word| line.contains(**word));
            wrong.extend(found.map(|word| format!("{}: {word}: {line}", file.path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let html = std::str::from_utf8(FILES[0].bytes).unwrap();
    let inline = html.matches("<script").count() - html.matches("<script src=\"/assets/").count();
    assert_eq!((inline, html.matches("<style").count()), (0, 0));
}

/// A file that is not in the table would be missing in the program alone.
#[test]
fn every_file_of_the_page_is_served() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
    let mut there = BTreeSet::new();
    for (directory, prefix) in [("", "/assets/"), ("views", "/assets/views/")] {
        for entry in fs::read_dir(room.join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if [".js", ".css", ".svg"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                there.insert(format!("{prefix}{name}"));
            }
        }
    }
    let served = FILES.iter().map(|file| file.path.to_owned());
    let own = |path: &String| path != "/" && !path.contains("uplot");
    assert_eq!(there, served.filter(own).collect());
    // Each module that another one imports is among them.
    for file in FILES.iter().filter(|file| file.media_type == JS) {
        let text = std::str::from_utf8(file.bytes).unwrap();
        let parts = text.split(" from '").skip(1);
        for name in parts
            .filter_map(|rest| rest.split('\'').next())
            .filter(|n| n.starts_with('.'))
        {
            let base = file.path.rsplit_once('/').unwrap().0;
            let path = match name.strip_prefix("../") {
                Some(name) => format!("{}/{name}", base.rsplit_once('/').unwrap().0),
                None => format!("{base}/{}", name.trim_start_matches("./")),
            };
            assert!(there.contains(&path), "{}: {path}", file.path);
        }
    }
}
