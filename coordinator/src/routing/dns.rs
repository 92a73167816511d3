//! Name servers, behind a seam: no vendor is built in.

/// Whoever answers for host names.
#[tonic::async_trait]
pub trait Dns: Send + Sync + 'static {
    /// `host` leads to the node called `place` from now on; an empty place
    /// withdraws the record. May be asked again for what is so already.
    ///
    /// # Errors
    /// In words; it is asked again.
    async fn set(&self, host: &str, place: &str) -> Result<(), String>;
}

/// Publishes nothing: what should be published is on record, for
/// `GET /api/dns` and whoever acts on it.
pub struct Recorded;

#[tonic::async_trait]
impl Dns for Recorded {
    async fn set(&self, host: &str, place: &str) -> Result<(), String> {
        tracing::info!(host, place, "the name should lead there");
        Ok(())
    }
}
