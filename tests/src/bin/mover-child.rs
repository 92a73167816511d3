//! The mover's process alone, for tests that kill it: what `webhost-agent
//! mover` is, without the rest of the agent.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // As in the agent's own main: the log must not mix with the answers.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    webhost_agent::mover::child::main().await?;
    Ok(())
}
