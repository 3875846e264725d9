//! What the mesh API says of itself (gRPC server reflection, v1 and v1alpha), to those who may ask it anything. Must never speak of the services
//! that are for nodes and replicas.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Request, body::Body, metadata::MetadataMap, server::NamedService};
use tonic_reflection::server::{
    Builder, Error,
    v1::{ServerReflection, ServerReflectionServer},
    v1alpha::{ServerReflection as OldReflection, ServerReflectionServer as OldReflectionServer},
};
use tower::Service;
use weir_api::{MESH_DESCRIPTORS, v1::mesh_server};

use crate::tokens::{Caller, Tokens};

fn described() -> Builder<'static> {
    let builder = Builder::configure().register_encoded_file_descriptor_set(MESH_DESCRIPTORS);
    builder.with_service_name(mesh_server::SERVICE_NAME)
}

/// What clients of today speak.
///
/// # Errors
/// Descriptors that are none.
pub(super) fn current(
    tokens: &Arc<Tokens>,
) -> Result<Authenticated<ServerReflectionServer<impl ServerReflection + use<>>>, Error> {
    Ok(Authenticated { inner: described().build_v1()?, tokens: Arc::clone(tokens) })
}

/// What many still speak.
///
/// # Errors
/// Descriptors that are none.
pub(super) fn old(
    tokens: &Arc<Tokens>,
) -> Result<Authenticated<OldReflectionServer<impl OldReflection + use<>>>, Error> {
    Ok(Authenticated { inner: described().build_v1alpha()?, tokens: Arc::clone(tokens) })
}

/// A service that nobody reaches without a token of the API.
#[derive(Clone, Debug)]
pub(super) struct Authenticated<S> {
    inner: S,
    tokens: Arc<Tokens>,
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let caller = Caller::of(&Request::from_parts(metadata, request.extensions().clone(), ()));
        let fresh = self.inner.clone();
        // What was said to be ready is what is called.
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move {
            match tokens.api(&caller).await {
                Ok(()) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
