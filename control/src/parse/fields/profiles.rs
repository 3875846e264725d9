//! Fields of Linkerd's ServiceProfile and of SMI's TrafficSplit, and no others. Must never give a default that Linkerd does not.

use serde::{Deserialize, de::IgnoredAny};

use super::Metadata;

/// `linkerd.io/v1alpha2/ServiceProfile`, and `v1alpha1`, which has no other fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct ServiceProfile {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<ServiceProfileSpec>,
}

/// What is unknown here refuses the profile: it would be another one without.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ServiceProfileSpec {
    pub(in crate::parse) routes: Option<Vec<ProfileRoute>>,
    pub(in crate::parse) retry_budget: Option<ProfileRetryBudget>,
    pub(in crate::parse) dst_overrides: Option<Vec<DstOverride>>,
    pub(in crate::parse) opaque_ports: Option<Vec<Scalar>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ProfileRoute {
    pub(in crate::parse) name: String,
    pub(in crate::parse) condition: Option<RequestMatch>,
    pub(in crate::parse) response_classes: Option<Vec<ResponseClass>>,
    pub(in crate::parse) is_retryable: Option<bool>,
    pub(in crate::parse) timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct RequestMatch {
    pub(in crate::parse) all: Option<Vec<RequestMatch>>,
    pub(in crate::parse) any: Option<Vec<RequestMatch>>,
    pub(in crate::parse) not: Option<Box<RequestMatch>>,
    pub(in crate::parse) path_regex: Option<String>,
    pub(in crate::parse) method: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ResponseClass {
    pub(in crate::parse) condition: Option<ResponseMatch>,
    pub(in crate::parse) is_failure: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ResponseMatch {
    pub(in crate::parse) all: Option<Vec<ResponseMatch>>,
    pub(in crate::parse) any: Option<Vec<ResponseMatch>>,
    pub(in crate::parse) not: Option<Box<ResponseMatch>>,
    pub(in crate::parse) status: Option<StatusRange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct StatusRange {
    pub(in crate::parse) min: Option<u32>,
    pub(in crate::parse) max: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::parse) struct ProfileRetryBudget {
    pub(in crate::parse) retry_ratio: Option<f64>,
    pub(in crate::parse) min_retries_per_second: Option<u32>,
    pub(in crate::parse) ttl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct DstOverride {
    pub(in crate::parse) authority: String,
    pub(in crate::parse) weight: Option<Scalar>,
}

/// `split.smi-spec.io/TrafficSplit`, of any version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::parse) struct TrafficSplit {
    pub(in crate::parse) metadata: Metadata,
    pub(in crate::parse) spec: Option<TrafficSplitSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct TrafficSplitSpec {
    pub(in crate::parse) service: String,
    pub(in crate::parse) backends: Option<Vec<SplitBackend>>,
    /// From `v1alpha3`: which requests are meant.
    pub(in crate::parse) matches: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::parse) struct SplitBackend {
    pub(in crate::parse) service: String,
    pub(in crate::parse) weight: Option<Scalar>,
}

/// A number, or its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::parse) enum Scalar {
    Integer(u64),
    Float(f64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Integer(number) => number.fmt(formatter),
            Scalar::Float(number) => number.fmt(formatter),
            Scalar::Text(text) => text.fmt(formatter),
        }
    }
}
