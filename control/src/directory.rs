//! Control on a folder of manifests and files of tokens: for demos, tests and machines without an API server.
//!
//! Must never decide what an object means.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    ControlError, DirectoryArgs,
    ca::{Authority, CaArgs},
    manifests::Manifests,
    parse::Options,
    plane::Plane,
    setup,
    tokens::{Files, Tokens},
};

/// Opens authority and tokens, and reads the folder from now on.
///
/// # Errors
/// See [`ControlError`].
pub(crate) fn start(
    args: DirectoryArgs,
    ca: &CaArgs,
    options: Options,
) -> Result<(Arc<Plane>, Arc<Tokens>), ControlError> {
    let DirectoryArgs { manifests: Some(folder), node_tokens: Some(nodes), api_token: Some(api), state_dir } = args
    else {
        return Err(ControlError::NoSource);
    };
    std::fs::create_dir_all(&state_dir).map_err(setup(format!("--state-dir {}", state_dir.display())))?;
    let authority = Authority::open(ca, &state_dir, &options.trust_domain)?;
    let tokens = Files::open(nodes, api).map_err(setup("tokens"))?;
    let plane = Arc::new(Plane::new(options.trust_domain.clone(), authority, Some(state_dir.join("serving"))));
    let manifests = Manifests::new(folder, options);
    let (scans, mut found) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || manifests.follow(&scans))
        .map_err(setup("starting the watch of manifests"))?;
    let taker = Arc::clone(&plane);
    tokio::spawn(async move {
        while let Some(scan) = found.recv().await {
            taker.take(scan);
        }
    });
    let follower = Arc::clone(&plane);
    tokio::spawn(async move { follower.follow_authority().await });
    Ok((plane, Arc::new(Tokens::Files(tokens))))
}
