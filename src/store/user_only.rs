//! File permissions: files and folders for this user only, by their mode on Unix. Elsewhere a file
//! has the rights that its folder hands down, and nothing here changes them.

#[cfg(unix)]
mod modes {
    use std::fs::{DirBuilder, OpenOptions, metadata};
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    /// A file that is made by these options.
    pub fn file(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// A folder that is made so.
    pub fn folder(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    /// Whether somebody else's programs may look into a file.
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
