//! Access control lists of Windows, in SDDL: which accounts may read the files of a store.
//!
//! Groups to which any user belongs get no access. Accounts and groups that an administrator named
//! in the list of the folder keep theirs: a service often runs as another user than the tool that
//! creates its files.

/// Whether files in a new folder inherit its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherit {
    Yes,
    No,
}

/// Groups and users that stand for any user: Everyone, authenticated users, users, guests,
/// anonymous, and those by kind of logon.
const ANYONE: [&str; 13] =
    ["WD", "AU", "BU", "BG", "LG", "AN", "IU", "NU", "SU", "RU", "AC", "DU", "DG"];

/// The beginnings of SIDs that stand for any user: batch and console logons, members of this
/// organisation, and apps of the store.
const ANYONE_SIDS: [&str; 5] = ["S-1-5-3", "S-1-2-", "S-1-5-15", "S-1-15-2", "S-1-5-113"];

/// The list of a new file or folder: full access for `user`, the system and the administrators, and
/// the access that the list `like` of its folder or of the database gives to other accounts.
pub fn for_accounts(user: &str, like: &str, inherit: Inherit) -> String {
    let flags = if inherit == Inherit::Yes { "OICI" } else { "" };
    let mut list = String::from("D:P");
    for account in [user, "SY", "BA"] {
        list.push_str(&format!("(A;{flags};FA;;;{account})"));
    }
    for entry in entries(like).filter(|entry| entry.is_allowed() && !entry.is_anyone()) {
        // `like` may have another owner and creator than a new file.
        if ![user, "SY", "BA", "CO", "CG", "OW"].contains(&entry.account) {
            list.push_str(&format!("(A;{flags};{};;;{})", entry.rights, entry.account));
        }
    }
    list
}

/// Whether any user of the machine may read a file with this list.
pub fn others_may_read(list: &str) -> bool {
    // Without a list, everyone has full access.
    let Some((_, entries_and_flags)) = list.split_once("D:") else { return true };
    entries_and_flags.starts_with("NO_ACCESS_CONTROL")
        || entries(list).any(|entry| {
            entry.is_allowed() && entry.is_anyone() && entry.is_effective() && entry.may_read()
        })
}

/// An entry of a list: `(kind;flags;rights;object;inherited object;account)`.
struct Entry<'a> {
    kind: &'a str,
    flags: &'a str,
    rights: &'a str,
    account: &'a str,
}

fn entries(list: &str) -> impl Iterator<Item = Entry<'_>> {
    list.split('(').skip(1).filter_map(|entry| {
        let mut fields = entry.split(')').next()?.split(';');
        let (kind, flags, rights) = (fields.next()?, fields.next()?, fields.next()?);
        let account = fields.nth(2)?;
        Some(Entry { kind, flags, rights, account })
    })
}

impl Entry<'_> {
    fn is_allowed(&self) -> bool {
        self.kind == "A"
    }

    fn is_anyone(&self) -> bool {
        ANYONE.contains(&self.account)
            || ANYONE_SIDS.iter().any(|sid| {
                self.account.strip_prefix(sid).is_some_and(|rest| {
                    rest.is_empty() || sid.ends_with('-') || rest.starts_with('-')
                })
            })
            // The domain's groups of all users, guests and computers.
            || self.account.starts_with("S-1-5-21-")
                && ["-513", "-514", "-515"].iter().any(|end| self.account.ends_with(end))
    }

    /// Not only for what is created in the folder.
    fn is_effective(&self) -> bool {
        !codes(self.flags).any(|flag| flag == "IO")
    }

    fn may_read(&self) -> bool {
        if let Some(mask) = self.rights.strip_prefix("0x") {
            // Any, or all, or generic read, or to read data.
            return u32::from_str_radix(mask, 16).is_ok_and(|mask| mask & 0xB000_0001 != 0);
        }
        codes(self.rights).any(|right| ["FA", "FR", "GA", "GR", "CC"].contains(&right))
    }
}

/// The codes of two letters in a field.
fn codes(field: &str) -> impl Iterator<Item = &str> {
    (0..field.len() / 2).filter_map(move |index| field.get(2 * index..2 * index + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "S-1-5-21-1-2-3-1001";

    #[test]
    fn new_file_is_for_its_user_the_system_and_the_administrators() {
        let own = format!("D:P(A;;FA;;;{USER})(A;;FA;;;SY)(A;;FA;;;BA)");
        // A folder at the root of a disk, and one without a list.
        let shared = "O:BAD:AI(A;OICIID;FA;;;BA)(A;OICIID;0x1200a9;;;BU)(A;ID;0x1301bf;;;AU)\
                      (A;OICIIOID;SDGXGWGR;;;AU)(A;OICIIOID;GA;;;CO)(A;;FA;;;S-1-5-21-1-2-3-513)";
        for like in [shared, "O:BAD:NO_ACCESS_CONTROL", "O:BA", ""] {
            assert_eq!(for_accounts(USER, like, Inherit::No), own, "{like}");
        }
        assert!(others_may_read(shared) && !others_may_read(&own));
        let folder = for_accounts(USER, "", Inherit::Yes);
        assert_eq!(folder, own.replace("(A;;", "(A;OICI;"));
    }

    #[test]
    fn accounts_that_the_folder_names_keep_their_access() {
        // A service, a user who reads, and a denied user.
        let folder = "O:BAD:PAI(A;OICI;0x1301bf;;;LS)(A;OICI;FR;;;S-1-5-21-1-2-3-1005)\
                      (D;OICI;FA;;;S-1-5-21-1-2-3-1006)(A;;FA;;;SY)";
        let list = for_accounts(USER, folder, Inherit::No);
        assert!(list.ends_with("(A;;0x1301bf;;;LS)(A;;FR;;;S-1-5-21-1-2-3-1005)"), "{list}");
        assert_eq!(list.matches(";SY)").count(), 1, "{list}");
        assert!(!others_may_read(&list));
    }

    #[test]
    fn list_that_lets_any_user_read_is_recognised() {
        for (entry, may_read) in [
            ("(A;;0x1200a9;;;WD)", true),
            ("(A;;FR;;;AU)", true),
            ("(A;ID;GRGX;;;BU)", true),
            ("(A;;CCSWWPLORC;;;IU)", true),
            ("(A;;FA;;;S-1-15-2-2)", true),
            ("(A;;FA;;;S-1-5-32-1234)", false),
            ("(A;OICIIO;FA;;;WD)", false),
            ("(D;;FA;;;WD)", false),
            ("(A;;0x100000;;;WD)", false),
            ("(A;;FX;;;WD)", false),
            ("(A;;FA;;;LS)", false),
        ] {
            let list = format!("O:{USER}G:{USER}D:AI(A;;FA;;;{USER}){entry}");
            assert_eq!(others_may_read(&list), may_read, "{entry}");
        }
        assert!(others_may_read("O:BAD:NO_ACCESS_CONTROL"));
        assert!(others_may_read("O:BA"));
        assert!(!others_may_read("O:BAD:P"), "an empty list gives nobody access");
    }
}
