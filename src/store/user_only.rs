//! File permissions: on Unix, files and folders are created for one user only (modes 0600 and
//! 0700): this user, or, if root creates them, the owner of the folder or database, so that a tool
//! run as root does not lock out the app. On other systems they inherit the permissions of their
//! folder.

#[cfg(unix)]
mod modes {
    use std::fs::{DirBuilder, File, OpenOptions, metadata};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    use std::path::Path;

    use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, statat};
    use rustix::io::Errno;

    /// Creates a file, which must not exist, for writing. Root's file is given to the owner of its
    /// folder.
    pub fn create_file(path: &Path) -> io::Result<File> {
        let Some((folder, name)) = opened_folder(path) else {
            let mut options = OpenOptions::new();
            return options.create_new(true).write(true).mode(0o600).open(path);
        };
        // In the folder that was opened: a symbolic link that replaces it meanwhile could lead to
        // a folder of root.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?);
        let folder = folder.metadata()?;
        give(&file, folder.uid(), folder.gid())?;
        Ok(file)
    }

    /// Creates a folder, unless it exists. Root's folder is given to the owner of the
    /// file `database` in the same folder.
    pub fn create_folder(path: &Path, database: &Path) -> io::Result<()> {
        let names = opened_folder(path).zip(database.file_name());
        let Some(((parent, name), database)) = names else {
            return DirBuilder::new().recursive(true).mode(0o700).create(path);
        };
        match mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if path.is_dir() => return Ok(()),
            made => made?,
        }
        let Ok(owner) = statat(&parent, database, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = File::from(openat(&parent, name, flags, Mode::empty())?);
        // Only the new, empty folder: another one may have replaced it.
        let is_dot = |name: &[u8]| matches!(name, b"." | b"..");
        if Dir::read_from(&folder)?
            .all(|entry| entry.is_ok_and(|entry| is_dot(entry.file_name().to_bytes())))
        {
            give(&folder, owner.st_uid, owner.st_gid)?;
        }
        Ok(())
    }

    /// The folder of a path, and the name in it.
    fn opened_folder(path: &Path) -> Option<(File, &std::ffi::OsStr)> {
        Some((File::open(path.parent()?).ok()?, path.file_name()?))
    }

    /// Gives root's new file to another user.
    fn give(file: &File, user: u32, group: u32) -> io::Result<()> {
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
