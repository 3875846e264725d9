//! Tokens that the API server vouches for: pod-bound ones of node proxies, and those that people were allowed to ask for.
//!
//! Must never believe an answer for longer than a token that was taken back may be of use.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::Status;

use super::{Digest, digest};
use crate::{ca, kubernetes::NAMESPACE, limits};

/// Audience of node proxies' tokens.
const NODES: &str = "weir.mesh";
/// Audience of people's tokens.
const API: &str = "weir.mesh/api";
const PROXY: &str = "weir-proxy";
const VIEWER: &str = "weir-viewer";
/// What the API server says about the node of the pod that a token is bound to.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Asks the API server, and remembers for a short time what it said.
pub struct Reviews {
    asked: Api<TokenReview>,
    known: Mutex<HashMap<Digest, Verdict>>,
    places: Semaphore,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reviews").field("known", &self.known.lock().len()).finish_non_exhaustive()
    }
}

struct Verdict {
    until: Instant,
    said: Result<Holder, String>,
}

/// Who holds a token, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    name: String,
    node: Option<Arc<str>>,
}

impl Reviews {
    /// Nothing known yet.
    pub fn new(client: Client) -> Reviews {
        Reviews { asked: Api::all(client), known: Mutex::default(), places: Semaphore::new(limits::REVIEWS_AT_ONCE) }
    }

    /// The node that a call comes from.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check; `UNAVAILABLE` when the API server cannot be asked.
    pub async fn node(&self, token: &str) -> Result<Arc<str>, Status> {
        let holder = self.holder(token, NODES).await?;
        is_account(&holder, PROXY)
            .and_then(|()| {
                holder
                    .node
                    .ok_or_else(|| "it is bound to no pod: only a projected token of a running pod counts".to_owned())
            })
            .map_err(|reason| Status::unauthenticated(format!("this token opens nothing for a node: {reason}")))
    }

    /// Lets people's programs in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check; `UNAVAILABLE` when the API server cannot be asked.
    pub async fn api(&self, token: &str) -> Result<(), Status> {
        let holder = self.holder(token, API).await?;
        is_account(&holder, VIEWER)
            .map_err(|reason| Status::unauthenticated(format!("this token opens nothing for people: {reason}")))
    }

    async fn holder(&self, token: &str, audience: &'static str) -> Result<Holder, Status> {
        if token.len() > limits::REVIEWED_TOKEN_BYTES {
            return Err(Status::unauthenticated("larger than any token"));
        }
        let key = digest(&format!("{audience} {token}"));
        if let Some(known) = self.known.lock().get(&key).filter(|known| known.until > Instant::now()) {
            return known.said.clone().map_err(Status::unauthenticated);
        }
        let Ok(_place) = self.places.acquire().await else {
            return Err(Status::unavailable("control is about to end"));
        };
        let said = judge(&self.ask(token, audience).await?, audience);
        self.remember(key, token, &said);
        said.map_err(Status::unauthenticated)
    }

    async fn ask(&self, token: &str, audience: &str) -> Result<TokenReviewStatus, Status> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.to_owned()) },
            status: None,
        };
        let params = PostParams::default();
        match tokio::time::timeout(limits::API_WITHIN, self.asked.create(&params, &review)).await {
            Ok(Ok(answer)) => Ok(answer.status.unwrap_or_default()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server cannot be asked about a token; may control create tokenreviews.authentication.k8s.io?");
                Err(Status::unavailable("control cannot ask the API server about this token; its log says why"))
            }
            Err(_elapsed) => Err(Status::unavailable("the API server did not say in time whether this token is good")),
        }
    }

    fn remember(&self, key: Digest, token: &str, said: &Result<Holder, String>) {
        let now = Instant::now();
        let left = expiry(token).map(|at| Duration::from_secs(u64::try_from(at - ca::unix_now()).unwrap_or(0)));
        let most = if said.is_ok() { limits::REVIEW_KEPT } else { limits::REFUSED_REVIEW_KEPT };
        let until = now + left.unwrap_or(most).min(most);
        let mut known = self.known.lock();
        if known.len() >= limits::REVIEWS_KEPT {
            known.retain(|_, verdict| verdict.until > now);
        }
        // Full of what is still good: this one is asked about again.
        if known.len() < limits::REVIEWS_KEPT {
            known.insert(key, Verdict { until, said: said.clone() });
        }
    }
}

fn is_account(holder: &Holder, account: &str) -> Result<(), String> {
    let expected = format!("system:serviceaccount:{NAMESPACE}:{account}");
    if holder.name == expected {
        return Ok(());
    }
    Err(format!("it is {:?}'s, {expected}'s is expected", holder.name))
}

fn judge(status: &TokenReviewStatus, audience: &str) -> Result<Holder, String> {
    if status.authenticated != Some(true) {
        let error = status.error.as_deref().filter(|error| !error.is_empty()).unwrap_or("it does not know it");
        return Err(format!("the API server refuses this token for audience {audience}: {error}"));
    }
    // A server that knows nothing of audiences says none: then this is any token of its user.
    if !status.audiences.iter().flatten().any(|known| known == audience) {
        return Err(format!("this token is not for audience {audience}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let node = user.extra.as_ref().and_then(|extra| extra.get(NODE_NAME)).and_then(|nodes| nodes.first());
    let node = node.filter(|node| !node.is_empty()).map(|node| Arc::from(node.as_str()));
    Ok(Holder { name: user.username.unwrap_or_default(), node })
}

/// Unix seconds at which a JWT ends, as it says itself: the API server has checked it, and believing too little costs a question.
fn expiry(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(audience: &str, node: Option<&str>) -> TokenReviewStatus {
        let extra = node.map(|node| BTreeMap::from([(NODE_NAME.to_owned(), vec![node.to_owned()])]));
        let username = Some("system:serviceaccount:weir:weir-proxy".to_owned());
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo { username, extra, ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn the_node_is_what_the_api_server_says_of_the_tokens_pod() {
        let holder = judge(&status(NODES, Some("node-1")), NODES).unwrap();
        assert_eq!(holder.node.as_deref(), Some("node-1"));
        is_account(&holder, PROXY).unwrap();
        assert!(is_account(&holder, VIEWER).is_err());
        assert_eq!(judge(&status(NODES, None), NODES).unwrap().node, None);
        assert_eq!(judge(&status(NODES, Some("")), NODES).unwrap().node, None);
    }

    #[test]
    fn a_token_of_another_audience_or_one_that_is_not_known_is_refused() {
        assert!(judge(&status("https://kubernetes.default.svc", Some("node-1")), NODES).is_err());
        assert!(judge(&TokenReviewStatus { audiences: None, ..status(NODES, Some("node-1")) }, NODES).is_err());
        let expired = TokenReviewStatus {
            authenticated: Some(false),
            error: Some("service account token has expired".to_owned()),
            ..status(NODES, Some("node-1"))
        };
        let reason = judge(&expired, NODES).unwrap_err();
        assert!(reason.contains("has expired"), "{reason}");
        assert!(judge(&TokenReviewStatus::default(), NODES).is_err());
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"exp":1700000000,"aud":["weir.mesh"]}"#);
        assert_eq!(expiry(&format!("head.{claims}.signature")), Some(1_700_000_000));
        assert_eq!(expiry("no token"), None);
    }
}
