//! The policy of a Server (Linkerd's `policy.linkerd.io`): who may call its ports, and where it has routes, what of them. Must never let a
//! request past its routes that none of them is for.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Client, Denial, Grant, Grants, InboundPlan, Ruling, Standing, paths::has_dot_segments};
use crate::{
    proxy_error::ProxyError,
    route::{self, Facts, ObjectRef, Routed, Table},
};

/// The policy of one Server.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    /// The Server.
    pub object: Arc<ObjectRef>,
    /// Whom it lets in, whatever they ask for.
    pub grants: Grants,
    /// None: all requests are alike.
    pub routes: Option<ServerRoutes>,
}

/// Routes of a Server.
#[derive(Clone, Debug)]
pub struct ServerRoutes {
    table: Table,
    /// Whom each of the table's routes lets in, beside the Server itself.
    grants: Vec<Grants>,
}

/// What becomes of one request to a Server with routes.
#[derive(Debug)]
pub struct Requested {
    /// Whether it may.
    pub plan: InboundPlan,
    /// Who says so.
    pub ruling: Arc<Ruling>,
    /// What its route does with it, where it may. Boxed: nearly all requests have none.
    pub routed: Option<Box<Routed>>,
}

impl ServerPolicy {
    /// Without routes.
    pub fn new(object: Arc<ObjectRef>, grants: Vec<Grant>) -> ServerPolicy {
        ServerPolicy { object, grants: Grants::new(grants), routes: None }
    }

    /// The first grant of the Server itself that lets a client in. `cluster` are the networks of the cluster.
    ///
    /// # Errors
    /// None does.
    pub fn decide(&self, cluster: &[IpNet], client: Client<'_>) -> Result<&Grant, Denial> {
        self.grants.decide(cluster, client)
    }
}

impl ServerRoutes {
    /// `grants` are those of the table's routes, in their order; a route without lets nobody in by itself.
    pub fn new(table: Table, mut grants: Vec<Grants>) -> ServerRoutes {
        grants.resize_with(table.routes().len(), || Grants::new(Vec::new()));
        ServerRoutes { table, grants }
    }

    /// Those that there are.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.table.routes().iter().map(|route| &*route.object)
    }

    /// Decides about a request to `port` of a client, of whom `standing` says what the Server itself does. The networks are the cluster's.
    pub fn request(
        &self,
        standing: &Standing,
        facts: &Facts<'_>,
        port: u16,
        cluster: &[IpNet],
        client: Client<'_>,
    ) -> Requested {
        // Its rules have no backends to choose between. What the application may take for another path than the routes do falls under none.
        let decided = (!has_dot_segments(facts.path))
            .then(|| route::decide_at(&self.table, facts, port, 0, |_service| false))
            .flatten();
        let Some((grants, decision)) = decided.and_then(|(at, decision)| Some((self.grants.get(at)?, decision))) else {
            let ruling = Arc::new(Ruling { authorization: None, ..(*standing.ruling).clone() });
            return Requested { plan: InboundPlan::Deny(ProxyError::NoRoute), ruling, routed: None };
        };
        let mut ruling = Ruling { route: decision.route, ..(*standing.ruling).clone() };
        let plan = match standing.plan {
            InboundPlan::Deny(ProxyError::Unauthorized(denial)) => match grants.decide(cluster, client) {
                Ok(grant) => {
                    ruling.authorization = Some(Arc::clone(&grant.object));
                    InboundPlan::granted(grant)
                }
                // It has no policies of its own: why the Server has none for the client.
                Err(Denial::Server) => InboundPlan::Deny(ProxyError::Unauthorized(denial)),
                Err(denial) => InboundPlan::Deny(ProxyError::Unauthorized(denial)),
            },
            plan => plan,
        };
        let routed = (!matches!(plan, InboundPlan::Deny(_))).then(|| Box::new(decision.routed));
        Requested { plan, ruling: Arc::new(ruling), routed }
    }
}
