//! A client of the coordinator's HTTP API.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::time::Instant;

/// The API with one bearer token. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

/// An HTTP client for loopback.
///
/// # Errors
/// When the client can't be built.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    // The first to install it wins; it is the same one everywhere.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(256)
        .no_proxy()
        .build()?)
}

impl Api {
    /// The API at `base` ("http://127.0.0.1:7400").
    ///
    /// # Errors
    /// When the client can't be built.
    pub fn new(base: String, token: String) -> anyhow::Result<Self> {
        Ok(Self { client: http_client()?, base, token })
    }

    /// Where the API is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Status and body, whatever the status.
    ///
    /// # Errors
    /// When there was no answer, or none in JSON.
    pub async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("request {url}"))?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("{url} answered {text:?}"))?
        };
        Ok((status, value))
    }

    /// A GET that must succeed.
    ///
    /// # Errors
    /// When it doesn't; the message holds the answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, value) = self.call(reqwest::Method::GET, path, None).await?;
        anyhow::ensure!(status < 300, "GET {path} answered {status}: {value}");
        Ok(value)
    }

    /// A POST that must succeed.
    ///
    /// # Errors
    /// When it doesn't; the message holds the answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let (status, value) = self.call(reqwest::Method::POST, path, Some(body)).await?;
        anyhow::ensure!(status < 300, "POST {path} answered {status}: {value}");
        Ok(value)
    }
}

/// Asks again and again until `probe` answers something.
///
/// # Errors
/// After `limit`, with `what` and the last error.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let error = match probe().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let told = error.map(|error| format!(": {error:#}")).unwrap_or_default();
            anyhow::bail!("{what}: not within {} s{told}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
