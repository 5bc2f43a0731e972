//! `GET /v2/` (distribution spec end-1): is this a registry, and does it let us in?

use http::{HeaderMap, StatusCode};
use portcullis_oci::Endpoint;

use crate::auth::Access;
use crate::session::Response;
use crate::{Client, ClientError, Progress};

impl Client {
    /// Asks again whether the registry lets us in, with a credential where it wants one.
    ///
    /// # Errors
    /// [`ClientError::Status`] for anything but 200, also from a token server.
    pub async fn ping(&self) -> Result<(), ClientError> {
        welcome(self.read_here(&Endpoint::Base, &HeaderMap::new(), &Progress::none()).await?).await
    }
}

/// 200 is the only answer that a registry gives to whom it lets in; 401 was looked at when it wants more than a
/// certificate, which each request will show.
pub(crate) async fn check(response: Response, access: &Access) -> Result<(), ClientError> {
    if response.status() == StatusCode::UNAUTHORIZED && access.is_wanted() {
        return Ok(());
    }
    welcome(response).await
}

async fn welcome(mut response: Response) -> Result<(), ClientError> {
    if response.status() != StatusCode::OK {
        return Err(response.into_error().await);
    }
    // Read to its end, so that the connection is used again; what it says, or that it is too long, changes nothing.
    drop(response.whole(crate::answer::MAX_BODY).await);
    Ok(())
}
