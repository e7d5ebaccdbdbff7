//! C strings across the boundary: parsing of arguments, and allocation of results.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::ffi::{CStr, c_char};
use std::ptr;

use super::memory::Wiping;
use crate::error::{Error, Result};

/// Where the length of a handed-out text stands: right before its first byte. So its owner may change the
/// bytes, a NUL in the middle included, and the whole of it is still wiped and freed.
const HEAD: usize = size_of::<usize>();

/// Reads a caller's text.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated text that stays as it is while the result is in use.
pub unsafe fn read<'a>(parameter: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::invalid_argument(parameter, format!("{parameter} is NULL")));
    }
    // SAFETY: not NULL, and NUL-terminated by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    if text.to_bytes().is_ascii() {
        // SAFETY: ASCII is UTF-8. Ids are ASCII, and seeing that takes a quarter of the time.
        return Ok(unsafe { str::from_utf8_unchecked(text.to_bytes()) });
    }
    text.to_str().map_err(|_| Error::invalid_argument(parameter, format!("{parameter} is not valid UTF-8")))
}

/// Copies a text into memory that the caller owns until `ghl_string_free`.
pub fn allocate(text: &str) -> *mut c_char {
    let layout = layout(text.len());
    // SAFETY: the layout is not empty (it has at least the head), and every write below stays inside it.
    unsafe {
        let block = Wiping.alloc(layout);
        if block.is_null() {
            handle_alloc_error(layout);
        }
        block.cast::<usize>().write(text.len());
        let bytes = block.add(HEAD);
        ptr::copy_nonoverlapping(text.as_ptr(), bytes, text.len());
        bytes.add(text.len()).write(0);
        bytes.cast()
    }
}

/// Wipes and frees a text; NULL is accepted.
///
/// # Safety
/// `text` is NULL or came from [`allocate`], and was not freed before.
pub unsafe fn release(text: *mut c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: by the contract, `allocate` wrote the head and made the block with this very layout.
    unsafe {
        let block = text.cast::<u8>().sub(HEAD);
        let length = block.cast::<usize>().read();
        Wiping.dealloc(block, layout(length));
    }
}

fn layout(length: usize) -> Layout {
    // A text of half the address space cannot exist beside itself, so the sizes never overflow.
    match Layout::from_size_align(HEAD + length + 1, align_of::<usize>()) {
        Ok(layout) => layout,
        Err(_) => handle_alloc_error(Layout::new::<usize>()),
    }
}
