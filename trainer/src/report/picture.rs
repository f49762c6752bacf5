//! Pixels as text inside a page.
//!
//! In: `u8` pixels, height × width × RGB. Out: a `data:` address with a JPEG in base64.

use catlip_pipeline::image::Image;
use catlip_pipeline::image::jpeg::{self, Chroma};

/// Good enough for a thumbnail: about 3 KB at 96 px.
const QUALITY: u8 = 85;

/// The address of a square image; `None` if it cannot be encoded.
pub fn data_url(side_px: usize, pixels: &[u8]) -> Option<String> {
    let side = u32::try_from(side_px).ok()?;
    let image = Image { width_px: side, height_px: side, pixels: pixels.to_vec() };
    let bytes = jpeg::encode(&image, QUALITY, Chroma::Yuv444).ok()?;
    Some(format!("data:image/jpeg;base64,{}", base64(&bytes)))
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at > three.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
