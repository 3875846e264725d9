//! Whether every object of the installation is there. Must never call an object missing that it may not look for.

use std::collections::BTreeSet;

use super::finding::{Finding, Verdict, found};
use crate::{
    chart::{Object, Reference},
    cluster::Cluster,
    error::CliError,
    install::installed::{self, KINDS},
};

pub(super) const CATEGORY: &str = "weir-config";

/// One line for each kind, and one for all that may not be listed.
pub(super) async fn findings(cluster: &Cluster, wanted: &[Object]) -> Vec<(String, Finding)> {
    let wanted: Vec<Reference> = wanted.iter().map(Object::reference).collect();
    let mut all = Vec::new();
    let mut hidden = Vec::new();
    for kind in KINDS.iter().rev() {
        let (group, _, name, plural, _) = *kind;
        let names: BTreeSet<&str> = wanted
            .iter()
            .filter(|reference| (reference.group(), reference.kind.as_str()) == (group, name))
            .map(|reference| reference.name.as_str())
            .collect();
        if names.is_empty() {
            continue;
        }
        match installed::of_kind(cluster, kind).await {
            Err(CliError::Forbidden { .. }) => hidden.push(plural),
            there => all.push(found(CATEGORY, &format!("control plane {plural} exist"), judged(&names, there))),
        }
    }
    all.extend(unseen(&hidden));
    all
}

/// Not everybody may look at them, and nobody needs to.
fn unseen(hidden: &[&str]) -> Option<(String, Finding)> {
    (!hidden.is_empty()).then(|| {
        let hint = format!("you may not list {}: not checked", hidden.join(", "));
        found(CATEGORY, "all control plane objects can be seen", Some((Verdict::Warning, hint)))
    })
}

fn judged(wanted: &BTreeSet<&str>, there: Result<Vec<Reference>, CliError>) -> Option<(Verdict, String)> {
    let there: BTreeSet<String> = match there {
        Ok(there) => there.into_iter().map(|reference| reference.name).collect(),
        Err(error) => return Some((Verdict::Error, error.line())),
    };
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| !there.contains(*name)).collect();
    (!missing.is_empty())
        .then(|| (Verdict::Error, format!("missing: {}; run `weir upgrade | kubectl apply -f -`", missing.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> Vec<Reference> {
        let reference = |name: &&str| Reference {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: "weir".into(),
            name: (*name).into(),
        };
        names.iter().map(reference).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        let wanted = BTreeSet::from(["a", "b"]);
        assert_eq!(judged(&wanted, Ok(there(&["b", "a", "c"]))), None);
        let (verdict, hint) = judged(&wanted, Ok(there(&["b"]))).unwrap();
        assert!(verdict == Verdict::Error && hint.contains("missing: a;"), "{hint}");
    }

    #[test]
    fn what_may_not_be_seen_is_not_missing() {
        assert!(unseen(&[]).is_none());
        let (_, finding) = unseen(&["clusterroles", "roles"]).unwrap();
        assert_eq!(finding.result, Verdict::Warning);
        assert_eq!(finding.hint, "you may not list clusterroles, roles: not checked");
    }
}
