//! The state of the model: one server, one store, and the memory of each process.

use super::rules::Kind;

/// The company, and the resource of most configurations.
pub const COMPANY: usize = 0;
/// The location, which can be minted from the company.
pub const LOCATION: usize = 1;

/// How many grants a configuration may see.
pub const GRANTS: usize = 8;

/// A refresh token: a place in the chain of one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub grant: u8,
    pub generation: u8,
}

/// A grant, as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The company or location that it belongs to.
    pub owner: u8,
    /// The only generation that is honoured.
    pub newest: u8,
    /// The replay window of the generation before is open.
    pub replays: bool,
    pub revoked: bool,
    /// When the installation began, by the vendor's clock.
    pub began: u8,
}

/// The stored record of a resource that has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub token: Token,
    pub version: u8,
    pub intent: bool,
    /// The standing is "reauthorization required".
    pub lost: bool,
    /// When the installation began, as far as the client knows.
    pub began: i8,
    /// When the last refresh was made, by the client's clock.
    pub issued: i8,
    /// Wall-clock expiry, where a rule still compares it.
    pub expires: i8,
    /// How many deletions had begun when the token was asked for. The protocol never reads it: it is for the properties.
    pub epoch: u8,
}

/// One resource in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    pub row: Option<Record>,
    /// The row on disk, without unsynced writes.
    pub durable: Option<Record>,
    /// The last version before the last deletion, 0 where there was none.
    pub tombstone: u8,
    pub lock: Option<u8>,
    /// Digests of the refresh tokens that this store has spent.
    pub spent: u32,
    /// The last word of the webhooks on this resource.
    pub note: Option<Note>,
    /// How many deletions have begun, for the properties only.
    pub epoch: u8,
    /// The newest deletion that was completed, for the properties only.
    pub deleted: u8,
}

/// The note on a location's installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    pub at: i8,
    pub installed: bool,
    /// A mint is still to be made.
    pub due: bool,
}

/// A new token that is not in the store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fresh {
    /// The record to be saved. It carries the version of the row that it replaces, 0 without a row.
    pub record: Record,
    /// The refresh token of the row that it is based on.
    pub base: Option<Token>,
    pub source: Source,
    pub owner: u8,
    /// The tombstone when the token was asked for.
    pub tombstone: u8,
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

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub kind: Kind,
    pub resource: u8,
    pub step: Step,
    /// The lock was taken and not given back; the store may have freed it meanwhile.
    pub locked: bool,
    /// The token that the caller knew when it asked for a newer one.
    pub known: Option<Token>,
    pub record: Option<Record>,
    pub fresh: Option<Fresh>,
    /// The token being saved is an unsaved copy of an earlier call.
    pub offering: bool,
    /// The tombstone and the number of deletions when the work on a new token began.
    pub tombstone: u8,
    pub epoch: u8,
    /// The refresh token may have been spent by a use without an answer.
    pub doubt: bool,
    pub called_invalid: bool,
    /// A verdict was reached although the connection could go on, for the properties only.
    pub hasty: bool,
    pub sends: u8,
    pub tries: u8,
    /// A fault refused one of its saves.
    pub refused: bool,
    /// The new token was dropped, since the resource was deleted.
    pub dropped: bool,
    /// The time that the webhook names.
    pub at: i8,
    /// How many steps it has taken.
    pub steps: u8,
}

/// The memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    pub closed: bool,
    pub unsaved: [Option<Fresh>; 2],
    pub call: Option<Call>,
}

/// Which property a step broke.
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
    /// The property that is broken.
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

/// Everything.
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
    /// The webhooks that are still to be delivered: UNINSTALL and INSTALL.
    pub webhooks: [bool; 2],
    /// A webhook that was processed to its end.
    pub processed: [bool; 2],
    pub broken: Option<Broken>,
}

impl State {
    pub fn grant(&self, token: Token) -> Grant {
        self.grants[usize::from(token.grant)].expect("a token without a grant")
    }

    /// The server honours this refresh token.
    pub fn is_live(&self, token: Token) -> bool {
        let grant = self.grant(token);
        !grant.revoked && grant.newest == token.generation
    }

    /// The server honours this refresh token, or repeats its answer for it.
    pub fn is_recoverable(&self, token: Token) -> bool {
        let grant = self.grant(token);
        self.is_live(token) || (!grant.revoked && grant.replays && grant.newest == token.generation + 1)
    }

    /// The server would mint a token for the location.
    pub fn can_mint(&self) -> bool {
        let company = self.slots[COMPANY].row.filter(|row| !row.lost);
        self.installed && company.is_some_and(|row| !self.grant(row.token).revoked)
    }

    /// Some memory or the store holds a token from which the connection can go on.
    pub fn is_held(&self, resource: usize) -> bool {
        let rows = self.slots.iter().filter_map(|slot| slot.row);
        let copies = self.processes.iter().flat_map(|process| {
            let [company, location] = process.unsaved;
            [company, location, process.call.and_then(|call| call.fresh)]
        });
        let mut tokens = rows.chain(copies.flatten().map(|fresh| fresh.record)).map(|record| record.token);
        tokens.any(|token| usize::from(self.grant(token).owner) == resource && self.is_recoverable(token))
    }

    /// Adds a grant and returns its first token.
    pub fn add_grant(&mut self, owner: usize, began: u8) -> Token {
        let free = self.grants.iter().position(Option::is_none).expect("more grants than expected");
        self.grants[free] =
            Some(Grant { owner: owner as u8, newest: 0, replays: false, revoked: false, began });
        Token { grant: free as u8, generation: 0 }
    }

    /// How many refresh tokens were issued so far.
    pub fn issued(&self) -> i8 {
        self.grants.iter().flatten().map(|grant| grant.newest as i8 + 1).sum()
    }
}
