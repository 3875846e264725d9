//! Linkerd's inbound policy objects (`policy.linkerd.io`): Server, ServerAuthorization, AuthorizationPolicy, MeshTLSAuthentication and
//! NetworkAuthentication. Must never let anybody in by a word that is not understood.
//!
//! What is in force depends on the object alone, whatever was in force before: an object that lets clients in and is not understood lets
//! nobody in, and a Server that is not understood closes every port that it may have meant. So replicas agree, and a restart changes nothing.

use std::sync::Arc;

use weir_api::v1;
use weir_core::inbound::{Clients, DefaultPolicy};

use super::{
    FieldError, Options,
    clients::{self, Identities},
    convert::Outcome,
    fields::{self, IntOrString},
    quoted, settings,
};
use crate::objects::{
    Kind, Name, Object, ObjectName,
    authorization::{
        AuthorizationPolicy, Policy, PolicyTarget, Required, Server, ServerAuthorization, ServerPort, ServerTarget,
    },
};

const GROUP: &str = "policy.linkerd.io";
const NOBODY: &str = "it lets nobody in";

fn outcome(policy: Policy, flaws: Vec<FieldError>) -> Outcome<FieldError> {
    Ok(Some((Object::Policy(Arc::new(policy)), flaws)))
}

fn of_client(read: Result<Policy, FieldError>) -> Outcome<FieldError> {
    match read {
        Ok(policy) => outcome(policy, Vec::new()),
        Err(flaw) => outcome(Policy::Broken, vec![settings::meanwhile(flaw.field, &flaw.reason, NOBODY)]),
    }
}

/// What stands for an object whose fields have other types than they should.
pub(super) fn broken(kind: Kind, flaw: FieldError) -> (Object, FieldError) {
    let FieldError { field, reason } = flaw;
    if kind == Kind::Server {
        let closed = "all ports of all pods of its namespace that no older Server names are closed";
        let server = Server::strictest(Arc::default(), Default::default());
        return (Object::Policy(Arc::new(Policy::Server(server))), settings::meanwhile(field, &reason, closed));
    }
    (Object::Policy(Arc::new(Policy::Broken)), settings::meanwhile(field, &reason, NOBODY))
}

fn name_in(metadata: &fields::Metadata) -> &str {
    metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

/// Of what is not understood the strictest reading is in force.
pub(super) fn server(server: &fields::Server) -> Outcome<FieldError> {
    let mut flaws = Vec::new();
    let mut say = |flaw: FieldError, what: &str| flaws.push(settings::meanwhile(flaw.field, &flaw.reason, what));
    let created = Arc::from(server.metadata.creation_timestamp.as_deref().unwrap_or_default());
    let mut built = Server::strictest(created, clients::labels(server.metadata.labels.as_ref()));
    let Some(spec) = &server.spec else {
        say(FieldError::new("spec", "missing"), "all ports of all pods of its namespace are closed");
        return outcome(Policy::Server(built), flaws);
    };
    match (&spec.pod_selector, &spec.external_workload_selector) {
        (Some(pods), None) => match clients::selector("spec.podSelector", pods) {
            Ok(selector) => built.pods = Some(selector),
            Err(flaw) => say(flaw, "it is about all pods of its namespace"),
        },
        (None, Some(_external)) => built.pods = None,
        (_, of_both) => {
            let reason = if of_both.is_some() { "both it and externalWorkloadSelector are set" } else { "missing" };
            say(FieldError::new("spec.podSelector", reason), "it is about all pods of its namespace");
        }
    }
    match port(spec.port.as_ref()) {
        Ok(port) => built.port = port,
        Err(flaw) => say(flaw, "it is about all of their ports"),
    }
    match protocol(spec.proxy_protocol.as_deref()) {
        Ok(protocol) => built.protocol = protocol,
        Err(flaw) => say(flaw, "it counts as unknown"),
    }
    if let Some(access) = &spec.access_policy {
        match access.parse::<DefaultPolicy>() {
            Ok(access) => built.access = access,
            Err(unknown) => {
                let reason = format!("{} is {unknown}", quoted(access));
                say(FieldError::new("spec.accessPolicy", reason), "it counts as deny");
            }
        }
    }
    outcome(Policy::Server(built), flaws)
}

fn port(given: Option<&IntOrString>) -> Result<ServerPort, FieldError> {
    let wrong = |reason| Err(FieldError::new("spec.port", reason));
    match given {
        None => wrong("missing".to_owned()),
        Some(IntOrString::Number(number)) => match u16::try_from(*number).ok().filter(|port| *port > 0) {
            Some(port) => Ok(ServerPort::Number(port)),
            None => wrong(format!("{number} is no port (1 to 65535)")),
        },
        // Some write numbers as text.
        Some(IntOrString::Text(text)) => match (text.parse::<u16>(), text.is_empty()) {
            (Ok(port), _) if port > 0 => Ok(ServerPort::Number(port)),
            (Err(_), false) if text.len() <= 63 => Ok(ServerPort::Named(Arc::from(text.as_str()))),
            _other => wrong(format!("{} is no port (1 to 65535) or port name", quoted(text))),
        },
    }
}

fn protocol(given: Option<&str>) -> Result<v1::Protocol, FieldError> {
    match given {
        None | Some("unknown") => Ok(v1::Protocol::Detect),
        Some("HTTP/1") => Ok(v1::Protocol::Http1),
        Some("HTTP/2" | "gRPC") => Ok(v1::Protocol::Http2),
        Some("opaque") => Ok(v1::Protocol::Opaque),
        Some("TLS") => Ok(v1::Protocol::Tls),
        Some(other) => {
            let reason = format!("{} is none of unknown, HTTP/1, HTTP/2, gRPC, opaque, TLS", quoted(other));
            Err(FieldError::new("spec.proxyProtocol", reason))
        }
    }
}

pub(super) fn server_authorization(given: &fields::ServerAuthorization, options: &Options) -> Outcome<FieldError> {
    of_client(read_server_authorization(given, options).map(Policy::ServerAuthorization))
}

fn read_server_authorization(
    given: &fields::ServerAuthorization,
    options: &Options,
) -> Result<ServerAuthorization, FieldError> {
    let spec = given.spec.as_ref().ok_or_else(|| FieldError::new("spec", "missing"))?;
    let servers = match spec.server.as_ref().map(|server| (&server.name, &server.selector)) {
        Some((Some(name), None)) if !name.is_empty() => ServerTarget::Name(Arc::from(name.as_str())),
        Some((None, Some(selector))) => ServerTarget::Selector(clients::selector("spec.server.selector", selector)?),
        _other => return Err(FieldError::new("spec.server", "exactly one of name and selector has to be set")),
    };
    let client = spec.client.as_ref().ok_or_else(|| FieldError::new("spec.client", "missing"))?;
    let networks = match client.networks.as_deref() {
        None => None,
        Some([]) => {
            return Err(FieldError::new("spec.client.networks", "an empty list: leave it out, or name networks"));
        }
        Some(networks) => Some(clients::networks("spec.client.networks", networks)?),
    };
    let clients = match (client.unauthenticated.unwrap_or(false), &client.mesh_tls) {
        (true, None) => Clients::Anyone,
        (true, Some(_)) => {
            return Err(FieldError::new("spec.client.meshTLS", "set beside unauthenticated, which asks for nothing"));
        }
        (false, Some(mesh_tls)) => mesh_tls_clients(mesh_tls, name_in(&given.metadata), options)?,
        (false, None) => return Err(FieldError::new("spec.client", "neither unauthenticated nor meshTLS is set")),
    };
    Ok(ServerAuthorization { servers, networks, clients })
}

fn mesh_tls_clients(given: &fields::MeshTls, namespace: &str, options: &Options) -> Result<Clients, FieldError> {
    let field = "spec.client.meshTLS";
    let mut named = Identities::new(&options.trust_domain);
    for (at, identity) in given.identities.iter().flatten().enumerate() {
        named.pattern(&format!("{field}.identities[{at}]"), identity)?;
    }
    for (at, account) in given.service_accounts.iter().flatten().enumerate() {
        let namespace = account.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(namespace);
        named.service_account(&format!("{field}.serviceAccounts[{at}]"), namespace, &account.name)?;
    }
    match (given.unauthenticated_tls.unwrap_or(false), named.clients()) {
        (true, None) => Ok(Clients::Tls),
        (false, Some(clients)) => Ok(clients),
        (true, Some(_)) => Err(FieldError::new(
            format!("{field}.unauthenticatedTLS"),
            "set beside identities or serviceAccounts, which it makes meaningless",
        )),
        (false, None) => {
            Err(FieldError::new(field, "names nobody: set identities, serviceAccounts or unauthenticatedTLS"))
        }
    }
}

pub(super) fn authorization_policy(given: &fields::AuthorizationPolicy, options: &Options) -> Outcome<FieldError> {
    of_client(read_authorization_policy(given, options).map(Policy::AuthorizationPolicy))
}

fn read_authorization_policy(
    given: &fields::AuthorizationPolicy,
    options: &Options,
) -> Result<AuthorizationPolicy, FieldError> {
    let spec = given.spec.as_ref().ok_or_else(|| FieldError::new("spec", "missing"))?;
    let own = name_in(&given.metadata);
    let target = spec.target_ref.as_ref().ok_or_else(|| FieldError::new("spec.targetRef", "missing"))?;
    let mut policy = AuthorizationPolicy {
        target: policy_target(target, own)?,
        clients: Required::Nothing,
        networks: Required::Nothing,
    };
    for (at, reference) in spec.required_authentication_refs.iter().flatten().enumerate() {
        let field = format!("spec.requiredAuthenticationRefs[{at}]");
        let namespace = reference.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
        let name = Name::new(namespace, &reference.name);
        let twice = |what: &str| Err(FieldError::new(field.clone(), format!("at most one {what} is taken")));
        if reference.name.is_empty() {
            return Err(FieldError::new(format!("{field}.name"), "missing"));
        }
        match (reference.group.as_deref().unwrap_or_default(), reference.kind.as_str()) {
            (GROUP, "MeshTLSAuthentication") | ("" | "core", "ServiceAccount")
                if policy.clients != Required::Nothing =>
            {
                return twice("MeshTLSAuthentication or ServiceAccount");
            }
            (GROUP, "NetworkAuthentication") if policy.networks != Required::Nothing => {
                return twice("NetworkAuthentication");
            }
            (GROUP, "MeshTLSAuthentication") => {
                policy.clients = Required::Object(ObjectName { kind: Kind::MeshTlsAuthentication, name });
            }
            (GROUP, "NetworkAuthentication") => {
                policy.networks = Required::Object(ObjectName { kind: Kind::NetworkAuthentication, name });
            }
            ("" | "core", "ServiceAccount") => {
                let mut named = Identities::new(&options.trust_domain);
                named.service_account(&field, namespace, &reference.name)?;
                // One that was named is always there.
                policy.clients = named.clients().map_or(Required::Nothing, Required::These);
            }
            (group, kind) => {
                let reason = format!(
                    "{} is none of MeshTLSAuthentication, NetworkAuthentication ({GROUP}) and ServiceAccount",
                    quoted(&format!("{group}/{kind}"))
                );
                return Err(FieldError::new(field, reason));
            }
        }
    }
    Ok(policy)
}

fn policy_target(target: &fields::PolicyRef, own: &str) -> Result<PolicyTarget, FieldError> {
    let field = |name: &str| format!("spec.targetRef.{name}");
    if target.name.is_empty() {
        return Err(FieldError::new(field("name"), "missing"));
    }
    if target.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty() && namespace != own) {
        return Err(FieldError::new(field("namespace"), "it has to be the policy's own namespace"));
    }
    match (target.group.as_deref().unwrap_or_default(), target.kind.as_str()) {
        (GROUP, "Server") => Ok(PolicyTarget::Server(Arc::from(target.name.as_str()))),
        ("" | "core", "Namespace") if target.name == own => Ok(PolicyTarget::Namespace),
        ("" | "core", "Namespace") => {
            Err(FieldError::new(field("name"), format!("it has to be the policy's own namespace, {own}")))
        }
        (group, kind @ ("HTTPRoute" | "GRPCRoute")) if Kind::of(&format!("{group}/v1"), kind).is_some() => {
            let kind = Kind::of(&format!("{group}/v1"), kind).unwrap_or(Kind::HttpRoute);
            Ok(PolicyTarget::Route(ObjectName { kind, name: Name::new(own, &target.name) }))
        }
        (group, kind) => {
            let reason = format!(
                "{} is none of Server ({GROUP}), Namespace, HTTPRoute and GRPCRoute",
                quoted(&format!("{group}/{kind}"))
            );
            Err(FieldError::new(field("kind"), reason))
        }
    }
}

pub(super) fn mesh_tls(given: &fields::MeshTlsAuthentication, options: &Options) -> Outcome<FieldError> {
    of_client(read_mesh_tls(given, options).map(Policy::MeshTls))
}

fn read_mesh_tls(given: &fields::MeshTlsAuthentication, options: &Options) -> Result<Clients, FieldError> {
    let spec = given.spec.as_ref().ok_or_else(|| FieldError::new("spec", "missing"))?;
    if spec.identities.is_some() && spec.identity_refs.is_some() {
        return Err(FieldError::new("spec.identities", "set beside identityRefs: exactly one of them is taken"));
    }
    let own = name_in(&given.metadata);
    let mut named = Identities::new(&options.trust_domain);
    for (at, identity) in spec.identities.iter().flatten().enumerate() {
        named.pattern(&format!("spec.identities[{at}]"), identity)?;
    }
    for (at, reference) in spec.identity_refs.iter().flatten().enumerate() {
        let field = format!("spec.identityRefs[{at}]");
        let namespace = reference.namespace.as_deref().filter(|name| !name.is_empty());
        match (reference.group.as_deref().unwrap_or_default(), reference.kind.as_str()) {
            ("" | "core", "ServiceAccount") if reference.name.is_empty() => {
                return Err(FieldError::new(format!("{field}.name"), "missing"));
            }
            ("" | "core", "ServiceAccount") => {
                named.service_account(&field, namespace.unwrap_or(own), &reference.name)?;
            }
            ("" | "core", "Namespace") if namespace.is_some() => {
                return Err(FieldError::new(format!("{field}.namespace"), "a Namespace is in none"));
            }
            ("" | "core", "Namespace") if !reference.name.is_empty() => named.namespace(&field, &reference.name)?,
            ("" | "core", "Namespace") => return Err(FieldError::new(format!("{field}.name"), "missing")),
            (group, kind) => {
                let reason = format!("{} is neither ServiceAccount nor Namespace", quoted(&format!("{group}/{kind}")));
                return Err(FieldError::new(format!("{field}.kind"), reason));
            }
        }
    }
    named.clients().ok_or_else(|| FieldError::new("spec.identities", "names nobody: set it or identityRefs"))
}

pub(super) fn network_authentication(given: &fields::NetworkAuthentication) -> Outcome<FieldError> {
    let spec = given.spec.as_ref().ok_or_else(|| FieldError::new("spec", "missing"));
    let networks = spec.and_then(|spec| match spec.networks.as_deref().unwrap_or_default() {
        [] => Err(FieldError::new("spec.networks", "missing: at least one is needed")),
        networks => clients::networks("spec.networks", networks),
    });
    of_client(networks.map(Policy::Networks))
}

#[cfg(test)]
mod tests;
