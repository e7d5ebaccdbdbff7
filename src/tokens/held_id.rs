//! An id as the map of live tokens holds it: the vendor's have 20 characters, which fit into the map itself.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// So many bytes that an id is no larger than a text that lies elsewhere, with its length and its capacity.
const SHORT: usize = 22;

pub enum HeldId {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl HeldId {
    pub fn new(id: &str) -> HeldId {
        let id = id.as_bytes();
        match u8::try_from(id.len()) {
            Ok(length) if id.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..id.len()].copy_from_slice(id);
                HeldId::Short { length, bytes }
            }
            _ => HeldId::Long(id.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            HeldId::Short { length, bytes } => &bytes[..usize::from(*length)],
            HeldId::Long(bytes) => bytes,
        }
    }
}

/// Looked up by the bytes of an id.
impl Borrow<[u8]> for HeldId {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl Hash for HeldId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl PartialEq for HeldId {
    fn eq(&self, other: &HeldId) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for HeldId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_length_is_what_it_was() {
        for length in [0, 1, 20, SHORT, SHORT + 1, 255, 256, 300] {
            let id = "i".repeat(length);
            assert_eq!(HeldId::new(&id).bytes(), id.as_bytes());
            assert_eq!(matches!(HeldId::new(&id), HeldId::Long(_)), length > SHORT);
        }
    }

    #[test]
    fn it_is_as_small_as_a_text() {
        assert_eq!(size_of::<HeldId>(), size_of::<String>());
    }
}
