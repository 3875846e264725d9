//! Trust anchors and issuer as the cluster holds them. Must never read a private key.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use x509_parser::pem::Pem;

use super::finding::{Finding, Verdict, found};
use crate::{certificate::Certificate, cluster::Cluster, error::CliError, limits};

const CATEGORY: &str = "weir-identity";
const ANCHORS: &str = "trust anchors are within their validity period";
const ANCHORS_LAST: &str = "trust anchors are valid for at least 60 days";
const ISSUER: &str = "issuer certificate is within its validity period";

/// Of who may read them; control checks its own issuer too.
pub(super) async fn findings(cluster: &Cluster) -> Vec<(String, Finding)> {
    let mut all = Vec::new();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    let doing = "reading the trust anchors (ConfigMap weir-trust-anchors)";
    match cluster.ask(doing, maps.get_opt("weir-trust-anchors")).await {
        Ok(Some(map)) => {
            let pem = map.data.and_then(|mut data| data.remove("ca.crt")).unwrap_or_default();
            all.extend(anchors(pem.as_bytes(), now()));
        }
        Ok(None) => {
            let error = CliError::NoAnchors { namespace: cluster.mesh.clone() };
            let (category, finding) = found(CATEGORY, ANCHORS, Some((Verdict::Error, error.line())));
            all.push((category, finding.worth_waiting()));
        }
        Err(error) => all.push(found(CATEGORY, ANCHORS, Some((Verdict::Warning, error.line())))),
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.mesh);
    // Whoever may not read it is told by control; when there is none, control says so too.
    let secret = cluster.ask("reading the issuer", secrets.get_opt("weir-identity-issuer")).await.ok().flatten();
    if let Some(pem) = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove("tls.crt")) {
        all.push(issuer(&pem.0, now()));
    }
    all
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).cast_signed()
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let blocks = Pem::iter_from_buffer(pem).take(limits::ANCHORS);
    blocks.map(|block| Certificate::parse(&block.map_err(|error| format!("no PEM: {error}"))?.contents)).collect()
}

fn anchors(pem: &[u8], now: i64) -> Vec<(String, Finding)> {
    let anchors = match certificates(pem) {
        Ok(anchors) if anchors.is_empty() => {
            let hint = "ConfigMap weir-trust-anchors holds none: restart weir-control, and see its log".to_owned();
            return vec![found(CATEGORY, ANCHORS, Some((Verdict::Error, hint)))];
        }
        Ok(anchors) => anchors,
        Err(error) => return vec![found(CATEGORY, ANCHORS, Some((Verdict::Error, error)))],
    };
    let line =
        |anchor: &Certificate| format!("{} (serial {}): {}", anchor.subject, anchor.serial, anchor.remaining(now));
    let outdated: Vec<String> = anchors.iter().filter(|anchor| !anchor.is_current(now)).map(line).collect();
    // One that is valid is enough for the mesh to work; an old one is left over from a rotation.
    let verdict = if outdated.len() == anchors.len() { Verdict::Error } else { Verdict::Warning };
    let mut all = vec![found(CATEGORY, ANCHORS, (!outdated.is_empty()).then(|| (verdict, outdated.join("\n"))))];
    let soon = now.saturating_add(limits::ANCHOR_SECONDS);
    let ending: Vec<String> =
        anchors.iter().filter(|anchor| anchor.is_current(now) && !anchor.is_current(soon)).map(line).collect();
    let hint = || (Verdict::Warning, format!("{}\nrotate them: docs/install.md says how", ending.join("\n")));
    all.push(found(CATEGORY, ANCHORS_LAST, (!ending.is_empty()).then(hint)));
    all
}

fn issuer(pem: &[u8], now: i64) -> (String, Finding) {
    let problem = match certificates(pem).map(|chain| chain.into_iter().next()) {
        Ok(Some(issuer)) if issuer.is_current(now) => None,
        Ok(Some(issuer)) => Some(format!(
            "{} (serial {}): {}; control signs nothing until Secret weir-identity-issuer holds a valid one",
            issuer.subject,
            issuer.serial,
            issuer.remaining(now)
        )),
        Ok(None) => Some("Secret weir-identity-issuer holds no certificate in tls.crt".to_owned()),
        Err(error) => Some(format!("Secret weir-identity-issuer, tls.crt: {error}")),
    };
    found(CATEGORY, ISSUER, problem.map(|hint| (Verdict::Error, hint)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2026-01-01 to 2026-07-01.
    fn pem() -> String {
        let mut params = CertificateParams::new(vec!["anchor".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 7, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    const BEGIN: i64 = 1_767_225_600;
    const DAY: i64 = 86_400;

    fn verdicts(pem: &[u8], now: i64) -> Vec<Verdict> {
        anchors(pem, now).iter().map(|(_, finding)| finding.result).collect()
    }

    #[test]
    fn anchors_over_their_life() {
        let pem = pem();
        assert_eq!(verdicts(pem.as_bytes(), BEGIN + DAY), [Verdict::Success; 2]);
        assert_eq!(verdicts(pem.as_bytes(), BEGIN + 150 * DAY), [Verdict::Success, Verdict::Warning]);
        assert_eq!(verdicts(pem.as_bytes(), BEGIN + 200 * DAY)[0], Verdict::Error);
        assert_eq!(verdicts(b"", BEGIN), [Verdict::Error]);
        assert_eq!(
            verdicts(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", BEGIN),
            [Verdict::Error]
        );
    }

    #[test]
    fn an_issuer_that_ended() {
        let pem = pem();
        assert_eq!(issuer(pem.as_bytes(), BEGIN + DAY).1.result, Verdict::Success);
        let ended = issuer(pem.as_bytes(), BEGIN + 200 * DAY).1;
        assert!(ended.result == Verdict::Error && ended.hint.contains("expired"), "{ended:?}");
        assert_eq!(issuer(b"", BEGIN).1.result, Verdict::Error);
    }
}
