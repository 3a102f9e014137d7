//! Why a store can't be used, and which of it is damage.

use rusqlite::{Error as Sql, ErrorCode};
use thiserror::Error;

/// Why a store can't be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Its file is damaged.
    #[error("the file is damaged ({0})")]
    Corrupt(String),
    /// The file is another program's.
    #[error("it is no history of this program: name another file")]
    Foreign,
    /// The file has a later form.
    #[error("a later version of mahoraga made it: run that, or name another file")]
    Later,
    /// Another process uses it.
    #[error("another process uses it")]
    Busy,
    /// There is no room left.
    #[error("the disk is full")]
    Full,
    /// The bound in bytes is reached.
    #[error("it has reached its bound in bytes")]
    Bound,
    /// What the kernel says.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Anything else that SQLite says.
    #[error("{0}")]
    Sql(Sql),
}

impl From<Sql> for StoreError {
    fn from(error: Sql) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sql(error),
        }
    }
}

impl StoreError {
    /// What goes wrong with the content of a file that is marked as a history, and no disk or other
    /// process is the cause: it has other tables or other values than a history has.
    pub(in crate::history) fn of_content(self) -> Self {
        let Self::Sql(error) = self else {
            return self;
        };
        let code = error.sqlite_error().map(|error| error.extended_code & 0xff);
        let is_content = matches!(
            error,
            Sql::FromSqlConversionFailure(..)
                | Sql::InvalidColumnType(..)
                | Sql::IntegralValueOutOfRange(..)
                | Sql::SqlInputError { .. }
        );
        if is_content || code == Some(rusqlite::ffi::SQLITE_ERROR) {
            Self::Corrupt(error.to_string())
        } else {
            Self::Sql(error)
        }
    }
}
