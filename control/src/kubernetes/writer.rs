//! The API server as others may use it, with their own tokens. Must never do there for a caller what the caller may not, and never keep or log a token.

use http::{HeaderName, HeaderValue, header};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use tonic::{Status, metadata::MetadataMap};

use super::{NAMESPACE, bounded, chain, watch};
use crate::{
    limits,
    objects::{Kind, Name, ObjectName},
};

/// Metadata of a call that holds the caller's own token for the API server.
pub const OWN_TOKEN: &str = "kubernetes-authorization";

/// Where the API server is, and nothing about who control is there.
#[derive(Clone)]
pub struct Writer {
    config: Config,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// On whose behalf: the token's holder, or whom the holder acts as.
pub struct Caller {
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Caller {
    /// Of a call: its token, and whom it wants to act as.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a token, `INVALID_ARGUMENT` for a user or group that is none.
    pub fn of(metadata: &MetadataMap, user: &str, groups: &[String]) -> Result<Caller, Status> {
        let given = metadata.get(OWN_TOKEN).and_then(|value| value.to_str().ok());
        let token =
            given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim).filter(|text| !text.is_empty());
        let token = token.filter(|token| token.len() <= limits::REVIEWED_TOKEN_BYTES).ok_or_else(|| {
            Status::unauthenticated(format!(
                "this call is made with the caller's own rights: metadata `{OWN_TOKEN}: Bearer <token>` with a token for the API server is missing"
            ))
        })?;
        let invalid =
            |field: &'static str| move |_invalid| Status::invalid_argument(format!("{field}: no name of one"));
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(invalid(OWN_TOKEN))?;
        bearer.set_sensitive(true);
        let mut headers = vec![(header::AUTHORIZATION, bearer)];
        if user.is_empty() && !groups.is_empty() {
            return Err(Status::invalid_argument("as_groups: as_user is needed with it"));
        }
        if groups.len() > limits::ACTING_GROUPS {
            return Err(Status::invalid_argument(format!("as_groups: more than {}", limits::ACTING_GROUPS)));
        }
        if !user.is_empty() {
            let value = HeaderValue::from_str(user).map_err(invalid("as_user"))?;
            headers.push((HeaderName::from_static("impersonate-user"), value));
        }
        for group in groups {
            let value = HeaderValue::from_str(group).map_err(invalid("as_groups"))?;
            headers.push((HeaderName::from_static("impersonate-group"), value));
        }
        Ok(Caller { headers })
    }
}

/// Why the API server did not do it.
pub enum Refusal {
    /// What it said.
    Said(Box<kube::core::Status>),
    /// It did not answer.
    Silent(String),
}

impl Refusal {
    /// As the status of a call, about an object.
    pub fn status(self, object: &str) -> Status {
        match self {
            Refusal::Silent(reason) => Status::unavailable(format!("{object}: {reason}")),
            Refusal::Said(said) => {
                let text = format!("{object}: {}", said.message);
                match said.code {
                    401 => Status::unauthenticated(text),
                    403 => Status::permission_denied(text),
                    404 => Status::not_found(text),
                    409 => Status::aborted(text),
                    400 | 422 => Status::invalid_argument(text),
                    429 => Status::resource_exhausted(text),
                    _other => Status::unavailable(text),
                }
            }
        }
    }
}

async fn asked<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(limits::API_WITHIN, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(said))) => Err(Refusal::Said(said)),
        Ok(Err(error)) => Err(Refusal::Silent(chain(&error))),
        Err(_elapsed) => Err(Refusal::Silent(format!("the API server did not answer within {:?}", limits::API_WITHIN))),
    }
}

/// The API server, with the rights of one caller.
pub struct Hand {
    client: Client,
}

impl Writer {
    /// Of control's own way to the API server only the address and the anchors stay.
    pub fn new(config: &Config) -> Writer {
        let mut config = bounded(config.clone());
        config.auth_info = AuthInfo::default();
        config.headers.clear();
        Writer { config }
    }

    /// A connection of its own for each call: writes are people's.
    ///
    /// # Errors
    /// `INTERNAL`: what control knows of the API server makes no client.
    pub fn hand(&self, caller: Caller) -> Result<Hand, Status> {
        let mut config = self.config.clone();
        config.headers = caller.headers;
        let client = Client::try_from(config).map_err(|error| Status::internal(chain(&error)))?;
        Ok(Hand { client })
    }
}

impl Hand {
    fn api(&self, name: &Name, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &name.namespace, resource)
    }

    /// The object as it is.
    pub async fn get(&self, object: &ObjectName, version: &str) -> Result<Option<DynamicObject>, Refusal> {
        let api = self.api(&object.name, &watch::resource(object.kind, version));
        asked(api.get_opt(&object.name.name)).await
    }

    /// Server-side apply; the object as it is then, or would be.
    pub async fn apply(
        &self,
        object: &ObjectName,
        version: &str,
        value: &serde_json::Value,
        params: &PatchParams,
    ) -> Result<DynamicObject, Refusal> {
        let api = self.api(&object.name, &watch::resource(object.kind, version));
        asked(api.patch(&object.name.name, params, &Patch::Apply(value))).await
    }

    /// Deletes it, in the first of its kind's versions that there is.
    pub async fn delete(&self, object: &ObjectName, dry_run: bool) -> Result<(), Refusal> {
        let mut params = DeleteParams::default();
        if dry_run {
            params = params.dry_run();
        }
        let mut last = None;
        for version in object.kind.versions() {
            let api = self.api(&object.name, &watch::resource(object.kind, version));
            match asked(api.delete(&object.name.name, &params)).await {
                // The version, not the object: an object that is not there is named in the details.
                Err(Refusal::Said(said)) if said.code == 404 && !names_object(&said) => {
                    last = Some(Refusal::Said(said));
                }
                other => return other.map(drop),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Whether the caller may change log levels: a right that people give to each other as any other.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, naming the right; what the API server says.
    pub async fn may_set_log_levels(&self) -> Result<(), Status> {
        let attributes = ResourceAttributes {
            group: Some("weir.mesh".to_owned()),
            resource: Some("loglevels".to_owned()),
            verb: Some("update".to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = asked(api.create(&PostParams::default(), &review)).await;
        let answer = answer.map_err(|refusal| refusal.status("log levels"))?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "log levels: the caller may not update loglevels.weir.mesh in namespace {NAMESPACE}"
        )))
    }
}

fn names_object(said: &kube::core::Status) -> bool {
    said.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// Whether `kind` is one whose objects are deleted here.
pub fn is_deleted(kind: Kind) -> bool {
    kind.is_route()
}
