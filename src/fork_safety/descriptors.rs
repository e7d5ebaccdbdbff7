//! The library's file descriptors. None has the number of a standard stream, and a forked child
//! closes its copies of lock files, of sockets to PostgreSQL and of the port for redirects.
//!
//! A host that has closed stdout may still write to it: its text must not reach a server or a file
//! of the library. An idle child with a copy would hold a lock, or a port, of its parent.

use std::io;
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::{gate, generation};

const CAPACITY: usize = 1024;

/// An empty slot.
const EMPTY: i32 = -1;

/// The number of stderr, the last standard stream.
const STDERR: i32 = 2;

/// Atomics instead of a lock: in a child, a lock could be held by a thread that does not exist
/// there.
static TABLE: [AtomicI32; CAPACITY] = [const { AtomicI32::new(EMPTY) }; CAPACITY];

/// A file or socket. Its number is registered on Unix, the only system with `fork`.
#[cfg(unix)]
pub trait Descriptor: AsFd + From<OwnedFd> {}
#[cfg(unix)]
impl<T: AsFd + From<OwnedFd>> Descriptor for T {}

/// A file or socket, of which nothing is registered.
#[cfg(not(unix))]
pub trait Descriptor {}
#[cfg(not(unix))]
impl<T> Descriptor for T {}

/// A file or socket that a forked child closes.
pub struct NotInherited<T> {
    value: Option<T>,
    /// `None` if the table is full: a forked child then keeps its copy open.
    slot: Option<usize>,
    generation: u32,
}

impl<T: Descriptor> NotInherited<T> {
    pub fn open(open: impl FnOnce() -> io::Result<T>) -> io::Result<NotInherited<T>> {
        // A child that is forked between opening and registration would keep its copy open.
        let _gate = gate();
        let value = above_stdio(open()?)?;
        Ok(NotInherited { slot: register(&value), value: Some(value), generation: generation() })
    }
}

impl<T> NotInherited<T> {
    /// The file or socket; an error in a child of the process that opened it.
    pub fn get(&self) -> io::Result<&T> {
        let own = self.value.as_ref().filter(|_| self.generation == generation());
        own.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<T> Drop for NotInherited<T> {
    fn drop(&mut self) {
        if self.generation != generation() {
            // Already closed; the number may be in use again.
            std::mem::forget(self.value.take());
            return;
        }
        let _gate = gate();
        if let Some(slot) = self.slot {
            TABLE[slot].store(EMPTY, Ordering::Relaxed);
        }
        self.value = None;
    }
}

/// Moves a descriptor of a standard stream's number to a higher one.
#[cfg(unix)]
pub fn above_stdio<T: Descriptor>(value: T) -> io::Result<T> {
    if value.as_fd().as_raw_fd() > STDERR {
        return Ok(value);
    }
    Ok(T::from(rustix::io::fcntl_dupfd_cloexec(&value, STDERR + 1)?))
}

/// Other systems have no such numbers.
#[cfg(not(unix))]
pub fn above_stdio<T: Descriptor>(value: T) -> io::Result<T> {
    Ok(value)
}

/// Opens a file for reading, under a higher number than a standard stream's. Unlike
/// [`above_stdio`] it closes no copy, which would drop the process's POSIX locks on the file.
/// For the locks of `store/sqlite/region_lock.rs`, which exist on 64-bit Linux only.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn open_above_stdio(path: &std::path::Path) -> io::Result<std::fs::File> {
    use std::os::unix::net::UnixDatagram;
    // A socket needs no permission on a file. If none can be opened, the file still can.
    let mut occupied = Vec::new();
    while let Ok(socket) = UnixDatagram::unbound()
        && socket.as_raw_fd() <= STDERR
    {
        occupied.push(socket);
    }
    std::fs::File::open(path)
}

/// For a forked child, which closes it: only Unix has `fork`.
#[cfg(unix)]
fn register(value: &impl Descriptor) -> Option<usize> {
    let descriptor = value.as_fd().as_raw_fd();
    TABLE.iter().position(|slot| {
        slot.compare_exchange(EMPTY, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    })
}

/// Only a forked child closes registered descriptors.
#[cfg(not(unix))]
fn register(_: &impl Descriptor) -> Option<usize> {
    None
}

/// Empties the table and calls `close` with each descriptor.
pub(super) fn drain(close: impl Fn(i32)) {
    for slot in &TABLE {
        let descriptor = slot.swap(EMPTY, Ordering::Relaxed);
        if descriptor != EMPTY {
            close(descriptor);
        }
    }
}
