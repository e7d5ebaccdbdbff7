//! A map key with small-string optimization: an ID of up to 22 bytes is stored inline.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// The largest capacity that keeps `InlineId` as small as a `String`.
const INLINE_CAPACITY: usize = 22;

pub enum InlineId {
    Inline { length: u8, bytes: [u8; INLINE_CAPACITY] },
    Heap(Box<[u8]>),
}

impl InlineId {
    pub fn new(id: &str) -> InlineId {
        let id = id.as_bytes();
        match u8::try_from(id.len()) {
            Ok(length) if id.len() <= INLINE_CAPACITY => {
                let mut bytes = [0; INLINE_CAPACITY];
                bytes[..id.len()].copy_from_slice(id);
                InlineId::Inline { length, bytes }
            }
            _ => InlineId::Heap(id.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            InlineId::Inline { length, bytes } => &bytes[..usize::from(*length)],
            InlineId::Heap(bytes) => bytes,
        }
    }
}

/// Allows lookups by the bytes of an ID.
impl Borrow<[u8]> for InlineId {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl Hash for InlineId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl PartialEq for InlineId {
    fn eq(&self, other: &InlineId) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for InlineId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_any_length_is_preserved() {
        for length in [0, 1, 20, INLINE_CAPACITY, INLINE_CAPACITY + 1, 255, 256, 300] {
            let id = "i".repeat(length);
            assert_eq!(InlineId::new(&id).bytes(), id.as_bytes());
            assert_eq!(matches!(InlineId::new(&id), InlineId::Heap(_)), length > INLINE_CAPACITY);
        }
    }

    #[test]
    fn inline_id_is_as_small_as_a_string() {
        assert_eq!(size_of::<InlineId>(), size_of::<String>());
    }
}
