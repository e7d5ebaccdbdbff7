//! The only type that may hold a token or the client's secret.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret text: never shown by `Debug`, overwritten when its last clone is dropped, cheap to clone.
#[derive(Clone)]
pub struct Secret(Text);

/// Where the text lies.
enum Text {
    /// Shared by its clones.
    Shared(Arc<Shared>),
    /// Alone in a block of its own, which spares what sharing costs: a twentieth of a token.
    Alone(Zeroizing<Box<str>>),
}

struct Shared(Zeroizing<String>);

impl Drop for Shared {
    /// Emptied, it is all spare room, which is overwritten at once; a text would be overwritten byte by byte.
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Text {
    fn shared(text: String) -> Text {
        Text::Shared(Arc::new(Shared(Zeroizing::new(text))))
    }
}

impl Clone for Text {
    fn clone(&self) -> Text {
        match self {
            Text::Shared(text) => Text::Shared(Arc::clone(text)),
            // The next clone is cheap again.
            Text::Alone(text) => Text::shared(text.to_string()),
        }
    }
}

impl Secret {
    /// Takes the text over; nothing is copied.
    pub fn new(text: String) -> Secret {
        Secret(Text::shared(text))
    }

    /// A clone to be held for long, which is as small as it can be once this one is gone.
    pub(crate) fn to_hold(&self) -> Secret {
        match &self.0 {
            // Who else has it may hold it for long, too; a text that is there is not made a second time.
            Text::Shared(text) if Arc::strong_count(text) > 1 => self.clone(),
            _ => Secret(Text::Alone(Zeroizing::new(self.expose().into()))),
        }
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Text::Shared(text) => &text.0,
            Text::Alone(text) => text,
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
    use super::{Secret, Text};

    #[test]
    fn debug_shows_nothing() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }

    #[test]
    fn what_is_held_is_alone_unless_somebody_has_it_already() {
        let secret = Secret::new("token".into());
        let alone = secret.to_hold();
        assert!(matches!(alone.0, Text::Alone(_)) && matches!(alone.to_hold().0, Text::Alone(_)));
        let kept = secret.clone();
        for shared in [secret.to_hold(), alone.clone()] {
            assert!(matches!(shared.0, Text::Shared(_)));
            assert!(shared.matches("token"));
        }
        assert!(kept.matches(alone.expose()));
        // A pointer and a length: there is one for every token that is held.
        assert_eq!(size_of::<Secret>(), 2 * size_of::<usize>());
    }

    #[test]
    fn comparison_sees_length_and_every_byte() {
        let secret = Secret::new("abc".into());
        assert!(secret.matches("abc"));
        for other in ["", "ab", "abcd", "abd", "xbc"] {
            assert!(!secret.matches(other), "{other}");
        }
    }
}
