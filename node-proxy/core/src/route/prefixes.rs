//! Path prefixes by segment. Must never cost more than the path is long, however many prefixes there are.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Values by prefix; one value for each.
#[derive(Clone, Debug)]
pub(super) struct Prefixes<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    value: Option<T>,
    below: HashMap<Box<str>, Node<T>, RandomState>,
}

impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node { value: None, below: HashMap::default() }
    }
}

impl<T> Default for Prefixes<T> {
    fn default() -> Prefixes<T> {
        Prefixes { root: Node::default() }
    }
}

/// Segments of a prefix without a slash at its end, or of a path.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    // Everything's prefix is empty and has none.
    path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'))
}

impl<T: Default> Prefixes<T> {
    /// The value of a prefix, made where there is none.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T {
        let mut node = &mut self.root;
        for segment in segments(prefix) {
            node = node.below.entry(segment.into()).or_default();
        }
        node.value.get_or_insert_default()
    }
}

impl<T> Prefixes<T> {
    /// Values of the prefixes of `path`, longest first, until one says more than `None`.
    pub(super) fn longest<R>(&self, path: &str, wanted: impl Fn(&T) -> Option<R>) -> Option<R> {
        self.root.longest(&mut segments(path), &wanted)
    }

    /// All values.
    pub(super) fn for_each(&mut self, mut act: impl FnMut(&mut T)) {
        let mut waiting = vec![&mut self.root];
        while let Some(node) = waiting.pop() {
            if let Some(value) = &mut node.value {
                act(value);
            }
            waiting.extend(node.below.values_mut());
        }
    }
}

impl<T> Node<T> {
    /// As deep as there are prefixes, not as the path is.
    fn longest<'p, R>(
        &self,
        segments: &mut impl Iterator<Item = &'p str>,
        wanted: &impl Fn(&T) -> Option<R>,
    ) -> Option<R> {
        let next = segments.next().and_then(|segment| self.below.get(segment));
        let longer = next.and_then(|next| next.longest(segments, wanted));
        longer.or_else(|| self.value.as_ref().and_then(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_first() {
        let mut prefixes = Prefixes::<String>::default();
        for prefix in ["", "/a", "/a/b", "/a//b", "/ab"] {
            *prefixes.entry(prefix) = prefix.into();
        }
        let all = |path: &str| {
            let seen = std::cell::RefCell::new(Vec::new());
            let none: Option<()> = prefixes.longest(path, |prefix| {
                seen.borrow_mut().push(prefix.clone());
                None
            });
            assert_eq!(none, None);
            seen.into_inner()
        };
        assert_eq!(all("/a/b/c"), ["/a/b", "/a", ""]);
        assert_eq!(all("/a//b"), ["/a//b", "/a", ""]);
        assert_eq!(all("/abc"), [""]);
        assert_eq!(all("/ab/"), ["/ab", ""]);
        assert_eq!(all("*"), [""]);
    }
}
