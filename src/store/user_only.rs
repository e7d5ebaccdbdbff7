//! File permissions: on Unix, files and folders are created for one user only (modes 0600 and
//! 0700): this user, or, if root creates them, the owner of the folder or database, so that a tool
//! run as root does not lock out the app. On Windows, an access control list names the user, the
//! system, the administrators, and the accounts that the folder's list names.

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

#[cfg(windows)]
mod modes {
    use std::fs::{DirBuilder, File};
    use std::io::{ErrorKind, Result};
    use std::path::Path;

    use crate::store::access_list::{self, Inherit};
    use crate::windows::{self, user};

    /// Creates a file, which must not exist, for writing. While it is open, no process can remove
    /// or rename it.
    pub fn create_file(path: &Path) -> Result<File> {
        windows::create_file(path, &list_like(path.parent(), Inherit::No)?)
    }

    /// Creates a folder, unless it exists, for the accounts of the file `database` next to it.
    pub fn create_folder(path: &Path, database: &Path) -> Result<()> {
        let list = list_like(Some(database), Inherit::Yes)?;
        match windows::create_folder(path, &list) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    DirBuilder::new().recursive(true).create(parent)?;
                }
                windows::create_folder(path, &list)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            created => created,
        }
    }

    /// The list of a new file or folder: of this user, and of the accounts that the list of `like`
    /// names.
    fn list_like(like: Option<&Path>, inherit: Inherit) -> Result<String> {
        let like = like.and_then(|like| windows::security(like).ok());
        Ok(access_list::for_accounts(&user()?, like.as_deref().unwrap_or_default(), inherit))
    }

    /// Creates the file `path` with the list of `database`, unless it exists; if it exists and more
    /// accounts may read it, replaces its list.
    pub fn protect_side_file(path: &Path, database: &Path) -> Result<()> {
        let list = windows::security(database)?;
        if access_list::others_may_read(&list) {
            return Ok(());
        }
        match windows::create_file(path, &list) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            Err(_) if others_may_read(path) => windows::set_security(path, &list),
            _ => Ok(()),
        }
    }

    pub fn others_may_read(path: &Path) -> bool {
        windows::security(path).is_ok_and(|list| access_list::others_may_read(&list))
    }
}

// On Unix, SQLite gives the side files the mode of the database.
#[cfg(windows)]
pub use modes::protect_side_file;
pub use modes::{create_file, create_folder, others_may_read};

#[cfg(all(test, windows, feature = "sqlite"))]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use super::others_may_read;
    use crate::deadline::Deadline;
    use crate::store::{Seal, SqliteStore, Store};
    use crate::windows::{self, security, set_security};

    /// Full access for the user and for everyone.
    fn share(path: &Path) {
        let user = windows::user().unwrap();
        set_security(path, &format!("D:(A;OICI;FA;;;{user})(A;OICI;FA;;;WD)")).unwrap();
    }

    fn walk(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(walk(&path));
            }
            found.push(path);
        }
        found
    }

    #[test]
    fn files_of_a_store_in_a_shared_folder_are_not_shared() {
        let folder = tempfile::tempdir().unwrap();
        share(folder.path());
        let path = folder.path().join("tokens.db");
        let lock = |store: &SqliteStore| {
            let deadline = Deadline::after(Duration::from_secs(5), &Arc::default());
            store.lock("company", &deadline).unwrap()
        };
        let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        let held = lock(&store);
        let check = |when: &str| {
            let found = walk(folder.path());
            for entry in &found {
                let list = security(entry).unwrap();
                assert!(!others_may_read(entry), "{when}: {}: {list}", entry.display());
            }
            let names: Vec<_> = found.iter().filter_map(|entry| entry.file_name()).collect();
            for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm", "tokens.db.locks"] {
                assert!(names.iter().any(|found| *found == name), "{name}: {names:?}");
            }
            assert_eq!(found.len(), 6, "and the files of the two locks: {names:?}");
        };
        check("created");
        // The last connection removes the side files, and the next one creates them.
        drop((held, store));
        let store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        check("opened again");
        // Created by another program, meanwhile.
        share(&folder.path().join("tokens.db-wal"));
        assert!(others_may_read(&folder.path().join("tokens.db-wal")));
        let second = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        check("shared meanwhile");
        drop((store, second));
        // The list of an existing database is its owner's decision.
        share(&path);
        let _store = SqliteStore::open(&path, Seal::none("app-1")).unwrap();
        assert!(others_may_read(&path));
    }
}
