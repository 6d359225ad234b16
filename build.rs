//! Generates the wire types from `proto/`, with a protobuf compiler in Rust: no `protoc` is needed, or used if present.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    // Lets a build say of itself that it is slow.
    println!("cargo:rustc-env=GRAFT_OPT_LEVEL={}", env::var("OPT_LEVEL")?);
    let files = protos(&root.join("graft/v1"))?;
    let descriptors = protox::compile(files, [root])?;
    // What the server tells those who ask it for its schema.
    fs::write(Path::new(&env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Connections are made and accepted in `infrastructure/grpc`, where limits and shutdown are.
        .build_transport(false)
        // Payloads are slices of the buffer they were received in.
        .bytes(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Decoded under a limit.
        .extern_path(".graft.v1.CallBatch", "crate::infrastructure::grpc::call_batch::CallBatch")
        .compile_fds(descriptors)?;
    Ok(())
}

/// All of them, in an order that does not depend on the file system.
fn protos(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for item in fs::read_dir(directory)? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
