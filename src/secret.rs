//! Secrets: zeroized on drop, compared in constant time, hidden in debug output.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret text: never shown by `Debug`, overwritten when its last clone is dropped, cheap to clone.
#[derive(Clone)]
pub struct Secret(Repr);

/// Where the text lies.
enum Repr {
    /// Shared by its clones.
    Shared(Arc<Shared>),
    /// Alone in a block of its own, which spares what sharing costs: a twentieth of a token.
    Unique(Zeroizing<Box<str>>),
}

struct Shared(Zeroizing<String>);

impl Drop for Shared {
    /// Emptied, it is all spare room, which is overwritten at once; a text would be overwritten byte by byte.
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
            // The next clone is cheap again.
            Repr::Unique(text) => Repr::shared(text.to_string()),
        }
    }
}

impl Secret {
    /// Takes the text over; nothing is copied.
    pub fn new(text: String) -> Secret {
        Secret(Repr::shared(text))
    }

    /// A clone to be held for long, which is as small as it can be once this one is gone.
    pub(crate) fn compact(&self) -> Secret {
        match &self.0 {
            // Who else has it may hold it for long, too; a text that is there is not made a second time.
            Repr::Shared(text) if Arc::strong_count(text) > 1 => self.clone(),
            _ => Secret(Repr::Unique(Zeroizing::new(self.expose().into()))),
        }
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Repr::Shared(text) => &text.0,
            Repr::Unique(text) => text,
        }
    }

    /// Whether two secrets are the same, in a time that tells nothing about where they differ.
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
        // A pointer and a length: there is one for every token that is held.
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
