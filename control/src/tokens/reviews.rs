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
use crate::{ca, kubernetes::NAMESPACE, limits, parse::quoted};

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
        let holder = self.holder(token, NODES, PROXY).await?;
        holder.node.ok_or_else(|| refused("it is bound to no pod: only a projected token of a running pod counts"))
    }

    /// Lets people's programs in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, saying what to check; `UNAVAILABLE` when the API server cannot be asked.
    pub async fn api(&self, token: &str) -> Result<(), Status> {
        self.holder(token, API, VIEWER).await.map(drop)
    }

    async fn holder(&self, token: &str, audience: &'static str, account: &str) -> Result<Holder, Status> {
        if token.len() > limits::REVIEWED_TOKEN_BYTES {
            return Err(Status::unauthenticated("larger than any token"));
        }
        // Whoever has no token of ours takes no place from those who have.
        let claims = Claims::of(token).ok_or_else(|| refused("it is no JWT with subject and audience"))?;
        claims.are_for(audience).and_then(|()| is_account(&claims.sub, account)).map_err(refused)?;
        let key = digest(&format!("{audience} {token}"));
        if let Some(known) = self.known.lock().get(&key).filter(|known| known.until > Instant::now()) {
            return known.said.clone().map_err(Status::unauthenticated);
        }
        let Ok(Ok(_place)) = tokio::time::timeout(limits::API_WITHIN, self.places.acquire()).await else {
            return Err(Status::unavailable("too many tokens are being asked about; try again in a second"));
        };
        let said = judge(&self.ask(token, audience).await?, audience)
            .and_then(|holder| is_account(&holder.name, account).map(|()| holder));
        self.remember(key, claims.exp, &said);
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

    fn remember(&self, key: Digest, ends: Option<i64>, said: &Result<Holder, String>) {
        let now = Instant::now();
        let left = ends.map(|at| Duration::from_secs(u64::try_from(at.saturating_sub(ca::unix_now())).unwrap_or(0)));
        let most = if said.is_ok() { limits::REVIEW_KEPT } else { limits::REFUSED_REVIEW_KEPT };
        let until = now + left.unwrap_or(most).min(most);
        let mut known = self.known.lock();
        if known.len() >= limits::REVIEWS_KEPT {
            known.retain(|_, verdict| verdict.until > now);
        }
        if known.len() >= limits::REVIEWS_KEPT && said.is_ok() {
            known.retain(|_, verdict| verdict.said.is_ok());
        }
        // Full of what is still good: this one is asked about again.
        if known.len() < limits::REVIEWS_KEPT {
            known.insert(key, Verdict { until, said: said.clone() });
        }
    }
}

fn refused(reason: impl std::fmt::Display) -> Status {
    Status::unauthenticated(format!("this token opens nothing here: {reason}"))
}

fn is_account(name: &str, account: &str) -> Result<(), String> {
    let expected = format!("system:serviceaccount:{NAMESPACE}:{account}");
    if name == expected {
        return Ok(());
    }
    Err(format!("it is {}'s, {expected}'s is expected", quoted(name)))
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

/// What a JWT says of itself. Nobody has checked it: enough to refuse it, and never to believe it.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audiences,
    /// Unix seconds.
    exp: Option<i64>,
}

/// One or several (RFC 7519 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    fn of(token: &str) -> Option<Claims> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    fn are_for(&self, audience: &str) -> Result<(), String> {
        let is_named = match &self.aud {
            Audiences::One(one) => one == audience,
            Audiences::Several(several) => several.iter().any(|one| one == audience),
        };
        if is_named { Ok(()) } else { Err(format!("it is not for audience {audience}")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;
    use crate::fixtures::api::Api as Server;

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
        is_account(&holder.name, PROXY).unwrap();
        assert!(is_account(&holder.name, VIEWER).is_err());
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

    fn token(claims: &str) -> String {
        format!("head.{}.signature", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_whom_it_is_for_and_when_it_ends() {
        let several = Claims::of(&token(r#"{"exp":1700000000,"aud":["x","weir.mesh"],"sub":"s"}"#)).unwrap();
        assert!(several.are_for(NODES).is_ok() && several.are_for(API).is_err());
        assert_eq!((several.exp, several.sub.as_str()), (Some(1_700_000_000), "s"));
        let one = Claims::of(&token(r#"{"aud":"weir.mesh/api","sub":"s"}"#)).unwrap();
        assert!(one.are_for(API).is_ok() && one.are_for(NODES).is_err() && one.exp.is_none());
        assert!(Claims::of("no token").is_none() && Claims::of(&token(r#"{"sub":"s"}"#)).is_none());
    }

    #[tokio::test]
    async fn what_is_not_even_said_to_be_for_us_is_refused_without_a_question() {
        let (server, client) = Server::start().await;
        let reviews = Reviews::new(client);
        let long = "x".repeat(10_000);
        let other = token(&format!(r#"{{"aud":["weir.mesh"],"sub":"{long}"}}"#));
        let foreign = token(r#"{"aud":["other"],"sub":"system:serviceaccount:weir:weir-proxy"}"#);
        for junk in ["junk", "a.b.c", &other, &foreign] {
            let refusal = reviews.node(junk).await.unwrap_err();
            assert!(refusal.code() == tonic::Code::Unauthenticated && refusal.message().len() < 300, "{refusal:?}");
        }
        assert_eq!(server.asked("POST"), 0);
        let claimed = token(r#"{"aud":["weir.mesh"],"sub":"system:serviceaccount:weir:weir-proxy"}"#);
        assert!(reviews.node(&claimed).await.is_err(), "the API server does not know it");
        assert_eq!(server.asked("POST"), 1);
    }

    #[tokio::test]
    async fn refusals_do_not_push_out_what_is_good() {
        let (_server, client) = Server::start().await;
        let reviews = Reviews::new(client);
        let good = Ok(Holder { name: "n".to_owned(), node: None });
        let refused = Err("no".to_owned());
        reviews.remember(digest("first"), None, &good);
        for number in 0..limits::REVIEWS_KEPT {
            reviews.remember(digest(&number.to_string()), None, &refused);
        }
        assert_eq!(reviews.known.lock().len(), limits::REVIEWS_KEPT);
        reviews.remember(digest("last"), None, &good);
        let known = reviews.known.lock();
        assert!(known.contains_key(&digest("first")) && known.contains_key(&digest("last")));
    }
}
