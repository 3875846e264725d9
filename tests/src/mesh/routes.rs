//! HTTPRoutes of one Service by the thousand. Must never be one that Gateway API's definition would refuse.

use std::fmt::Write as _;

use super::NAMESPACE;

/// Rules of one HTTPRoute: as many as its definition allows.
const RULES_EACH: usize = 16;

/// Rules that send everything to the Service itself.
#[derive(Clone, Copy, Debug)]
pub struct HttpRules<'a> {
    /// Name of the Service.
    pub service: &'a str,
    /// The port that they send to.
    pub port: u16,
    /// How many with a path of their own, `/0` and so on: a prefix, a whole path, and so on.
    pub rules: usize,
    /// How many regular expressions beside them.
    pub patterns: usize,
    /// What the last prefix's rule has beside its backend, indented as a rule's fields.
    pub more: &'a str,
}

impl HttpRules<'_> {
    /// Its HTTPRoutes, named after the Service and numbered, and how many.
    pub fn manifest(&self) -> (String, usize) {
        let patterns =
            (0..self.patterns).map(|at| self.rule("RegularExpression", &format!("/[a-z]+/{at}(/[0-9]+)?"), ""));
        let rules = (0..self.rules).map(|at| {
            let (kind, more) = if at % 2 == 0 { ("PathPrefix", self.more) } else { ("Exact", "") };
            self.rule(kind, &format!("/{at}"), if at + 2 >= self.rules { more } else { "" })
        });
        let rules: Vec<String> = patterns.chain(rules).collect();
        let mut text = String::new();
        for (at, rules) in rules.chunks(RULES_EACH).enumerate() {
            let HttpRules { service, .. } = self;
            // Writing to a string cannot fail.
            let _written = write!(
                text,
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {service}-{at}, namespace: {NAMESPACE}}}\n\
                 spec:\n  parentRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  rules:\n{}",
                rules.concat()
            );
        }
        (text, rules.chunks(RULES_EACH).len())
    }

    fn rule(&self, kind: &str, path: &str, more: &str) -> String {
        let HttpRules { service, port, .. } = self;
        format!(
            "  - matches: [{{path: {{type: {kind}, value: '{path}'}}}}]\n    backendRefs: [{{name: {service}, port: {port}}}]\n{more}"
        )
    }
}
