//! Notifications of the state database, on a connection of their own.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use super::{Store, StoreError};

impl Store {
    /// Calls `heard` once it listens, and with every notification on
    /// `channel`, until the connection ends.
    ///
    /// # Errors
    /// Why the connection ended, or could not be made.
    pub async fn listen(
        &self,
        channel: &'static str,
        heard: impl Fn() + Send,
    ) -> Result<(), StoreError> {
        let target = &self.target;
        match &target.tls {
            None => {
                let (client, connection) = target.config.connect(NoTls).await?;
                hear(&client, connection, channel, heard).await
            }
            Some(tls) => {
                let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls.clone());
                let (client, connection) = target.config.connect(tls).await?;
                hear(&client, connection, channel, heard).await
            }
        }
    }
}

async fn hear<S, T>(
    client: &Client,
    mut connection: Connection<S, T>,
    channel: &str,
    heard: impl Fn(),
) -> Result<(), StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = poll_fn(move |context| connection.poll_message(context));
    let listen = format!("listen {channel}");
    let mut began = pin!(client.batch_execute(&listen));
    let mut listening = false;
    loop {
        tokio::select! {
            done = &mut began, if !listening => {
                done?;
                listening = true;
                // What happened before is not told.
                heard();
            }
            message = messages.next() => match message {
                None => return Ok(()),
                Some(Ok(AsyncMessage::Notification(_))) => heard(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
}
