//! The image of a tenant's container: one static binary on nothing.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;

/// What the image is called in the engine.
pub(super) const NAME: &str = "webhost-tenant:demo";

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/container/tenant.rs");

/// Compiles, packs and imports it. Takes about a second.
pub(super) async fn import(docker: &Docker, dir: &Path) -> anyhow::Result<()> {
    let dir = dir.join("image");
    let packed = tokio::task::spawn_blocking(move || pack(&dir)).await??;
    let (repository, tag) = NAME.split_once(':').unwrap_or((NAME, "latest"));
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(vec![r#"ENTRYPOINT ["/tenant"]"#.to_owned()])
        .build();
    docker
        .create_image(Some(options), Some(bollard::body_full(packed.into())), None)
        .try_collect::<Vec<_>>()
        .await
        .context("importing the tenants' image")?;
    Ok(())
}

/// A tar with the static binary as its only member.
fn pack(dir: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::create_dir_all(dir)?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile
        .args(["--edition", "2024", "-O", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static", "-o"])
        .arg(dir.join("tenant"))
        .arg(SOURCE);
    run(compile, "rustc")?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--directory"]).arg(dir).arg("tenant");
    run(tar, "tar")
}

fn run(mut command: Command, what: &str) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{what} not started"))?;
    anyhow::ensure!(
        output.status.success(),
        "{what} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
