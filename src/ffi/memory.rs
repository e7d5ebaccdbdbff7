//! Zeroizing memory: the allocator that wipes what it frees, and the memory of returned strings.
//!
//! A token passes through many hands on its way: JSON values, forms, headers, the buffers of connections and of TLS.
//! Most belong to crates that know nothing of secrets, so the one place that sees all of it go does the wiping.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, wiping what is freed. Growing is the trait's own: a new block, a copy, and the old block
/// freed; the system's would leave a piece behind.
pub struct Wiping;

#[cfg(feature = "wiping-allocator")]
#[global_allocator]
static EVERYTHING: Wiping = Wiping;

// SAFETY: all is the system's allocator's doing, by its own contract; between the last use of a block and its return,
// nobody else may look at it.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the contract, the block has this size and is not used any more.
        unsafe {
            wipe(block, layout.size());
            System.dealloc(block, layout);
        }
    }
}

/// Overwrites memory in a way that the compiler must not leave out.
///
/// # Safety
/// `bytes` is valid for `length` writes.
unsafe fn wipe(bytes: *mut u8, length: usize) {
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd"))]
    // SAFETY: by the contract.
    unsafe {
        libc::explicit_bzero(bytes.cast(), length);
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd")))]
    // SAFETY: by the contract; what the bytes are does not matter, and need not be known.
    zeroize::Zeroize::zeroize(unsafe {
        std::slice::from_raw_parts_mut(bytes.cast::<std::mem::MaybeUninit<u8>>(), length)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_given_bytes_are_wiped() {
        for length in [0, 1, 7, 8, 64, 900] {
            let mut bytes = vec![0xaa_u8; length + 1];
            // SAFETY: the vector is longer than that.
            unsafe { wipe(bytes.as_mut_ptr(), length) };
            assert!(bytes[..length].iter().all(|byte| *byte == 0) && bytes[length] == 0xaa, "{length}");
        }
    }
}
