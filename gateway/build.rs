//! Makes the folder of the Socket.IO client exist, so that a build without `make client` compiles
//! (and answers 404 for it), and rebuilds the crate when its files change.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dist = Path::new("client/dist");
    std::fs::create_dir_all(dist)?;
    println!("cargo::rerun-if-changed={}", dist.display());
    Ok(())
}
