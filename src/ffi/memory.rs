//! A zeroizing allocator: wipes memory before freeing it. Also used for returned strings.
//!
//! A token passes through JSON values, forms, headers, and the buffers of connections and of TLS.
//! Most belong to crates that do not zeroize, so the allocator does.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with wiping. Does not override `realloc`: the default allocates, copies
/// and frees, so the old block is wiped, while the system's may move a block without wiping it.
pub struct Wiping;

#[cfg(feature = "wiping-allocator")]
#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

// SAFETY: forwards to the system's allocator. A block is wiped between its last use and its
// release, when no other code may access it.
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

/// Overwrites memory with zeros; the compiler must not optimize this away.
///
/// # Safety
/// `bytes` is valid for `length` writes.
unsafe fn wipe(bytes: *mut u8, length: usize) {
    // The C library's function is faster than zeroize. macOS and Windows do not have it.
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd"))]
    // SAFETY: by the contract.
    unsafe {
        libc::explicit_bzero(bytes.cast(), length);
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd")))]
    // SAFETY: by the contract; `MaybeUninit`, because the bytes may be uninitialized.
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
            assert!(
                bytes[..length].iter().all(|byte| *byte == 0) && bytes[length] == 0xaa,
                "{length}"
            );
        }
    }
}
