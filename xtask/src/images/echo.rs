//! The application of the conformance suite's pods. Must never hold anything that its publisher's image does not.

use std::path::Path;

use super::{ECHO, archive::Image};
use crate::{child::Outcome, tools::conformance};

/// The image around the programs that were built.
///
/// # Errors
/// The module with its certificate cannot be had.
pub(super) fn image(built: &Path) -> Outcome<Image> {
    let mut image = Image::new(ECHO, &["/bin/server"]);
    for program in conformance::echo() {
        image.program(&format!("/bin/{program}"), &built.join(program));
    }
    let certificates = conformance::certificates()?;
    for name in ["cert.crt", "cert.key"] {
        image.file(&format!("/{name}"), &certificates.join(name));
    }
    Ok(image)
}
