//! Resource exhaustion: I/O errors for lack of file descriptors, threads, disk space or memory.
//! They pass when the resource is free again, unlike a missing file or permission.

use std::fs::File;
use std::io::{self, ErrorKind};

use super::{Error, Status};

/// The help text for a process or system without free file descriptors.
pub const DESCRIPTORS: &str = "close files and sockets, or raise the limit of open files \
                               (ulimit -n, or LimitNOFILE of the service), then try again";

/// The help text for a full disk or an exhausted quota.
pub const DISK: &str = "free disk space; new tokens are kept in memory until then";

/// The help text for lack of memory.
pub const MEMORY: &str = "free memory, or raise the memory limit of the process, then try again";

/// The help text for an operation that failed for lack of a resource; `None` for other errors.
pub fn help(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return Some(DISK),
        ErrorKind::OutOfMemory => return Some(MEMORY),
        _ => {}
    }
    is_no_descriptor(error).then_some(DESCRIPTORS)
}

/// The help text if no file can be opened for lack of a file descriptor. For code that reports a
/// failure to open a file without its reason.
pub fn no_descriptor() -> Option<&'static str> {
    let null = if cfg!(windows) { "NUL" } else { "/dev/null" };
    File::open(null).err().filter(is_no_descriptor).map(|_| DESCRIPTORS)
}

/// Whether the process or the system has no free file descriptor.
pub fn is_no_descriptor(error: &io::Error) -> bool {
    // Systems have their own numbers for it, and std has no kind.
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
    }
    #[cfg(windows)]
    {
        // ERROR_TOO_MANY_OPEN_FILES and WSAEMFILE.
        matches!(error.raw_os_error(), Some(4 | 10_024))
    }
}

/// Whether a file operation fails again until the file or the configuration changes.
fn is_permanent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::Unsupported
    )
}

impl Error {
    /// An error of a file operation. `help` is the advice unless a resource is exhausted.
    pub(crate) fn of_file(
        status: Status,
        message: impl Into<String>,
        cause: &io::Error,
        help: &str,
    ) -> Error {
        let error = Error::new(status, message);
        match self::help(cause) {
            Some(help) => error.with_help(help).with_retryable(true),
            None => {
                let retryable = status.retryable() && !is_permanent(cause.kind());
                error.with_help(help).with_retryable(retryable)
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn exhausted_resources_are_retryable_and_name_the_resource() {
        for (code, resource) in [
            (Errno::MFILE, "open files"),
            (Errno::NFILE, "open files"),
            (Errno::NOSPC, "disk space"),
            (Errno::DQUOT, "disk space"),
            (Errno::NOMEM, "memory"),
        ] {
            let cause = io::Error::from(code);
            // Even with a status that is not retryable by default.
            for status in [Status::Store, Status::Config] {
                let error = Error::of_file(status, "no", &cause, "other");
                assert!(error.help().unwrap().contains(resource), "{cause}: {error}");
                assert!(error.retryable(), "{cause}");
            }
        }
    }

    #[test]
    fn wrong_paths_and_permissions_are_not_retryable() {
        for code in [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::ISDIR, Errno::ROFS] {
            let cause = io::Error::from(code);
            let error = Error::of_file(Status::Store, "no", &cause, "other");
            assert_eq!((error.help(), error.retryable()), (Some("other"), false), "{cause}");
        }
        let broken = io::Error::from(Errno::IO);
        assert!(Error::of_file(Status::Store, "no", &broken, "other").retryable());
    }
}
