//! The dashboard: a page at `/` that asks the API as any other client does. Its files are part of
//! the program, plain as they are edited: nothing builds them. They hold nothing secret, so they
//! take no token; the figures that the page shows do.
//!
//! The browser is told to run nothing but these files and to ask no other host: names that others
//! choose can't become code, even if the page had a mistake.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use xxhash_rust::xxh3::xxh3_128;

/// A file of the page.
pub(super) struct PageFile {
    pub(super) path: &'static str,
    pub(super) media_type: &'static str,
    pub(super) bytes: &'static [u8],
}

/// Rows of a path, a media type and the file that is served there.
macro_rules! files {
    ($($path:literal $media_type:ident $file:literal,)+) => {
        pub(super) const FILES: &[PageFile] = &[$(PageFile {
            path: $path,
            media_type: $media_type,
            bytes: include_bytes!($file),
        }),+];
    };
}

files! {
    "/" HTML "index.html",
    "/assets/style.css" CSS "style.css",
    "/assets/icon.svg" SVG "icon.svg",
    "/assets/uplot.js" JS "uplot/uPlot.iife.min.js",
    "/assets/uplot.css" CSS "uplot/uPlot.min.css",
    "/assets/uplot.txt" TEXT "uplot/LICENSE",
    "/assets/app.js" JS "app.js",
    "/assets/api.js" JS "api.js",
    "/assets/charts.js" JS "charts.js",
    "/assets/dialog.js" JS "dialog.js",
    "/assets/dom.js" JS "dom.js",
    "/assets/format.js" JS "format.js",
    "/assets/problems.js" JS "problems.js",
    "/assets/signin.js" JS "signin.js",
    "/assets/store.js" JS "store.js",
    "/assets/table.js" JS "table.js",
    "/assets/views/backends.js" JS "views/backends.js",
    "/assets/views/bans.js" JS "views/bans.js",
    "/assets/views/config.js" JS "views/config.js",
    "/assets/views/distribution.js" JS "views/distribution.js",
    "/assets/views/events.js" JS "views/events.js",
    "/assets/views/explain.js" JS "views/explain.js",
    "/assets/views/health.js" JS "views/health.js",
    "/assets/views/history.js" JS "views/history.js",
    "/assets/views/listeners.js" JS "views/listeners.js",
    "/assets/views/overview.js" JS "views/overview.js",
    "/assets/views/pools.js" JS "views/pools.js",
    "/assets/views/sessions.js" JS "views/sessions.js",
}

/// A router with the files of the page.
pub(super) fn add_to<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    FILES.iter().fold(router, |router, file| {
        // It changes with the program only, and a hash tells versions apart.
        let tag = format!("\"{:032x}\"", xxh3_128(file.bytes));
        let tag = HeaderValue::try_from(tag).expect("hexadecimal digits are a header's value");
        router.route(
            file.path,
            get(async move |headers: HeaderMap| file.answer(&headers, tag)),
        )
    })
}

impl PageFile {
    fn answer(&self, request: &HeaderMap, tag: HeaderValue) -> Response {
        let mut response = if is_known(request, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let body = Bytes::from_static(self.bytes);
            ([(header::CONTENT_TYPE, self.media_type)], body).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag);
        for (name, value) in RULES {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether the browser has this version (RFC 9110, section 13.1.2).
fn is_known(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let lists = request.get_all(header::IF_NONE_MATCH).iter();
    let known = lists.filter_map(|list| list.to_str().ok());
    known
        .flat_map(|list| list.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one.as_bytes() == tag.as_bytes())
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
pub(super) const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the browser must keep to.
const RULES: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Kept, and asked about each time: a new program has new files.
    (header::CACHE_CONTROL, "no-cache"),
];
