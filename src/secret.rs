//! Secrets: zeroized on drop, compared in constant time, hidden in debug output.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// A secret string: hidden by `Debug`, zeroized when its last clone is dropped, cheap to clone.
#[derive(Clone)]
pub struct Secret {
    block: Block,
    /// The length of the label, with which the block begins.
    label: u8,
}

/// In one block of memory, which the allocator zeroizes.
#[cfg(feature = "wiping-allocator")]
type Block = Arc<str>;

#[cfg(not(feature = "wiping-allocator"))]
type Block = Arc<zeroize::Zeroizing<Box<str>>>;

#[cfg(feature = "wiping-allocator")]
fn block_of(text: String) -> Block {
    text.into()
}

#[cfg(not(feature = "wiping-allocator"))]
fn block_of(text: String) -> Block {
    use zeroize::Zeroizing;

    let text = Zeroizing::new(text);
    Arc::new(Zeroizing::new(text.as_str().into()))
}

impl Secret {
    /// A secret with this text.
    pub fn new(text: String) -> Secret {
        Secret { block: block_of(text), label: 0 }
    }

    /// The same secret with a label in the same block of memory. A lookup that compares the label
    /// and then reads the secret waits for the memory only once. A longer label than 255 bytes is
    /// not added.
    #[must_use]
    pub(crate) fn labelled(self, label: &str) -> Secret {
        match u8::try_from(label.len()) {
            Ok(length) if self.label() != label => {
                Secret { block: block_of([label, self.expose()].concat()), label: length }
            }
            _ => self,
        }
    }

    /// The label, which may be empty.
    pub(crate) fn label(&self) -> &str {
        &self.block[..self.label.into()]
    }

    /// The string itself. The caller is responsible for keeping it secret.
    pub fn expose(&self) -> &str {
        &self.block[self.label.into()..]
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
    fn label_is_no_part_of_the_secret() {
        let plain = Secret::new("hunter2".into());
        let labelled = plain.clone().labelled("lócation");
        assert_eq!((labelled.label(), labelled.expose()), ("lócation", "hunter2"));
        assert!(labelled.matches("hunter2") && plain.label().is_empty());
        let other = labelled.clone().labelled("company");
        assert_eq!((other.label(), other.expose()), ("company", "hunter2"));
        assert_eq!(plain.labelled(&"i".repeat(256)).label(), "");
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
