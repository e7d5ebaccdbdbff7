//! The state of the model: one server, one store, and the memory of each process.

use super::rules::Kind;

/// The company, and the resource of most configurations.
pub const COMPANY: usize = 0;
/// The location, which can be minted from the company.
pub const LOCATION: usize = 1;

/// The maximum number of grants in a configuration.
pub const GRANTS: usize = 8;

/// A refresh token: a position in the chain of one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub grant: u8,
    pub generation: u8,
}

/// A grant as known to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The company or location that it belongs to.
    pub owner: u8,
    /// The only accepted generation.
    pub newest: u8,
    /// Whether the replay window of the previous generation is open.
    pub replays: bool,
    pub revoked: bool,
    /// The start of the installation by the vendor's clock.
    pub began: u8,
}

/// The stored record of a resource that has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub token: Token,
    pub version: u16,
    pub intent: bool,
    /// The standing is "reauthorization required".
    pub lost: bool,
    /// The start of the installation as known to the client.
    pub began: i8,
    /// The time of the last refresh by the client's clock.
    pub issued: i8,
    /// The wall-clock expiry, if a rule still compares it.
    pub expires: i8,
    /// The number of deletions when the token was requested. Read only by the properties.
    pub epoch: u8,
}

/// One resource in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub row: Option<Record>,
    /// The row on disk, without unsynced writes.
    pub durable: Option<Record>,
    /// The last version before the last deletion, or 0.
    pub tombstone: u16,
    pub lock: Option<u8>,
    /// Digests of the refresh tokens that this store has spent.
    pub spent: u32,
    /// The newest state reported by the webhooks of this resource.
    pub note: Option<Note>,
    /// The number of deletions, read only by the properties.
    pub epoch: u8,
    /// The newest completed deletion, read only by the properties.
    pub deleted: u8,
}

/// The note on a location's installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    pub at: i8,
    pub installed: bool,
    /// A mint is due.
    pub due: bool,
}

/// A new token that is not in the store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fresh {
    /// The record to be saved. It carries the version of the row that it replaces, 0 without a row.
    pub record: Record,
    pub source: Source,
    pub owner: u8,
    /// The tombstone when the token was requested.
    pub tombstone: u16,
}

/// The origin of a new token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Refreshed { spent: Token },
    Consented,
    Minted { replaced: Option<Token> },
    Imported,
}

/// The next step of a call: its program counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    WriteNote,
    Lock,
    Read,
    RecordIntent,
    Send,
    Save,
    ResolveConflict,
    ReadTombstoneAgain,
    CompareVerdict,
    SendMint,
    WriteVerdict,
    WriteTombstone,
    Remove,
    ClearNote,
    Unlock,
}

/// A call in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub kind: Kind,
    pub resource: u8,
    pub step: Step,
    /// The lock was acquired and not released; the store may have released it in the meantime.
    pub locked: bool,
    /// The token that the caller knew when it requested a newer one.
    pub known: Option<Token>,
    pub record: Option<Record>,
    pub fresh: Option<Fresh>,
    /// The token being saved is an unsaved copy of an earlier call.
    pub offering: bool,
    /// The tombstone and the number of deletions at the start of the work on a new token.
    pub tombstone: u16,
    pub epoch: u8,
    /// The refresh token may have been spent by a use without a response.
    pub outcome_unknown: bool,
    pub called_invalid: bool,
    /// A final refusal was accepted although the connection was usable; read only by the
    /// properties.
    pub hasty: bool,
    pub sends: u8,
    pub tries: u8,
    /// A fault refused one of its saves.
    pub refused: bool,
    /// The new token was dropped because the resource was deleted.
    pub dropped: bool,
    /// The time that the webhook names.
    pub at: i8,
    /// The number of steps so far.
    pub steps: u8,
}

/// The memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub closed: bool,
    pub unsaved: [Option<Fresh>; 2],
    pub call: Option<Call>,
}

/// The property that a step violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    Overwritten,
    Lost,
    CameBack,
    Owner,
    TwoRefreshes,
    HastyVerdict,
    NotOffered,
    KeptAfterUninstall,
    EndedByOldUninstall,
    MissedInstall,
    Endless,
}

impl Broken {
    /// The violated property.
    pub fn property(self) -> &'static str {
        match self {
            Broken::Overwritten => "a live token is not overwritten by a dead one",
            Broken::Lost => "no step of the protocol loses a connection",
            Broken::CameBack => "a deleted token stays deleted",
            Broken::Owner => "a token keeps its owner",
            Broken::TwoRefreshes => "one refresh at a time while the lock holds",
            Broken::HastyVerdict => "no verdict while the connection can go on",
            Broken::NotOffered => "a call offers the unsaved copy",
            Broken::KeptAfterUninstall => "UNINSTALL ends the installation that it names",
            Broken::EndedByOldUninstall => "UNINSTALL ends no later installation",
            Broken::MissedInstall => "INSTALL leads to a token of its installation",
            Broken::Endless => "every call ends",
        }
    }
}

/// The complete state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub grants: [Option<Grant>; GRANTS],
    pub slots: [Slot; 2],
    pub processes: Vec<Process>,
    pub calls_left: [u8; 12],
    pub faults_left: u8,
    /// The vendor's clock.
    pub now: u8,
    /// Whether the app is installed on the location.
    pub installed: bool,
    /// The undelivered webhooks: UNINSTALL and INSTALL.
    pub webhooks: [bool; 2],
    /// The completely processed webhooks.
    pub processed: [bool; 2],
    pub broken: Option<Broken>,
}

impl State {
    pub fn grant(&self, token: Token) -> Grant {
        self.grants[usize::from(token.grant)].expect("a token without a grant")
    }

    /// Whether the server accepts this refresh token.
    pub fn is_live(&self, token: Token) -> bool {
        let grant = self.grant(token);
        !grant.revoked && grant.newest == token.generation
    }

    /// Whether the server accepts this refresh token, or repeats its response for it.
    pub fn is_recoverable(&self, token: Token) -> bool {
        let grant = self.grant(token);
        self.is_live(token)
            || (!grant.revoked && grant.replays && grant.newest == token.generation + 1)
    }

    /// Whether the server would mint a token for the location.
    pub fn can_mint(&self) -> bool {
        let company = self.slots[COMPANY].row.filter(|row| !row.lost);
        self.installed && company.is_some_and(|row| !self.grant(row.token).revoked)
    }

    /// Whether a memory or the store holds a token with which the connection can continue.
    pub fn is_held(&self, resource: usize) -> bool {
        let rows = self.slots.iter().filter_map(|slot| slot.row);
        let copies = self.processes.iter().flat_map(|process| {
            let [company, location] = process.unsaved;
            [company, location, process.call.and_then(|call| call.fresh)]
        });
        let mut tokens =
            rows.chain(copies.flatten().map(|fresh| fresh.record)).map(|record| record.token);
        tokens.any(|token| {
            usize::from(self.grant(token).owner) == resource && self.is_recoverable(token)
        })
    }

    /// Adds a grant and returns its first token.
    pub fn add_grant(&mut self, owner: usize, began: u8) -> Token {
        let free = self.grants.iter().position(Option::is_none).expect("more grants than expected");
        self.grants[free] =
            Some(Grant { owner: owner as u8, newest: 0, replays: false, revoked: false, began });
        Token { grant: free as u8, generation: 0 }
    }

    /// The number of refresh tokens issued so far.
    pub fn issued(&self) -> i8 {
        self.grants.iter().flatten().map(|grant| grant.newest as i8 + 1).sum()
    }
}
