//! An unreadable database row is one failed item: the other rows are still listed, and the row can
//! be deleted, imported or replaced by a new consent.
#![cfg(feature = "sqlite")]

mod support;

use std::path::Path;

use ghl_oauth_emulator::Decision;
use serde_json::{Value, json};
use support::Abi;

/// The kinds of damage, as assignments to one row. The last four need a table without strict types.
const DAMAGES: [&str; 7] = [
    "document = x'00'",
    "document = CAST('{\"token\":' AS BLOB)",
    "version = -7",
    "version = NULL",
    "version = 'seven', renew_at = 'soon'",
    "document = 'text'",
    "document = NULL, renew_at = 1.5",
];

/// Replaces the strict table by one that accepts values of any type.
const LENIENT: &str = "
    ALTER TABLE token RENAME TO strict_token;
    CREATE TABLE token (client_id, resource_id, version, user_type, company_id, renew_at,
        document, sealed_with,
        PRIMARY KEY (client_id, resource_id));
    INSERT INTO token SELECT client_id, resource_id, version, user_type, company_id, renew_at,
        document, sealed_with
        FROM strict_token;
    DROP TABLE strict_token;";

fn damage(path: &Path, resource_id: &str, damage: &str) {
    let database = rusqlite::Connection::open(path).unwrap();
    let update = format!("UPDATE token SET {damage} WHERE resource_id = ?1");
    let updated = database.execute(&update, [resource_id]).or_else(|_| {
        database.execute_batch(LENIENT).unwrap();
        database.execute(&update, [resource_id])
    });
    assert_eq!(updated.unwrap(), 1);
}

/// The IDs of a list, and the IDs of its failures.
fn ids(list: &Value, items: &str) -> (Vec<String>, Vec<String>) {
    let of = |list: &Value| -> Vec<String> {
        let mut ids: Vec<String> = list.as_array().into_iter().flatten().map(id_of).collect();
        ids.sort();
        ids
    };
    (of(&list[items]), of(&list["failed"]))
}

fn id_of(item: &Value) -> String {
    ["resourceId", "locationId", "companyId"]
        .iter()
        .find_map(|key| item[*key].as_str())
        .unwrap_or_else(|| panic!("{item} names nothing"))
        .to_owned()
}

#[test]
fn damaged_row_is_one_failed_item_that_can_be_deleted_imported_or_consented_again() {
    for kind in DAMAGES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let emulator = support::emulator(2);
        let config = support::config(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
        let client = Abi::open(&config).unwrap();
        let company = client.connect_company(&emulator);
        client.tokens_mint(json!({"companyId": company, "installed": true}), |_| true).ok();
        let exported = client.tokens_export(json!({})).ok();
        let (all, failed) = ids(&exported, "tokens");
        assert_eq!((all.len(), failed.len()), (3, 0), "{exported}");
        drop(client);

        for broken in &all {
            damage(&path, broken, kind);
            let client = Abi::open(&config).unwrap();
            let others: Vec<String> = all.iter().filter(|id| *id != broken).cloned().collect();
            for (list, items) in [
                (client.tokens_list(json!({})).ok(), "items"),
                (client.tokens_export(json!({})).ok(), "tokens"),
            ] {
                assert_eq!(
                    ids(&list, items),
                    (others.clone(), vec![broken.clone()]),
                    "{kind}: {list}"
                );
            }
            // It does not stop maintenance of the others, whether it is due or not.
            client.tokens_maintain(json!({}), |_| true).ok();

            // It is restored by an import, ...
            let mut import = exported.clone();
            import["replace"] = true.into();
            let report = client.tokens_import(import.clone()).ok();
            assert_eq!(report["imported"], 3, "{kind}: {report}");
            assert_eq!(
                ids(&client.tokens_list(json!({})).ok(), "items"),
                (all.clone(), vec![]),
                "{kind}"
            );
            drop(client);

            // ... by a deletion and an import, ...
            damage(&path, broken, kind);
            let client = Abi::open(&config).unwrap();
            client.token_delete(broken).ok();
            assert_eq!(
                ids(&client.tokens_list(json!({})).ok(), "items"),
                (others, vec![]),
                "{kind}"
            );
            client.tokens_import(import).ok();
            drop(client);

            // ... and by a new consent.
            damage(&path, broken, kind);
            let client = Abi::open(&config).unwrap();
            let decision = match *broken == company {
                true => Decision::Company(company.clone()),
                false => Decision::Location(broken.clone()),
            };
            client.connect(&emulator, decision);
            assert_eq!(
                ids(&client.tokens_list(json!({})).ok(), "items"),
                (all.clone(), vec![]),
                "{kind}"
            );
            client.live_token(&emulator, broken);
        }
    }
}

#[test]
fn consent_after_a_deletion_with_a_damaged_tombstone_is_saved() {
    let emulator = ghl_oauth_emulator::Emulator::start(Default::default()).unwrap();
    for document in
        ["'text'", "x'00'", "'{\"version\": 18446744073709551615}'", "'{\"version\": -1}'", "'5'"]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let open = || Abi::with(&emulator, json!({"store": {"kind": "sqlite", "path": path}}));
        let abi = open();
        let company = abi.connect_company(&emulator);
        abi.token_delete(&company).ok();
        let database = rusqlite::Connection::open(&path).unwrap();
        let damage = format!(
            "UPDATE note SET document = CAST({document} AS TEXT) WHERE key LIKE 'deleted/%'"
        );
        assert_eq!(database.execute(&damage, []).unwrap(), 1, "{document}");
        drop(database);
        open().connect_company(&emulator);
        open().live_token(&emulator, &company);
    }
}
