//! What the mesh API lists: each item of a kind under a key that stays. Must never work out an item that nobody asked for.

mod nodes;
mod routes;
mod services;
#[cfg(test)]
mod tests;

pub(crate) use self::{nodes::workload, services::of_port};

use prost::Message as _;
use tonic::Status;
use weir_api::v1::{self, ItemKind, item};

use crate::{limits, plane::Plane, replicas::Gathered};

/// Which items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of this kind.
    pub kind: ItemKind,
    namespace: String,
    name: String,
}

impl Asked {
    /// As a request says it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, with the field.
    pub fn of(request: &v1::ListRequest) -> Result<Asked, Status> {
        let wrong = |text: String| Err(Status::invalid_argument(text));
        let kind = match ItemKind::try_from(request.kind) {
            Ok(ItemKind::Unspecified) => return wrong("kind: one is needed, as in ITEM_KIND_ROUTES".to_owned()),
            Ok(kind) => kind,
            Err(_unknown) => return wrong(format!("kind: {} is none that this control knows", request.kind)),
        };
        let v1::ListRequest { namespace, name, .. } = request.clone();
        if kind == ItemKind::Nodes && !namespace.is_empty() {
            return wrong("namespace: nodes have none".to_owned());
        }
        Ok(Asked { kind, namespace, name })
    }

    /// Whether nodes are asked: then all replicas have to be.
    pub fn is_of_nodes(&self) -> bool {
        matches!(self.kind, ItemKind::Workloads | ItemKind::Identities | ItemKind::Nodes)
    }

    fn takes_namespace(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }

    fn takes(&self, namespace: &str, name: &str) -> bool {
        self.takes_namespace(namespace) && (self.name.is_empty() || self.name == name)
    }
}

/// Which part of them.
#[derive(Clone, Debug)]
pub struct Page {
    /// Only what has a greater key.
    pub after: String,
    /// So many.
    pub most: usize,
    /// No further one after so many encoded bytes.
    pub bytes: usize,
}

impl Page {
    /// As a request says it.
    pub fn of(request: &v1::ListRequest) -> Page {
        let most = match usize::try_from(request.limit) {
            Ok(limit @ 1..limits::LISTED_ITEMS) => limit,
            _none_or_more => limits::LISTED_ITEMS,
        };
        Page { after: request.after.clone(), most, bytes: limits::LISTED_BYTES }
    }
}

/// An item that is worked out when it is wanted.
struct Lazy<'a> {
    key: String,
    make: Box<dyn FnOnce() -> item::Item + 'a>,
}

impl<'a> Lazy<'a> {
    fn new(key: String, make: impl FnOnce() -> item::Item + 'a) -> Lazy<'a> {
        Lazy { key, make: Box::new(make) }
    }
}

/// One page, by key, and whether there are more. `gathered`: what all replicas know, where nodes are asked.
///
/// The index is let go of every few milliseconds: nodes wait for who writes to it.
pub fn page(plane: &Plane, gathered: &Gathered, asked: &Asked, page: &Page) -> (Vec<v1::Item>, bool) {
    let at_once = match asked.kind {
        ItemKind::Services => limits::SERVICES_AT_ONCE,
        ItemKind::Routes => limits::ROUTES_AT_ONCE,
        _light => limits::ITEMS_AT_ONCE,
    };
    let (mut items, mut bytes, mut after) = (Vec::new(), 0, page.after.clone());
    loop {
        let (part, has_more) = part(plane, gathered, asked, &after, at_once.min(page.most - items.len()));
        let mut left = part.len();
        for item in part {
            left -= 1;
            bytes += item.encoded_len();
            after.clone_from(&item.key);
            items.push(item);
            if items.len() >= page.most || bytes >= page.bytes {
                return (items, has_more || left > 0);
            }
        }
        if !has_more {
            return (items, false);
        }
    }
}

fn part(plane: &Plane, gathered: &Gathered, asked: &Asked, after: &str, most: usize) -> (Vec<v1::Item>, bool) {
    let pick = |mut all: Vec<Lazy<'_>>| {
        all.retain(|one| after.is_empty() || *one.key > *after);
        all.sort_by(|one, other| one.key.cmp(&other.key));
        let has_more = all.len() > most;
        all.truncate(most);
        let made = all.into_iter().map(|one| v1::Item { key: one.key, item: Some((one.make)()) });
        (made.collect(), has_more)
    };
    let findings = plane.findings();
    let index = plane.index();
    match asked.kind {
        ItemKind::Unspecified => (Vec::new(), false),
        ItemKind::Routes => {
            let told = routes::Told::default();
            pick(routes::all(&index, &told, &findings, asked))
        }
        ItemKind::Services => pick(services::policies(&index, &findings, asked)),
        ItemKind::Endpoints => pick(services::endpoints(&index, asked)),
        ItemKind::Workloads => {
            let statuses = gathered.statuses();
            pick(nodes::workloads(&index, &statuses, asked))
        }
        ItemKind::Identities => pick(nodes::identities(&index, &gathered.statuses(), asked)),
        ItemKind::Nodes => pick(nodes::nodes(&index, gathered, plane.trust_version(), asked)),
    }
}
