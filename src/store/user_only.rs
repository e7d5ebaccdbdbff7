//! File permissions: on Unix, files and folders are created for one user only (modes 0600 and
//! 0700): this user, or, if root creates them, the owner of the folder or database, so that a tool
//! run as root does not lock out the app. On other systems they inherit the permissions of their
//! folder.

#[cfg(unix)]
mod modes {
    use std::ffi::OsStr;
    use std::fs::{DirBuilder, File, OpenOptions, metadata};
    use std::io::{Error, ErrorKind, Result};
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    use std::path::Path;

    use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};

    /// Creates a file, which must not exist, for writing. Root's file is given to the owner of its
    /// folder.
    pub fn create_file(path: &Path) -> Result<File> {
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        let made = file.metadata()?;
        if made.uid() == 0
            && let Some((folder, name)) = opened_folder(path)
            // A symbolic link may have replaced the folder meanwhile.
            && let Ok(there) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev as _, there.st_ino as _) == (made.dev(), made.ino())
        {
            let folder = folder.metadata()?;
            give(&file, folder.uid(), folder.gid())?;
        }
        Ok(file)
    }

    /// Creates a folder, unless it exists. Root's folder is given to the owner of the file
    /// `database` next to it.
    pub fn create_folder(path: &Path, database: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return DirBuilder::new().recursive(true).mode(0o700).create(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {
                return Ok(());
            }
            made => made?,
        }
        let names = opened_folder(path).zip(database.file_name());
        let Some(((parent, name), database)) = names else { return Ok(()) };
        let Ok(owner) = statat(&parent, database, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = File::from(openat(&parent, name, flags, Mode::empty())?);
        // Only a new, empty folder: another may have replaced it.
        let is_dot = |name: &[u8]| matches!(name, b"." | b"..");
        let mut entries = Dir::read_from(&folder).map_err(Error::from)?;
        if entries.all(|entry| entry.is_ok_and(|entry| is_dot(entry.file_name().to_bytes()))) {
            give(&folder, owner.st_uid, owner.st_gid)?;
        }
        Ok(())
    }

    /// The folder of a path, and the name in it.
    fn opened_folder(path: &Path) -> Option<(File, &OsStr)> {
        Some((File::open(path.parent()?).ok()?, path.file_name()?))
    }

    /// Gives root's new file to another user.
    fn give(file: &File, user: u32, group: u32) -> Result<()> {
        if user != 0 && file.metadata()?.uid() == 0 {
            fchown(file, Some(user), Some(group))?;
        }
        Ok(())
    }

    pub fn others_may_read(path: &Path) -> bool {
        metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }
}

#[cfg(not(unix))]
mod modes {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::path::Path;

    pub fn create_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().create_new(true).write(true).open(path)
    }

    pub fn create_folder(path: &Path, _: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).create(path)
    }

    pub fn others_may_read(_: &Path) -> bool {
        false
    }
}

pub use modes::{create_file, create_folder, others_may_read};
