//! Secrets: zeroized on drop, compared in constant time, hidden in debug output.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret string: hidden by `Debug`, zeroized when its last clone is dropped, cheap to clone.
#[derive(Clone)]
pub struct Secret(Repr);

/// How the string is stored.
enum Repr {
    /// Shared with its clones.
    Shared(Arc<Shared>),
    /// Owned by one secret, without the reference counts and the spare capacity: saves about a
    /// twentieth of the memory of a token.
    Unique(Zeroizing<Box<str>>),
}

struct Shared(Zeroizing<String>);

impl Drop for Shared {
    /// Clears the string first: zeroize then overwrites it in one piece as spare capacity instead
    /// of byte by byte.
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Repr {
    fn shared(text: String) -> Repr {
        Repr::Shared(Arc::new(Shared(Zeroizing::new(text))))
    }
}

impl Clone for Repr {
    fn clone(&self) -> Repr {
        match self {
            Repr::Shared(text) => Repr::Shared(Arc::clone(text)),
            // Further clones of this copy are cheap.
            Repr::Unique(text) => Repr::shared(text.to_string()),
        }
    }
}

impl Secret {
    /// Takes the string without a copy.
    pub fn new(text: String) -> Secret {
        Secret(Repr::shared(text))
    }

    /// A clone for long-term storage that uses as little memory as possible once `self` is dropped.
    pub(crate) fn compact(&self) -> Secret {
        match &self.0 {
            // Other owners may keep it as well, so a copy could only add memory.
            Repr::Shared(text) if Arc::strong_count(text) > 1 => self.clone(),
            _ => Secret(Repr::Unique(Zeroizing::new(self.expose().into()))),
        }
    }

    /// The string itself. The caller is responsible for keeping it secret.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Repr::Shared(text) => &text.0,
            Repr::Unique(text) => text,
        }
    }

    /// Constant-time comparison: the time does not depend on where the strings differ.
    pub fn matches(&self, other: &str) -> bool {
        let (mine, other) = (self.expose().as_bytes(), other.as_bytes());
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
    use super::{Repr, Secret};

    #[test]
    fn debug_output_shows_nothing() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }

    #[test]
    fn secret_has_no_second_copy_unless_it_is_shared() {
        let secret = Secret::new("token".into());
        let alone = secret.compact();
        assert!(matches!(alone.0, Repr::Unique(_)) && matches!(alone.compact().0, Repr::Unique(_)));
        let kept = secret.clone();
        for shared in [secret.compact(), alone.clone()] {
            assert!(matches!(shared.0, Repr::Shared(_)));
            assert!(shared.matches("token"));
        }
        assert!(kept.matches(alone.expose()));
        // A pointer and a length: the cache holds one for each token.
        assert_eq!(size_of::<Secret>(), 2 * size_of::<usize>());
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
