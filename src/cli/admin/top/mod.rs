//! x
use super::args::TopArgs;
use super::client::ClientError;
pub(super) async fn top(_: &TopArgs) -> Result<(), ClientError> {
    Ok(())
}
