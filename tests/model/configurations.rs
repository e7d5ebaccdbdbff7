//! The checked configurations: each is small enough for a complete exploration.

use super::rules::{Fault, Kind, Rules, Scenario};
use super::state::{COMPANY, LOCATION};

/// A bound from the environment, for longer runs.
fn bound<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn base() -> Scenario {
    Scenario {
        rules: Rules::ALL,
        processes: bound("GHL_MODEL_PROCESSES", 2),
        calls: Vec::new(),
        faults: Vec::new(),
        most_faults: bound("GHL_MODEL_FAULTS", 2),
        window: true,
        consent_revokes: true,
        skew: vec![0, 4],
        held: [true, false],
        mislabelled: false,
        reinstalls: false,
        replace: false,
        foreign_import: false,
    }
}

/// Refreshes of one token.
pub fn refresh() -> Scenario {
    Scenario {
        calls: vec![(Kind::Refresh, COMPANY, 3), (Kind::Access, COMPANY, 1)],
        faults: vec![
            Fault::Kill,
            Fault::LostReply,
            Fault::RefusedSave,
            Fault::LostAck,
            Fault::LostLock,
            Fault::HastyInvalid,
        ],
        ..base()
    }
}

/// Refreshes, and a server without a replay window.
pub fn refresh_without_window() -> Scenario {
    Scenario { window: false, ..refresh() }
}

/// Refreshes while the machine or the database loses unsynced writes.
pub fn unsynced() -> Scenario {
    Scenario {
        calls: vec![(Kind::Refresh, COMPANY, 2), (Kind::Consent, COMPANY, 1)],
        faults: vec![
            Fault::PowerCut,
            Fault::StoreRestart,
            Fault::HastyInvalid,
            Fault::RefusedSave,
            Fault::LostReply,
            Fault::Kill,
        ],
        ..base()
    }
}

/// A deletion and a new consent between refreshes.
pub fn deletion() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Refresh, COMPANY, 2),
            (Kind::Consent, COMPANY, 1),
            (Kind::Delete, COMPANY, 1),
        ],
        faults: vec![Fault::Kill, Fault::LostLock, Fault::RefusedSave, Fault::LostAck],
        ..base()
    }
}

/// Two consents for the same company.
pub fn consents() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Refresh, COMPANY, 1),
            (Kind::Consent, COMPANY, 2),
            (Kind::Delete, COMPANY, 1),
        ],
        faults: vec![Fault::Kill, Fault::LostLock, Fault::RefusedSave, Fault::LostAck],
        most_faults: bound("GHL_MODEL_FAULTS", 1),
        ..base()
    }
}

/// Mints of a location that has no token yet, and its deletion.
pub fn mint() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Mint, LOCATION, 2),
            (Kind::Refresh, LOCATION, 1),
            (Kind::Delete, LOCATION, 1),
        ],
        faults: vec![
            Fault::Kill,
            Fault::LostLock,
            Fault::RefusedSave,
            Fault::LostAck,
            Fault::Page,
            Fault::LostReply,
        ],
        ..base()
    }
}

/// A location with its own token, which can be minted again.
pub fn location() -> Scenario {
    Scenario {
        calls: vec![(Kind::Refresh, LOCATION, 3)],
        faults: vec![Fault::Kill, Fault::LostReply, Fault::Page, Fault::HastyInvalid],
        held: [true, true],
        ..base()
    }
}

/// Imports of a saved response whose refresh token this store has spent.
pub fn import() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Import, COMPANY, 1),
            (Kind::Refresh, COMPANY, 2),
            (Kind::Delete, COMPANY, 1),
        ],
        faults: vec![Fault::Kill, Fault::LostLock, Fault::RefusedSave, Fault::LostAck],
        ..base()
    }
}

/// The same, each with `replace`.
pub fn import_with_replace() -> Scenario {
    Scenario { replace: true, most_faults: bound("GHL_MODEL_FAULTS", 1), ..import() }
}

/// Imports of a saved response from a chain unknown to this store.
pub fn foreign_import() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Import, COMPANY, 1),
            (Kind::Refresh, COMPANY, 2),
            (Kind::Consent, COMPANY, 1),
        ],
        foreign_import: true,
        most_faults: bound("GHL_MODEL_FAULTS", 1),
        ..import()
    }
}

/// A location record that contains the refresh token of its company.
pub fn mislabelled() -> Scenario {
    Scenario {
        calls: vec![(Kind::Refresh, LOCATION, 2), (Kind::Refresh, COMPANY, 2)],
        faults: vec![Fault::Kill, Fault::RefusedSave, Fault::LostReply, Fault::Page],
        most_faults: bound("GHL_MODEL_FAULTS", 1),
        held: [true, true],
        mislabelled: true,
        ..base()
    }
}

/// UNINSTALL and INSTALL of a location, in any order, while its token is refreshed.
pub fn reinstalled() -> Scenario {
    Scenario {
        calls: vec![(Kind::Refresh, LOCATION, 1)],
        faults: vec![
            Fault::Kill,
            Fault::LostLock,
            Fault::RefusedSave,
            Fault::LostAck,
            Fault::LostWebhook,
        ],
        most_faults: bound("GHL_MODEL_FAULTS", 1),
        held: [true, true],
        reinstalls: true,
        ..base()
    }
}

/// The same, while its token is minted.
pub fn reinstalled_and_minted() -> Scenario {
    Scenario { calls: vec![(Kind::Mint, LOCATION, 1)], ..reinstalled() }
}

/// One call of every kind that concerns a company.
pub fn everything() -> Scenario {
    Scenario {
        calls: vec![
            (Kind::Refresh, COMPANY, 2),
            (Kind::Consent, COMPANY, 1),
            (Kind::Import, COMPANY, 1),
            (Kind::Delete, COMPANY, 1),
        ],
        faults: vec![Fault::Kill, Fault::LostReply, Fault::RefusedSave, Fault::LostLock],
        most_faults: bound("GHL_MODEL_FAULTS", 1),
        ..base()
    }
}
