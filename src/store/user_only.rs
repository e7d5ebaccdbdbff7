//! File permissions: on Unix, files and folders are created for this user only (modes 0600 and
//! 0700). On other systems they inherit the permissions of their folder.

#[cfg(unix)]
mod modes {
    use std::fs::{DirBuilder, OpenOptions, metadata};
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    /// Makes `options` create a file for this user only.
    pub fn file(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// Makes `builder` create a folder for this user only.
    pub fn folder(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub fn others_may_read(path: &Path) -> bool {
        metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }
}

#[cfg(not(unix))]
mod modes {
    use std::fs::{DirBuilder, OpenOptions};
    use std::path::Path;

    pub fn file(_: &mut OpenOptions) {}

    pub fn folder(_: &mut DirBuilder) {}

    pub fn others_may_read(_: &Path) -> bool {
        false
    }
}

pub use modes::{file, folder, others_may_read};
