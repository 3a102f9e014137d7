//! Identifies callers. Over the Unix socket the caller is its owner. Over HTTP a caller needs a
//! token; a scraper needs one where there is one. Web pages in a browser of this machine are
//! refused: `Host` gives away a name that was made to resolve to this machine, and `Origin` names
//! the page's site.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::endpoints::Endpoint;
use super::refusal::Refusal;
use super::{Author, Role};
use crate::config::TokenFiles;
use crate::sys;

/// The tokens of a server over HTTP.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Pair>>);

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    read: Option<Token>,
    write: Option<Token>,
}

#[derive(Clone, PartialEq, Eq)]
struct Token {
    /// Padded, so that a comparison takes the same time for every length.
    bytes: [u8; TOKEN_MAX],
    length: u64,
}

/// Why a token can't be used.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("cannot read the token file {path}: {error}{}", makes(path, error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// Users beside owner and group may read or write it.
    #[error("token file {0} is open to every user: `chmod o= {0}` closes it")]
    Open(PathBuf),
    /// It holds no token.
    #[error(
        "invalid token in {0}: expected 16 to 256 visible ASCII characters, or `none`; \
         `openssl rand -hex 32` makes one"
    )]
    Malformed(PathBuf),
    /// Both roles have the same token: readers could change things.
    #[error("the token files {0} and {1} hold the same token")]
    Same(PathBuf, PathBuf),
}

/// How a token file that does not exist is made.
fn makes(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return String::new();
    }
    let path = path.display();
    format!("; `(umask 077; openssl rand -hex 32 > {path})` makes one")
}

impl Tokens {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn read(from: &TokenFiles) -> Result<Self, TokenError> {
        let pair = Pair::read(from).map_err(|mut all| all.swap_remove(0))?;
        Ok(Self(Arc::new(RwLock::new(pair))))
    }

    /// Those of two texts, which differ.
    pub(super) fn of(read: &str, write: &str) -> Self {
        Self(Arc::new(RwLock::new(Pair {
            read: Token::new(read),
            write: Token::new(write),
        })))
    }

    /// All that is wrong with the files.
    #[must_use]
    pub fn mistakes(from: &TokenFiles) -> Vec<TokenError> {
        Pair::read(from).err().unwrap_or_default()
    }

    /// Takes the tokens of `other`; those from before are no longer valid.
    pub fn replace(&self, other: &Self) {
        let pair = other.0.read().clone();
        *self.0.write() = pair;
    }

    pub(super) fn role_of(&self, presented: &str) -> Option<Role> {
        let presented = Token::new(presented)?;
        let pair = self.0.read();
        let is = |token: &Option<Token>| token.as_ref().is_some_and(|it| it.is(&presented));
        // Always compare both, so that the time does not tell which one matched.
        let (read, write) = (is(&pair.read), is(&pair.write));
        if write {
            Some(Role::Write)
        } else {
            read.then_some(Role::Read)
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Pair {
    /// The tokens, or what is wrong with each file: never nothing.
    fn read(from: &TokenFiles) -> Result<Self, Vec<TokenError>> {
        let mut mistakes = Vec::new();
        let mut read = |path: &Option<PathBuf>| {
            let token = path.as_deref().map(token_in).transpose();
            token.unwrap_or_else(|error| {
                mistakes.push(error);
                None
            })
        };
        let pair = Self {
            read: read(&from.read).flatten(),
            write: read(&from.write).flatten(),
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        match (&from.read, &from.write) {
            (Some(one), Some(two)) if pair.read.is_some() && pair.read == pair.write => {
                Err(vec![TokenError::Same(one.clone(), two.clone())])
            }
            _ => Ok(pair),
        }
    }
}

/// The token in a file. `None`: the file holds the word `none`, so that no caller has its role.
fn token_in(path: &Path) -> Result<Option<Token>, TokenError> {
    let unreadable = |error| TokenError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let file = sys::open_regular(path).map_err(unreadable)?;
    let found: fs::Metadata = file.metadata().map_err(unreadable)?;
    if found.permissions().mode() & 0o007 != 0 {
        return Err(TokenError::Open(path.to_owned()));
    }
    let mut text = Vec::new();
    file.take(FILE_MAX)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let text = std::str::from_utf8(&text).unwrap_or_default().trim();
    if text == NO_TOKEN {
        return Ok(None);
    }
    let token = Some(text)
        .filter(|text| text.len() >= TOKEN_MIN && text.bytes().all(|b| b.is_ascii_graphic()))
        .and_then(Token::new);
    token
        .map(Some)
        .ok_or_else(|| TokenError::Malformed(path.to_owned()))
}

impl Token {
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_MAX];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        let length = text.len() as u64;
        Some(Self { bytes, length })
    }

    fn is(&self, other: &Self) -> bool {
        (self.bytes.ct_eq(&other.bytes) & self.length.ct_eq(&other.length)).into()
    }
}

/// How requests arrive.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// Over the Unix socket: a process that may open it may do everything.
    Socket,
    /// Over HTTP.
    Http(HttpAccess),
    /// For metrics alone, over HTTP on this address; without tokens every client may read them.
    Metrics(SocketAddr, Option<Tokens>),
}

/// How requests arrive over HTTP.
#[derive(Clone, Debug)]
pub(super) struct HttpAccess {
    /// The address that it listens on.
    pub(super) bound: SocketAddr,
    pub(super) tokens: Tokens,
    /// The origins of reverse proxies, such as `https://lb.example.com`.
    pub(super) origins: Vec<String>,
    /// Callers without a token may read.
    pub(super) is_open: bool,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A caller without a token.
    Anonymous,
    /// A caller whose token matches neither role.
    UnknownToken,
    /// A caller that may read without a token.
    Reader,
    /// A caller with a role.
    Known(Author),
}

impl Access {
    /// Identifies the caller, or refuses a request that no caller may send.
    pub(super) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Refusal> {
        match self {
            Self::Socket => Ok(Caller::Known(Author::Socket)),
            Self::Http(its) => {
                check_host(uri, headers, &its.origins)?;
                check_site(headers)?;
                let caller = caller(headers, &its.tokens)?;
                let is_let_in = its.is_open && caller == Caller::Anonymous;
                Ok(if is_let_in {
                    Caller::Known(Author::Token(Role::Read))
                } else {
                    caller
                })
            }
            Self::Metrics(bound, tokens) => {
                if bound.ip().to_canonical().is_loopback() {
                    check_host(uri, headers, &[])?;
                } else {
                    check_is_no_page(headers)?;
                }
                check_site(headers)?;
                tokens
                    .as_ref()
                    .map_or(Ok(Caller::Reader), |tokens| caller(headers, tokens))
            }
        }
    }

    /// Whether an endpoint is there at all.
    pub(super) fn has(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Socket | Self::Http(..) => true,
            Self::Metrics(..) => endpoint.is_for_machines,
        }
    }
}

impl Caller {
    /// What the caller may do.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Anonymous | Self::UnknownToken => None,
            Self::Known(Author::Token(role)) => Some(role),
            Self::Reader => Some(Role::Read),
            Self::Known(_) => Some(Role::Write),
        }
    }

    /// Refuses a caller whose role is lower than the endpoint's.
    pub(super) fn check(self, required: Option<Role>) -> Result<(), Refusal> {
        let Some(required) = required else {
            return Ok(());
        };
        match self {
            Self::Anonymous => Err(Refusal::unknown_caller(false)),
            Self::UnknownToken => Err(Refusal::unknown_caller(true)),
            Self::Known(Author::Token(role)) if role < required => Err(Refusal::may_not_write()),
            Self::Reader if required > Role::Read => Err(Refusal::unknown_caller(false)),
            Self::Known(_) | Self::Reader => Ok(()),
        }
    }
}

/// `Authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn caller(headers: &HeaderMap, tokens: &Tokens) -> Result<Caller, Refusal> {
    let Some(value) = only(headers, &header::AUTHORIZATION)? else {
        return Ok(Caller::Anonymous);
    };
    let presented = value.split_once(' ').and_then(|(scheme, token)| {
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| token.trim())
    });
    let role = presented.and_then(|token| tokens.role_of(token));
    Ok(role.map_or(Caller::UnknownToken, |role| {
        Caller::Known(Author::Token(role))
    }))
}

/// Refuses requests that were sent to another host, and those of another origin's web page.
///
/// The port of a loopback host does not matter: `ssh -L` has its own.
fn check_host(uri: &Uri, headers: &HeaderMap, origins: &[String]) -> Result<(), Refusal> {
    let forbidden = |error: &str| Err(Refusal::new(StatusCode::FORBIDDEN, error));
    let Some(host) = only(headers, &header::HOST)? else {
        return Err(Refusal::malformed("expected a Host header"));
    };
    // A request may name its target in its first line too (RFC 9112, section 3.2.2).
    let target = uri.authority().map(Authority::as_str);
    for host in [Some(host), target].into_iter().flatten() {
        if !names_loopback(host) && !is_proxy(host, origins) {
            return forbidden("Host must be localhost, a loopback address, or of one of `origins`");
        }
    }
    let Some(origin) = only(headers, &header::ORIGIN)? else {
        return Ok(());
    };
    let is_own = origin.strip_prefix("http://") == Some(host) && names_loopback(host);
    if !is_own && !origins.iter().any(|its| its == origin) {
        return forbidden(OF_PAGE);
    }
    Ok(())
}

/// Whether a Host is that of a reverse proxy, which may pass it on.
fn is_proxy(host: &str, origins: &[String]) -> bool {
    let authorities = origins.iter().filter_map(|its| its.split_once("://"));
    authorities
        .map(|(_, authority)| authority)
        .any(|its| its.eq_ignore_ascii_case(host))
}

/// Refuses what a web page of another origin asks for without saying so, as images and scripts do.
/// To follow a link to the dashboard is no such request.
fn check_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let [site, mode] = ["sec-fetch-site", "sec-fetch-mode"].map(HeaderName::from_static);
    let is_foreign = matches!(only(headers, &site)?, Some("cross-site" | "same-site"));
    if is_foreign && only(headers, &mode)? != Some("navigate") {
        return Err(Refusal::new(StatusCode::FORBIDDEN, OF_PAGE));
    }
    Ok(())
}

/// Refuses what pages of other sites send. A scraper names this machine as its operator does, so
/// that no Host is wrong: a page under a name that was made to resolve to this machine is kept out
/// by a token, or by no browser being on the machines that may connect.
fn check_is_no_page(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.contains_key(header::ORIGIN) {
        true => Err(Refusal::new(StatusCode::FORBIDDEN, OF_PAGE)),
        false => Ok(()),
    }
}

/// Whether a Host names a loopback address. No resolver is asked: a name of an attacker may resolve
/// to loopback.
fn names_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return false;
    }
    let name = authority.host();
    let literal = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    let loopback = literal
        .parse::<IpAddr>()
        .is_ok_and(|address| address.to_canonical().is_loopback());
    !host.contains('@') && (loopback || name.eq_ignore_ascii_case("localhost"))
}

/// The value of a header that must not come twice.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str());
    match (first, values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Refusal::malformed(format!("cannot read the {name} header"))),
    }
}

const OF_PAGE: &str = "pages of other origins are not answered";
/// A file with this word holds no token: systemd passes it for a credential without a file.
const NO_TOKEN: &str = "none";
/// Bytes of a token: enough that guessing is hopeless.
const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 256;
/// Bytes of a file that are read.
const FILE_MAX: u64 = 4096;

#[cfg(test)]
#[path = "tests/access.rs"]
mod tests;
