//! Thread cancellation (`pthread_cancel`): a request for it waits until the library's call returns.
//!
//! System calls such as `read` and `poll` are cancellation points. A thread that ended there would
//! leave locks held, and lose the token of a refresh that it has sent.

#[cfg(all(unix, not(target_os = "android")))]
mod system {
    use std::ffi::c_int;

    /// `PTHREAD_CANCEL_DISABLE` of the system.
    const DISABLE: c_int = if cfg!(target_vendor = "apple") { 0 } else { 1 };

    unsafe extern "C" {
        // Missing in the crate `libc`.
        fn pthread_setcancelstate(state: c_int, former: *mut c_int) -> c_int;
    }

    /// Sets the state of this thread and returns the former one.
    fn set(state: c_int) -> c_int {
        let mut former = state;
        // SAFETY: the pointer is valid. An unknown state changes nothing.
        unsafe { pthread_setcancelstate(state, &mut former) };
        former
    }

    /// Delays the cancellation of this thread until it is dropped. May be nested.
    pub struct Delayed(c_int);

    impl Delayed {
        pub fn new() -> Delayed {
            Delayed(set(DISABLE))
        }
    }

    impl Drop for Delayed {
        fn drop(&mut self) {
            set(self.0);
        }
    }
}

#[cfg(not(all(unix, not(target_os = "android"))))]
mod system {
    /// This system has no thread cancellation.
    pub struct Delayed;

    impl Delayed {
        pub fn new() -> Delayed {
            Delayed
        }
    }
}

pub use system::Delayed;
