//! Session persistence of routes' rules (Gateway API, GEP-1619). Must never keep a session for longer than the rule says.

use weir_api::v1::{self, session_persistence::Carrier};
use weir_core::route::default_name;

use super::{FieldError, fields, quoted, timeouts};

/// A rule, as its sessions are told from those of others.
pub(super) struct Rule<'a> {
    /// Of the route: its kind, namespace and name.
    pub(super) route: &'a str,
    /// Its own name, which stays where rules before it come and go.
    pub(super) name: Option<&'a str>,
    /// Index of it.
    pub(super) at: usize,
}

impl Rule<'_> {
    fn scope(&self) -> String {
        match self.name {
            Some(name) => format!("{} {name}", self.route),
            // No name can be this one.
            None => format!("{} #{}", self.route, self.at),
        }
    }
}

/// `sessionPersistence` of a rule.
pub(super) fn of_rule(
    rule: &Rule<'_>,
    given: Option<&fields::SessionPersistence>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::SessionPersistence> {
    let given = given?;
    let mut wrong = |name: &str, reason: String| {
        errors.push(FieldError::new(format!("spec.rules[{}].sessionPersistence.{name}", rule.at), reason));
    };
    let mut limit = |name: &str, text: Option<&String>| match timeouts::gateway(text?) {
        Ok(limit) => u64::try_from(limit.as_millis()).ok().filter(|millis| *millis > 0),
        Err(reason) => {
            wrong(name, reason);
            None
        }
    };
    let absolute = limit("absoluteTimeout", given.absolute_timeout.as_ref());
    let idle = limit("idleTimeout", given.idle_timeout.as_ref());
    let lifetime = given.cookie_config.as_ref().and_then(|config| config.lifetime_type.as_deref());
    let permanent = match lifetime.unwrap_or("Session") {
        "Session" => false,
        "Permanent" => true,
        other => {
            wrong("cookieConfig.lifetimeType", format!("{} is none of Session, Permanent", quoted(other)));
            false
        }
    };
    if permanent && absolute.is_none() {
        wrong("absoluteTimeout", "missing, and a permanent cookie lives as long as it says".to_owned());
    }
    let scope = rule.scope();
    let name = given.session_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| default_name(&scope));
    let carrier = match given.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => Carrier::Cookie(name),
        "Header" => {
            if given.cookie_config.is_some() {
                wrong("cookieConfig", "is for type Cookie, and this is type Header".to_owned());
            }
            Carrier::Header(name)
        }
        other => {
            wrong("type", format!("{} is none of Cookie, Header", quoted(other)));
            return None;
        }
    };
    Some(v1::SessionPersistence {
        carrier: Some(carrier),
        scope,
        absolute_timeout_ms: absolute.unwrap_or_default(),
        idle_timeout_ms: idle.unwrap_or_default(),
        permanent,
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        fixtures::{objects, options, route},
        objects::Object,
        parse::manifest,
    };

    use super::*;

    fn read(rules: &str) -> Vec<v1::SessionPersistence> {
        let (_name, object) = objects(&route("web", "demo", &format!("  rules: [{rules}]"))).pop().expect("a route");
        let Object::HttpRoute(route) = object else { panic!("{object:?}") };
        route.rules.iter().filter_map(|rule| rule.sessions.clone()).collect()
    }

    #[test]
    fn what_is_left_out_is_gateway_apis_default() {
        let [read] = &*read("{sessionPersistence: {}}") else { panic!("one") };
        let scope = "HTTPRoute demo/web #0";
        let expected = v1::SessionPersistence {
            carrier: Some(Carrier::Cookie(default_name(scope))),
            scope: scope.to_owned(),
            ..v1::SessionPersistence::default()
        };
        assert_eq!(*read, expected);
    }

    #[test]
    fn all_of_it_counts() {
        let given = "{name: cart, sessionPersistence: {sessionName: Cart, absoluteTimeout: 1h30m, idleTimeout: 10m, type: Cookie, cookieConfig: {lifetimeType: Permanent}}}";
        let by_header = "{sessionPersistence: {sessionName: X-Cart, type: Header, idleTimeout: 0s}}";
        let [cookie, header] = &*read(&format!("{given}, {by_header}")) else { panic!("two") };
        let expected = v1::SessionPersistence {
            carrier: Some(Carrier::Cookie("Cart".to_owned())),
            scope: "HTTPRoute demo/web cart".to_owned(),
            absolute_timeout_ms: 5_400_000,
            idle_timeout_ms: 600_000,
            permanent: true,
        };
        assert_eq!(*cookie, expected);
        let expected = v1::SessionPersistence {
            carrier: Some(Carrier::Header("X-Cart".to_owned())),
            scope: "HTTPRoute demo/web #1".to_owned(),
            ..v1::SessionPersistence::default()
        };
        assert_eq!(*header, expected);
    }

    /// Else each rule that comes or goes before it would end all of its sessions.
    #[test]
    fn sessions_of_a_rule_with_a_name_outlive_its_place() {
        let cart = "{name: cart, sessionPersistence: {}}";
        assert_eq!(read(cart), read(&format!("{{name: first}}, {cart}")));
    }

    #[test]
    fn what_is_not_understood_refuses_the_route_by_name() {
        for (rule, field, reason) in [
            ("sessionPersistence: {type: Query}", "spec.rules[0].sessionPersistence.type", "none of"),
            ("sessionPersistence: {sesionName: a}", "spec.rules[0].sessionPersistence.sesionName", "unknown field"),
            ("sessionPersistence: {sessionName: a b}", "spec.rules", "sessionPersistence.sessionName"),
            ("sessionPersistence: {idleTimeout: 1d}", "spec.rules[0].sessionPersistence.idleTimeout", "no duration"),
            (
                "sessionPersistence: {absoluteTimeout: 0s, cookieConfig: {lifetimeType: Permanent}}",
                "spec.rules[0].sessionPersistence.absoluteTimeout",
                "missing",
            ),
            (
                "sessionPersistence: {cookieConfig: {lifetimeType: Long}}",
                "spec.rules[0].sessionPersistence.cookieConfig.lifetimeType",
                "none of",
            ),
            (
                "sessionPersistence: {type: Header, cookieConfig: {}}",
                "spec.rules[0].sessionPersistence.cookieConfig",
                "type Cookie",
            ),
        ] {
            let parsed = manifest("a.yaml", &route("web", "demo", &format!("  rules: [{{{rule}}}]")), &options());
            assert_eq!((parsed.objects.len(), parsed.refused.len()), (0, 1), "{rule}");
            let finding = &parsed.findings[0];
            assert_eq!(finding.field, field, "{finding}");
            assert!(finding.reason.contains(reason), "{finding}");
        }
    }
}
