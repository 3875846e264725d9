//! What people should hear about a pod. Must never grow without bound: what nobody takes in time is only in the log.

use std::sync::Arc;

use weir_api::v1;

use crate::objects::Pod;

/// Why somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its connections are taken in, with mTLS, from now on.
    Meshed,
    /// No more.
    Unmeshed,
    /// It is opted in, but cannot be meshed.
    MeshRefused,
    /// A label or annotation of it is not understood.
    SettingRefused,
    /// Control did not sign for it.
    CertificateDenied,
    /// It waits for its certificate, or has one that is about to end.
    CertificateLate,
    /// A circuit breaker keeps requests from it.
    EndpointEjected,
    /// No more.
    EndpointReinstated,
}

impl Reason {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Meshed => "Meshed",
            Reason::Unmeshed => "Unmeshed",
            Reason::MeshRefused => "MeshRefused",
            Reason::SettingRefused => "SettingRefused",
            Reason::CertificateDenied => "CertificateDenied",
            Reason::CertificateLate => "CertificateLate",
            Reason::EndpointEjected => "EndpointEjected",
            Reason::EndpointReinstated => "EndpointReinstated",
        }
    }

    /// Whether something should be done about it.
    pub fn is_warning(self) -> bool {
        !matches!(self, Reason::Meshed | Reason::Unmeshed | Reason::EndpointReinstated)
    }
}

/// One thing about one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// Of the pod.
    pub namespace: String,
    /// Of the pod.
    pub name: String,
    /// Of the pod.
    pub uid: Arc<str>,
    /// In a word.
    pub reason: Reason,
    /// In a sentence.
    pub note: String,
    /// Distinguishes it from an earlier one of the same words; empty when the same words are the same news.
    pub occasion: Arc<str>,
}

impl Notice {
    /// About a pod.
    pub fn of(pod: &Pod, reason: Reason, note: impl Into<String>) -> Notice {
        let v1::PodRef { namespace, name, .. } = &pod.reference;
        Notice {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: Arc::clone(&pod.uid),
            reason,
            note: note.into(),
            occasion: Arc::from(""),
        }
    }

    /// The same on another occasion.
    pub fn on(self, occasion: &str) -> Notice {
        Notice { occasion: Arc::from(occasion), ..self }
    }
}
