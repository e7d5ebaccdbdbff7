//! DER (ITU-T X.690): one tag-length-value element at a time.

/// The content of the first element, which must have the tag `tag`, and the bytes after the
/// element.
pub fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = input.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Long form: the low bits give the number of length bytes that follow.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_with_short_or_long_length_is_split_from_the_rest() {
        assert_eq!(element(2, &[2, 1, 7, 9]), Some((&[7][..], &[9][..])));
        assert_eq!(element(5, &[5, 0]), Some((&[][..], &[][..])));
        for form in [&[0x81, 200][..], &[0x82, 0, 200], &[0x83, 0, 0, 200], &[0x84, 0, 0, 0, 200]] {
            let input = [&[0x30], form, &[1; 200], &[9]].concat();
            assert_eq!(element(0x30, &input), Some((&[1; 200][..], &[9][..])), "{form:?}");
        }
    }

    #[test]
    fn element_that_is_truncated_or_has_another_tag_or_an_invalid_length_is_refused() {
        for input in [
            &[][..],
            &[2],
            &[3, 1, 7],
            &[2, 2, 7],
            &[2, 0x81],
            &[2, 0x80, 0, 0],
            &[2, 0x85, 0, 0, 0, 0, 1, 7],
        ] {
            assert_eq!(element(2, input), None, "{input:?}");
        }
        assert_eq!(element(2, &[2, 0x84, 0xff, 0xff, 0xff, 0xff, 7]), None);
    }
}
