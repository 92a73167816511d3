//! Compiles the wire definition without protoc: protox parses it, prost and
//! tonic generate the types.

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["webhost/fleet/v1/link.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
