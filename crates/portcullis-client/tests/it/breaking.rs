//! A way to a registry that breaks once; TLS goes through as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis_oci::RegistryHost;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct BreakingWay {
    /// As which the registry is reached through it.
    pub(crate) host: RegistryHost,
    broken: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl BreakingWay {
    /// Breaks when so many bytes have come from the client, over all connections.
    pub(crate) async fn open(registry: SocketAddr, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string().parse().unwrap();
        let (broken, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = Arc::clone(&broken);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(registry).await.unwrap();
                tokio::spawn(carry(client, server, after, Arc::clone(&passed), Arc::clone(&shared)));
            }
        });
        Self { host, broken, task }
    }

    pub(crate) fn has_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for BreakingWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until one side ends, or the way breaks: both are dropped then.
async fn carry(client: TcpStream, server: TcpStream, after: u64, passed: Arc<AtomicU64>, broken: Arc<AtomicBool>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut piece).await {
            if passed.fetch_add(count as u64, Ordering::Relaxed) >= after && !broken.swap(true, Ordering::Relaxed) {
                return;
            }
            if to_server.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
