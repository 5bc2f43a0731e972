//! `GET /v2/` (distribution spec end-1): is this a registry, and does it let us in?

use http::{HeaderMap, Method};
use portcullis_oci::Endpoint;

use crate::session::{Repeat, Response};
use crate::{Client, ClientError, Progress};

impl Client {
    /// Asks again whether the registry lets this identity in.
    ///
    /// # Errors
    /// [`ClientError::Status`] for anything but 200.
    pub async fn ping(&self) -> Result<(), ClientError> {
        let (_, url) = self.session().address(&Endpoint::Base);
        let (headers, progress) = (HeaderMap::new(), Progress::none());
        check(self.session().read(&Method::GET, &url, &headers, Repeat::Passing, &progress).await?).await
    }
}

/// 200 is the only answer that a registry gives to whom it lets in.
pub(crate) async fn check(mut response: Response) -> Result<(), ClientError> {
    if response.status() != http::StatusCode::OK {
        return Err(response.into_error().await);
    }
    // Read to its end, so that the connection is used again; what it says, or that it is too long, changes nothing.
    drop(response.whole(crate::answer::MAX_BODY).await);
    Ok(())
}
