//! Secrets: zeroized on drop, compared in constant time, hidden in debug output.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// A secret string: hidden by `Debug`, zeroized when its last clone is dropped, cheap to clone.
#[derive(Clone)]
pub struct Secret(Text);

/// In one block of memory, which the allocator zeroizes.
#[cfg(feature = "wiping-allocator")]
type Text = Arc<str>;

#[cfg(not(feature = "wiping-allocator"))]
type Text = Arc<zeroize::Zeroizing<Box<str>>>;

#[cfg(feature = "wiping-allocator")]
fn text_of(text: String) -> Text {
    text.into()
}

#[cfg(not(feature = "wiping-allocator"))]
fn text_of(text: String) -> Text {
    use zeroize::Zeroizing;

    let text = Zeroizing::new(text);
    Arc::new(Zeroizing::new(text.as_str().into()))
}

impl Secret {
    /// A secret with this text.
    pub fn new(text: String) -> Secret {
        Secret(text_of(text))
    }

    /// A copy of a secret of which only the bytes are at hand.
    pub(crate) fn copy_of(bytes: &[u8]) -> Secret {
        // They come from another secret, so they are UTF-8.
        Secret::new(String::from_utf8(bytes.to_vec()).unwrap_or_default())
    }

    /// The string itself. The caller is responsible for keeping it secret.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Constant-time comparison: the time does not depend on where the strings differ.
    pub fn matches(&self, other: impl AsRef<[u8]>) -> bool {
        let (mine, other) = (self.expose().as_bytes(), other.as_ref());
        let mut difference = u8::from(mine.len() != other.len());
        for (a, b) in mine.iter().zip(other) {
            difference |= a ^ b;
        }
        std::hint::black_box(difference) == 0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Secret, D::Error> {
        String::deserialize(source).map(Secret::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_output_shows_nothing() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }

    #[test]
    fn comparison_detects_every_difference_in_length_and_bytes() {
        let secret = Secret::new("abc".into());
        assert!(secret.matches("abc"));
        for other in ["", "ab", "abcd", "abd", "xbc"] {
            assert!(!secret.matches(other), "{other}");
        }
    }
}
