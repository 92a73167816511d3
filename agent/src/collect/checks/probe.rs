//! One question, asked as a client would: a page by HTTP, a query of
//! PostgreSQL, a PING of Redis, or a connection at all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::collect::redis::wire::{Place, connect};
use crate::config::{Check, SecretUrl};

/// What is asked.
pub(super) enum Probe {
    Http { client: reqwest::Client, url: String },
    Postgres { url: SecretUrl, password_file: Option<PathBuf> },
    Redis { place: Place, password_file: Option<PathBuf> },
    Tcp { address: String },
}

impl Probe {
    /// Of a checked configuration; a check that names nothing asks nothing and
    /// fails.
    pub(super) fn new(check: &Check) -> Result<Self, String> {
        let password_file = check.password_file.clone();
        if let Some(url) = &check.http {
            return Ok(Self::Http { client: client(url)?, url: url.clone() });
        }
        if let Some(url) = &check.postgres {
            return Ok(Self::Postgres { url: url.clone(), password_file });
        }
        if let Some(address) = &check.redis {
            return Ok(Self::Redis { place: Place::parse(address)?, password_file });
        }
        Ok(Self::Tcp { address: check.tcp.clone().unwrap_or_default() })
    }

    pub(super) async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Http { client, url } => {
                let answer = client.get(url).send().await.map_err(|error| chain(&error))?;
                let status = answer.status();
                // Redirects are an answer: a page that is there.
                if status.is_success() || status.is_redirection() {
                    Ok(())
                } else {
                    Err(format!("answered {status}"))
                }
            }
            Self::Postgres { url, password_file } => postgres(url, password_file.as_ref()).await,
            Self::Redis { place, password_file } => {
                let mut redis = connect(place, password_file.as_deref()).await?;
                redis.ask(&[b"PING"]).await.map(|_pong| ())
            }
            Self::Tcp { address } => {
                let stream = TcpStream::connect(address).await.map_err(|error| chain(&error))?;
                stream.peer_addr().map(|_: SocketAddr| ()).map_err(|error| error.to_string())
            }
        }
    }
}

fn client(url: &str) -> Result<reqwest::Client, String> {
    // As for the application's page: the process's one provider.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(120));
    if url.starts_with("http:") {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| format!("no HTTP client: {error}"))
}

/// Connects and asks the smallest question: a server that is up but takes
/// nobody in is not healthy.
async fn postgres(url: &SecretUrl, password_file: Option<&PathBuf>) -> Result<(), String> {
    let mut config: tokio_postgres::Config =
        url.expose().parse().map_err(|_| "its URL can't be read".to_owned())?;
    if let Some(path) = password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        config.password(text.trim_end_matches(['\r', '\n']));
    }
    config.application_name("webhost-agent-check");
    let refused = |error: tokio_postgres::Error| chain(&error);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(refused)?;
    let asked = async {
        let row = client.query_one("select 1", &[]).await.map_err(refused)?;
        let one: i32 = row.get(0);
        if one == 1 { Ok(()) } else { Err("it can't count to one".to_owned()) }
    };
    tokio::select! {
        answer = asked => answer,
        ended = connection => Err(ended.err().map_or_else(
            || "the connection ended".to_owned(), |error| chain(&error))),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}
