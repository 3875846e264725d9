//! Bearer tokens: who may talk to control. Must never log one.

mod files;
mod reviews;

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN};
use tonic::{Request, Status};

pub use self::{files::Files, reviews::Reviews};
use crate::audit;

/// Who may talk to control.
#[derive(Debug)]
pub enum Tokens {
    /// Those that are in files.
    Files(Files),
    /// Those that the API server vouches for.
    Reviews(Box<Reviews>),
}

/// Who calls, before anybody believes it.
pub struct Caller {
    token: Option<String>,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
}

impl Caller {
    /// The caller of a request.
    pub fn of<T>(request: &Request<T>) -> Caller {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned());
        Caller { token, peer: request.remote_addr() }
    }

    fn token(&self) -> Result<&str, Status> {
        let given = self.token.as_deref().filter(|token| !token.is_empty());
        given.ok_or_else(|| Status::unauthenticated("no bearer token came with the call"))
    }
}

impl Tokens {
    /// The node that a call comes from.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check; `UNAVAILABLE` while nobody can vouch for it.
    pub async fn node(&self, caller: &Caller) -> Result<Arc<str>, Status> {
        let found = match (caller.token(), self) {
            (Err(status), _) => Err(status),
            (Ok(token), Tokens::Files(files)) => files.node(token),
            (Ok(token), Tokens::Reviews(reviews)) => reviews.node(token).await,
        };
        found.inspect_err(|status| audit::refused(audit::Act::Node, status, "", caller.peer))
    }

    /// Lets people's programs in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check; `UNAVAILABLE` while nobody can vouch for it.
    pub async fn api(&self, caller: &Caller) -> Result<(), Status> {
        let found = match (caller.token(), self) {
            (Err(status), _) => Err(status),
            (Ok(token), Tokens::Files(files)) => files.api(token),
            (Ok(token), Tokens::Reviews(reviews)) => reviews.api(token).await,
        };
        found.inspect_err(|status| audit::refused(audit::Act::Api, status, "", caller.peer))
    }
}

type Digest = [u8; SHA256_OUTPUT_LEN];

fn digest(token: &str) -> Digest {
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, token.as_bytes()).as_ref());
    digest
}
