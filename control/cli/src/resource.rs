//! Resources as people name them (`deploy`, `deploy/web`, `svc`), and which rows they mean. Must never guess a kind that it does not know.

use std::fmt;

use weir_api::v1::PodRef;

/// Kind of resource that traffic is summed up by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every owner, whatever its kind; a pod without an owner is its own.
    Owner,
    /// One kind of owner, in control's words (`deployment`).
    OwnedBy(&'static str),
    /// Pods.
    Pod,
    /// Namespaces.
    Namespace,
    /// Services that clients dialled.
    Service,
}

/// Kinds of owners: full name, plural, the short name that tables use, and further names.
const OWNERS: [(&str, &str, &str, &str); 6] = [
    ("deployment", "deployments", "deploy", "deploys"),
    ("statefulset", "statefulsets", "sts", "sts"),
    ("daemonset", "daemonsets", "ds", "ds"),
    ("job", "jobs", "job", "job"),
    ("cronjob", "cronjobs", "cj", "cj"),
    ("replicaset", "replicasets", "rs", "rs"),
];

impl Kind {
    fn parse(text: &str) -> Result<Kind, String> {
        let lower = text.to_ascii_lowercase();
        let owner =
            OWNERS.iter().find(|(full, plural, short, other)| [*full, *plural, *short, *other].contains(&&*lower));
        if let Some((full, ..)) = owner {
            return Ok(Kind::OwnedBy(full));
        }
        match &*lower {
            "all" | "owner" | "owners" => Ok(Kind::Owner),
            "pod" | "pods" | "po" => Ok(Kind::Pod),
            "namespace" | "namespaces" | "ns" => Ok(Kind::Namespace),
            "service" | "services" | "svc" => Ok(Kind::Service),
            _ => Err(format!(
                "{text:?} is no kind of resource: use deploy, sts, ds, job, cj, rs, pod, ns, svc or all, alone or as KIND/NAME; `weir stat` also takes endpoints"
            )),
        }
    }
}

/// A kind, perhaps with a name: `deploy`, `deploy/web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
}

impl Resource {
    /// Parses `KIND` or `KIND/NAME`.
    pub(crate) fn parse(text: &str) -> Result<Resource, String> {
        let (kind, name) = match text.split_once('/') {
            Some((_, "")) => return Err(format!("{text:?} has no name after the slash")),
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (text, None),
        };
        Ok(Resource { kind: Kind::parse(kind)?, name })
    }

    /// Parses positional arguments as kubectl does: `deploy/a sts/b …`, or `deploy a b …`. None: all owners.
    pub(crate) fn parse_all(arguments: &[String]) -> Result<Vec<Resource>, String> {
        let Some(first) = arguments.first() else { return Ok(vec![Resource { kind: Kind::Owner, name: None }]) };
        let rest = &arguments[1..];
        let names_follow = !first.contains('/') && !rest.is_empty() && rest.iter().all(|name| !name.contains('/'));
        if names_follow {
            let kind = Kind::parse(first)?;
            return Ok(rest.iter().map(|name| Resource { kind: kind.clone(), name: Some(name.clone()) }).collect());
        }
        arguments.iter().map(|argument| Resource::parse(argument)).collect()
    }

    /// The subject of this resource's kind that a pod, or a service as `namespace/name`, belongs to; `None` if it is not meant.
    pub(crate) fn subject(&self, pod: Option<&PodRef>, service: &str) -> Option<Subject> {
        let subject = match &self.kind {
            Kind::Service => {
                let (namespace, name) = service.split_once('/')?;
                Subject::new(namespace, "service", name)
            }
            Kind::Owner => Subject::owner(pod?)?,
            Kind::OwnedBy(kind) => Subject::owner(pod?).filter(|subject| subject.kind == *kind)?,
            Kind::Pod => Subject::new(&pod?.namespace, "pod", &pod?.name),
            Kind::Namespace => Subject::new(&pod?.namespace, "namespace", &pod?.namespace),
        };
        let wanted = self.name.as_ref().is_none_or(|name| *name == subject.name);
        (wanted && !subject.name.is_empty()).then_some(subject)
    }
}

/// Resources in one namespace, or in all.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) resources: Vec<Resource>,
    pub(crate) namespace: Option<String>,
}

impl Selector {
    /// Subjects of all resources that mean this pod or service.
    pub(crate) fn subjects(&self, pod: Option<&PodRef>, service: &str) -> impl Iterator<Item = Subject> {
        self.resources.iter().filter_map(move |resource| resource.subject(pod, service)).filter(|subject| {
            // `weir stat ns` is about the cluster, whatever the current namespace is.
            let anywhere = subject.kind == "namespace";
            anywhere || self.namespace.as_ref().is_none_or(|namespace| *namespace == subject.namespace)
        })
    }

    /// Whether any resource means this pod or service.
    pub(crate) fn matches(&self, pod: Option<&PodRef>, service: &str) -> bool {
        self.subjects(pod, service).next().is_some()
    }

    /// Whether names need their kind in front to be told apart.
    pub(crate) fn mixed(&self) -> bool {
        self.resources.iter().any(|resource| resource.kind == Kind::Owner || resource.kind != self.resources[0].kind)
    }
}

/// What a line of a table is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Subject {
    /// Names one.
    pub(crate) fn new(namespace: &str, kind: &str, name: &str) -> Subject {
        Subject { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
    }

    /// The owner of a pod, or the pod itself; `None` when neither has a name.
    pub(crate) fn owner(pod: &PodRef) -> Option<Subject> {
        if !pod.owner_name.is_empty() {
            return Some(Subject::new(&pod.namespace, &pod.owner_kind, &pod.owner_name));
        }
        (!pod.name.is_empty()).then(|| Subject::new(&pod.namespace, "pod", &pod.name))
    }
}

/// `deploy/web`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = OWNERS.iter().find(|(full, ..)| *full == self.kind).map(|(_, _, short, _)| *short);
        let short = match &*self.kind {
            "service" => "svc",
            "serviceaccount" => "sa",
            "namespace" => "ns",
            kind => short.unwrap_or(kind),
        };
        if short.is_empty() { f.write_str(&self.name) } else { write!(f, "{short}/{}", self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> PodRef {
        PodRef {
            namespace: "shop".into(),
            name: "web-1".into(),
            owner_kind: "deployment".into(),
            owner_name: "web".into(),
            ..PodRef::default()
        }
    }

    fn name_of(resource: &str, pod: Option<&PodRef>) -> Option<String> {
        Resource::parse(resource).unwrap().subject(pod, "shop/front").map(|subject| subject.to_string())
    }

    #[test]
    fn kinds_as_kubectl_names_them() {
        for name in ["deploy", "deployment", "Deployments"] {
            assert_eq!(Resource::parse(name).unwrap().kind, Kind::OwnedBy("deployment"));
        }
        assert!(Resource::parse("deploy/").unwrap_err().contains("no name"));
        assert!(Resource::parse("gateway").unwrap_err().contains("deploy, sts"));
    }

    #[test]
    fn arguments_as_kubectl_takes_them() {
        let parse =
            |arguments: &[&str]| Resource::parse_all(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap()[0].kind, Kind::Owner);
        assert_eq!(parse(&["deploy", "web", "api"]).unwrap()[1].name.as_deref(), Some("api"));
        assert_eq!(parse(&["deploy/web", "sts/db"]).unwrap()[1].kind, Kind::OwnedBy("statefulset"));
        assert!(parse(&["web"]).is_err());
    }

    #[test]
    fn a_pod_belongs_to_its_subjects() {
        let pod = web();
        assert_eq!(name_of("all", Some(&pod)).as_deref(), Some("deploy/web"));
        assert_eq!(name_of("deploy/web", Some(&pod)).as_deref(), Some("deploy/web"));
        assert_eq!(name_of("deploy/api", Some(&pod)), None);
        assert_eq!(name_of("sts", Some(&pod)), None);
        assert_eq!(name_of("pod", Some(&pod)).as_deref(), Some("pod/web-1"));
        assert_eq!(name_of("ns", Some(&pod)).as_deref(), Some("ns/shop"));
        assert_eq!(name_of("svc", None).as_deref(), Some("svc/front"));
    }

    #[test]
    fn nothing_is_known_of_an_empty_reference() {
        for kind in ["all", "deploy", "pod", "ns"] {
            assert_eq!(name_of(kind, Some(&PodRef::default())), None);
            assert_eq!(name_of(kind, None), None);
        }
        let bare = PodRef { owner_name: String::new(), owner_kind: String::new(), ..web() };
        assert_eq!(name_of("all", Some(&bare)).as_deref(), Some("pod/web-1"));
    }
}
