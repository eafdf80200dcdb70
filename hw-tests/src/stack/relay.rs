//! A port that leads to a server, or to nothing: an outage of the network, without touching the
//! server, which others use too.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A port that is closed at first.
pub struct Relay {
    /// Where clients connect to.
    pub address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Picks a free port and leaves it closed.
    ///
    /// # Errors
    /// When there is none.
    pub fn closed() -> anyhow::Result<Self> {
        let [address] = super::free_ports()?;
        Ok(Self { address, accepting: None })
    }

    /// Leads to this server from now on.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub async fn open(&mut self, server: &str) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address)
            .await
            .with_context(|| format!("listen on {}", self.address))?;
        let server = server.to_owned();
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(server).await {
                        // Either side may hang up.
                        let _ = copy_bidirectional(&mut client, &mut to).await;
                    }
                });
            }
        }));
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
