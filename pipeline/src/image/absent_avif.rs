//! AVIF in a build without the feature `avif`: known by its bytes, and refused by name.

use super::{DecodeOptions, Format, Header, Image, Orientation};
use crate::error::SampleError;

/// Refuses the file.
pub(super) fn header(_: &[u8]) -> Result<((u32, u32), Orientation), SampleError> {
    Err(not_built())
}

/// Refuses the file.
pub(super) fn decode(_: &[u8], _: &Header, _: &DecodeOptions) -> Result<Image, SampleError> {
    Err(not_built())
}

fn not_built() -> SampleError {
    SampleError::ImageNotBuilt { format: Format::Avif.name(), feature: "avif" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_avif_without_the_feature_is_refused_by_its_name() {
        let error = header(b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "AVIF: this build has no feature `avif`; build with `--features avif`"
        );
        assert_eq!((error.stage(), error.reason()), ("image", "image-unsupported"));
        let format = Format::Avif;
        let header = Header { format, stored_px: (1, 1), orientation: Orientation::UPRIGHT };
        let decoded = decode(b"", &header, &DecodeOptions::default());
        assert_eq!(decoded.unwrap_err().reason(), error.reason());
    }
}
