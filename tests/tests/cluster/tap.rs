//! What passes between the nodes of the cluster.

use std::process::Command;

use weir_tests::wire::Wire;

/// Where the cluster's bridge joins the second node.
const LINK: &str = "weirk-node-b";

/// What passes between the nodes, as it passes.
pub(crate) struct Tap {
    wire: Wire,
    _folder: tempfile::TempDir,
}

impl Tap {
    /// Begins to listen at the second node's link.
    pub(crate) fn open() -> Tap {
        let folder = tempfile::tempdir().unwrap();
        let wire = Wire::tap_link(Command::new("tcpdump"), LINK, folder.path(), "link");
        Tap { wire, _folder: folder }
    }

    /// Ends it: everything that passed.
    pub(crate) fn close(self) -> Vec<u8> {
        self.wire.finish()
    }
}
