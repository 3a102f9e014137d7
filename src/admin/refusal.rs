//! Why a request is refused: a status and a sentence, sent as a [`Problem`].

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Gone;
use super::model::Problem;
use crate::config::{BodyError, ChangeError, bounded, values};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: String,
    /// The `WWW-Authenticate` header (RFC 6750, section 3).
    challenge: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            challenge: None,
        }
    }

    pub(super) fn malformed(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// The caller has no token, or an unknown one.
    pub(super) fn unknown_caller(with_token: bool) -> Self {
        let (error, challenge) = if with_token {
            ("unknown token", INVALID_TOKEN)
        } else {
            ("expected a token: `Authorization: Bearer ...`", NO_TOKEN)
        };
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, error)
        }
    }

    /// The caller has the read token.
    pub(super) fn may_not_write() -> Self {
        Self {
            challenge: Some(INSUFFICIENT),
            ..Self::new(
                StatusCode::FORBIDDEN,
                "this token may read only: use the write token",
            )
        }
    }

    pub(super) fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let hint = values::known(name, known);
        let name = name.to_owned();
        ChangeError::Unknown { what, name, hint }.into()
    }

    /// A listener has the name of the pool that is asked for.
    pub(super) fn no_pool_but_listener(name: &str) -> Self {
        let error = format!(
            "there is no pool called `{name}`, but a listener: `--listener {name}` looks at its \
             routes"
        );
        Self::new(StatusCode::NOT_FOUND, error)
    }
}

impl From<Gone> for Refusal {
    fn from(_: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the balancer is ending")
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::Unknown { .. } | ChangeError::NoRoute { .. } => StatusCode::NOT_FOUND,
            ChangeError::Exists { .. } | ChangeError::Stale { .. } => StatusCode::CONFLICT,
            ChangeError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, bounded(error.to_string()))
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(error) => Self::malformed(error),
            // One sentence for each mistake.
            BodyError::Invalid(error) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = axum::Json(Problem { error: self.error });
        let mut response = (self.status, problem).into_response();
        if let Some(challenge) = self.challenge {
            let value = HeaderValue::from_static(challenge);
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

const NO_TOKEN: &str = "Bearer realm=\"mahoraga\"";
const INVALID_TOKEN: &str = "Bearer realm=\"mahoraga\", error=\"invalid_token\"";
const INSUFFICIENT: &str =
    "Bearer realm=\"mahoraga\", error=\"insufficient_scope\", scope=\"write\"";
