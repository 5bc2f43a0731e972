//! One blob on its way to a registry, through breaks: after each the registry is asked how far it is, and the blob goes on
//! from there, or begins anew. Must not know where the bytes come from, nor how a request is made.

use portcullis_oci::Descriptor;
use tokio::time::{Instant, sleep};

use crate::ClientError;
use crate::attempts::Attempts;
use crate::blobs::CREDIT;
use crate::deliver::Target;
use crate::origin::Origin;
use crate::progress::Event;
use crate::uploads::{Pace, UploadError, UploadLocation};

/// How many bytes are sent in one request once something has broken: what the next break costs.
pub const CAREFUL_CHUNK: u64 = 16 * 1024 * 1024;

/// A blob that is being sent.
pub(crate) struct Delivery<'a> {
    target: &'a Target,
    blob: &'a Descriptor,
    origin: Origin,
    upload: UploadLocation,
    /// How much the registry has of it.
    from: u64,
    pace: Pace,
    attempts: Attempts,
    /// Something has failed on the way, so that what is known of the upload may be out of date.
    broken: bool,
}

/// What there is to do after a failure.
enum Next {
    Send,
    /// The registry has it: only its answer was lost.
    Nothing,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(target: &'a Target, blob: &'a Descriptor, origin: Origin, upload: UploadLocation) -> Self {
        let (pace, attempts) = (Pace::Chunks(target.client.chunk()), Attempts::new(target.client.retries()));
        Self { target, blob, origin, upload, from: 0, pace, attempts, broken: false }
    }

    /// Sends all of it. An upload that fails for good is given up.
    pub(crate) async fn complete(mut self) -> Result<(), ClientError> {
        loop {
            let Err(error) = self.attempt().await else { return Ok(()) };
            match self.after(error).await {
                Ok(Next::Send) => {}
                Ok(Next::Nothing) => return Ok(()),
                Err(error) => {
                    self.target.cancel(&self.upload).await;
                    return Err(error);
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), UploadError> {
        let supply = self.origin.supply(self.blob, self.from, &self.target.progress).await;
        let supply = supply.map_err(UploadError::Source)?;
        self.target.client.send_rest(&mut self.upload, self.blob, self.from, &supply, self.pace).await
    }

    async fn after(&mut self, error: UploadError) -> Result<Next, ClientError> {
        let (error, asked) = match error {
            UploadError::Passing { error, asked } => (error, asked),
            UploadError::NoChunks(error) if self.from == 0 => {
                tracing::debug!(%error, "sending the blob as a whole");
                self.pace = Pace::Whole;
                return self.begin_anew().await;
            }
            // The registry has not noticed the break yet, or has another part than it has said.
            UploadError::NoChunks(error) | UploadError::Refused(error) if self.broken && is_about_upload(&error) => {
                (error, None)
            }
            error => return Err(error.into()),
        };
        self.broken = true;
        if let Pace::Chunks(chunk) = self.pace {
            self.pace = Pace::Chunks(chunk.min(CAREFUL_CHUNK));
        }
        let Some(pause) = self.attempts.pause(Instant::now(), asked) else { return Err(error) };
        let request = format!("upload of blob {}", self.blob.digest);
        tracing::debug!(%request, %error, ?pause, "going on");
        self.target.progress.tell(Event::Retrying { request, reason: error.to_string(), pause });
        sleep(pause).await;
        self.find_out().await
    }

    /// Asks how far it is.
    async fn find_out(&mut self) -> Result<Next, ClientError> {
        let (client, size) = (&self.target.client, self.blob.size);
        match client.upload_offset(&self.upload, size, &self.target.progress).await? {
            Some((upload, offset)) => {
                if offset.saturating_sub(self.from) >= CREDIT {
                    self.attempts.got_on();
                }
                (self.upload, self.from) = (upload, offset);
                Ok(Next::Send)
            }
            None if self.is_whole().await? => Ok(Next::Nothing),
            None => self.begin_anew().await,
        }
    }

    async fn is_whole(&self) -> Result<bool, ClientError> {
        let head = self.target.client.head_blob(&self.target.repository, &self.blob.digest).await?;
        Ok(head.is_some_and(|head| head.size.is_none_or(|size| size == self.blob.size)))
    }

    async fn begin_anew(&mut self) -> Result<Next, ClientError> {
        let Target { client, repository, progress } = self.target;
        self.target.cancel(&self.upload).await;
        self.upload = client.start_upload_telling(repository, &self.blob.digest, progress).await?;
        self.from = 0;
        Ok(Next::Send)
    }
}

/// Whether an answer says that the upload is not as was thought, rather than that it may not be.
fn is_about_upload(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { answer, .. }
        if (400..500).contains(&answer.status) && !matches!(answer.status, 401 | 403 | 413))
}
