//! The client secret in a file of its own, named by the configuration.

mod support;

use std::fs;

use ghl_oauth::Status;
use serde_json::{Value, json};
use support::{Abi, emulator};

#[test]
fn client_secret_is_read_once_from_its_file() {
    let emulator = emulator(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    for ending in ["", "\n", "\r\n", "\n\n"] {
        fs::write(&file, format!("{}{ending}", emulator.client_secret())).unwrap();
        let changes = json!({"clientSecret": null, "clientSecretFile": file});
        let mut config = support::config(&emulator, changes);
        config.as_object_mut().unwrap().remove("clientSecret");
        let abi = Abi::open(&config).unwrap_or_else(|error| panic!("{ending:?}: {}", error.1));
        fs::remove_file(&file).unwrap();
        let company = abi.connect_company(&emulator);
        abi.token_refresh(&company).ok();
    }
}

#[test]
fn relative_path_of_the_client_secret_starts_at_the_working_directory() {
    let name = "no-such-folder/secret";
    let error = refused(json!({"clientId": "app-1", "clientSecretFile": name}), Status::Config);
    assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    // Tests run in the package's folder.
    let error =
        refused(json!({"clientId": "app-1", "clientSecretFile": "Cargo.toml"}), Status::Config);
    assert!(error["message"].as_str().unwrap().contains("control character"), "{error}");
}

#[test]
fn unusable_file_of_a_client_secret_is_refused_by_key_and_path_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let config = json!({"clientId": "app-1", "clientSecretFile": file});
    let check = |what: &str| {
        let error = refused(config.clone(), Status::Config);
        assert_eq!(error["parameter"], "clientSecretFile", "{what}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(file.to_str().unwrap()), "{message}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    };
    check("missing");
    fs::create_dir(&file).unwrap();
    check("a folder");
    fs::remove_dir(&file).unwrap();
    let contents: [&[u8]; 8] = [
        b"",
        &[b'h'; 70_000],
        b"\n",
        b"hunter2 \n",
        b"hunter2\nhunter3\n",
        b"hunter2\0",
        b"\xff\xfeh\0u\0n\0t\0e\0r\0",
        "\u{feff}hunter2".as_bytes(),
    ];
    for content in contents {
        fs::write(&file, content).unwrap();
        check(&String::from_utf8_lossy(&content[..content.len().min(20)]));
    }
}

#[test]
fn exactly_one_of_client_secret_and_its_file_is_required() {
    let both = json!({"clientId": "app-1", "clientSecret": "hunter2", "clientSecretFile": "x"});
    assert_eq!(refused(both, Status::Config)["parameter"], "clientSecretFile");
    for neither in
        [json!({"clientId": "app-1"}), json!({"clientId": "a", "clientSecretFile": null})]
    {
        let error = refused(neither, Status::InvalidArgument);
        assert_eq!(error["parameter"], "clientSecret");
        assert!(error["help"].as_str().unwrap().contains("clientSecretFile"), "{error}");
    }
    let empty = json!({"clientId": "app-1", "clientSecret": ""});
    assert_eq!(refused(empty, Status::Config)["parameter"], "clientSecret");
}

fn refused(config: Value, status: Status) -> Value {
    let error = Abi::open(&config).err().unwrap().fails(status);
    assert!(!error.to_string().contains("hunter"), "{error}");
    error
}
