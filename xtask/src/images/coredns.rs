//! CoreDNS, alone in its image. Must never hold more than the one static program.

use std::path::Path;

use super::{COREDNS, archive::Image};

/// The image around a program that was built.
pub(super) fn image(program: &Path) -> Image {
    let mut image = Image::new(COREDNS, &["/coredns"]);
    image.program("/coredns", program);
    image
}
