//! The WebHost application's page, in OpenMetrics or Prometheus's older text
//! format, whichever the application prefers: the truth about GPS points, API
//! calls, their durations and failures, and connected clients.
//!
//! [`names`] says which series mean what, [`text`] reads a line, `page` sums
//! one scrape per tenant, `totals` carries the counters from scrape to scrape
//! over restarts of the application.
//!
//! **Invariants.** A value that is not a finite, non-negative number is
//! refused and named, and the rest of the page still counts. A page that ends
//! early, is larger than 8 MiB or is no page at all changes nothing; one in
//! OpenMetrics says where it ends, so that it can't end early unseen.

pub mod names;
mod page;
pub mod text;
mod totals;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use totals::{AppReading, AppTenant};

use self::names::Names;
use self::page::{Format, Page};
use self::totals::Totals;
use super::source::{Outcome, Source};

/// How long one scrape may take.
pub const LIMIT: Duration = Duration::from_secs(2);

/// OpenMetrics before the older text, since a page that was cut shows; anything
/// rather than nothing.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The source.
pub struct AppSource {
    client: reqwest::Client,
    url: String,
    label: String,
    names: Names,
    totals: Totals,
}

impl AppSource {
    /// Prepares to scrape; nothing is contacted yet. `watching_since_ms` is
    /// the wall clock in milliseconds.
    ///
    /// # Errors
    /// A sentence, when the HTTP client can't be made.
    pub fn new(config: &crate::config::App, watching_since_ms: u64) -> Result<Self, String> {
        // The HTTP client takes the process's provider; that another part of
        // the agent has set the same one already is no error.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1);
        if config.metrics_url.starts_with("http:") {
            // The page is beside us: no need to load the system's roots.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build().map_err(|error| format!("no HTTP client: {error}"))?,
            url: config.metrics_url.clone(),
            label: config.label.clone(),
            names: Names::new(&config.names),
            totals: Totals::new(watching_since_ms),
        })
    }

    async fn scrape(&mut self) -> Result<Outcome<AppReading>, String> {
        let unreachable = |error: reqwest::Error| format!("{}: {}", self.url, chain(&error));
        let request = self.client.get(&self.url).header(reqwest::header::ACCEPT, ACCEPT);
        let mut response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(format!("{} answered {}", self.url, response.status()));
        }
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let mut page = Page::new(&self.names, &self.label, Format::of(kind));
        let mut line: Vec<u8> = Vec::new();
        let mut size = 0;
        let mut too_long = false;
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            size += chunk.len();
            if size > MAX_PAGE_BYTES {
                return Err(format!("{} is larger than {MAX_PAGE_BYTES} bytes", self.url));
            }
            for part in chunk.split_inclusive(|&byte| byte == b'\n') {
                let ends = part.last() == Some(&b'\n');
                if !too_long && line.len() + part.len() <= MAX_LINE_BYTES {
                    line.extend_from_slice(part);
                } else if !too_long {
                    too_long = true;
                    page.refuse(|| format!("a line longer than {MAX_LINE_BYTES} bytes"));
                }
                if ends {
                    if !too_long {
                        page.line(&line);
                    }
                    line.clear();
                    too_long = false;
                }
            }
        }
        if !too_long {
            page.line(&line);
        }
        if page.readable == 0 && page.refusals().is_some() {
            return Err(format!(
                "{} is not a Prometheus page: {}",
                self.url,
                page.refusals().unwrap_or_default()
            ));
        }
        if page.is_cut() {
            return Err(format!("{} ended before its # EOF: half a page says nothing", self.url));
        }
        let (reading, fallen) = self.totals.take(&page);
        let mut words: Vec<String> = page.refusals().into_iter().collect();
        if fallen > 0 {
            words.push(format!("{fallen} counters fell although the application did not restart"));
        }
        if reading.tenants.is_empty() && words.is_empty() && page.readable > 0 {
            words.push(format!("no series of ours carries the label {:?}", self.label));
        }
        Ok(if words.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, words.join("; "))
        })
    }
}

impl Source for AppSource {
    type Reading = AppReading;

    async fn read(&mut self) -> Outcome<AppReading> {
        self.scrape().await.unwrap_or_else(Outcome::Failed)
    }
}

/// An error with its causes: reqwest's own words don't say "refused".
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(": ");
        words.push_str(&inner.to_string());
        cause = inner.source();
    }
    words
}
