//! The rules of the protocol, one switch each, and the bounds of a configuration.

/// The rules of the protocol. Every test of a rule disables it and expects a violation.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A conflict on the save of a refreshed token is resolved by the refresh token in the row: the
    /// spent one is replaced, any other stays, a missing row means a deletion. Otherwise the later
    /// wall-clock expiry wins.
    pub conflict_by_content: bool,
    /// Of tokens from different grants the one with the later installation start wins, unless it
    /// was deleted afterwards. A saved response of unknown age is older than all others.
    pub later_beginning_wins: bool,
    /// The intent, a write without a sync, takes a version that no other write takes. Otherwise it
    /// takes the next one.
    pub intent_version_is_unique: bool,
    /// Versions continue after the tombstone. Otherwise they start again at 1.
    pub versions_continue: bool,
    /// A deletion writes a tombstone even if the store holds no row.
    pub tombstone_without_row: bool,
    /// An unsaved copy whose base was deleted is dropped. Otherwise it is inserted again.
    pub deleted_copy_dropped: bool,
    /// How the first save of a record detects a deletion.
    pub first_save: FirstSave,
    /// An import of unknown age replaces no valid token.
    pub import_keeps_good: bool,
    /// An import of a refresh token that this store has spent is refused by its digest.
    pub spent_digests: bool,
    /// A response is stored under the owner that it names.
    pub answer_names_owner: bool,
    /// Every call that uses a resource retries its unsaved copy.
    pub calls_offer: bool,
    /// Closing the client retries the unsaved copies.
    pub close_offers: bool,
    /// UNINSTALL is compared with the start of the installation. Otherwise with the last refresh.
    pub uninstall_by_beginning: bool,
    /// INSTALL newer than the stored installation causes a new mint.
    pub install_mints: bool,
    /// The start of an installation is a time of the vendor's clock. Otherwise of the client's own.
    pub vendor_time: bool,
    /// A mint whose token was dropped remains due.
    pub dropped_mint_stays_due: bool,
    /// UNINSTALL compares the stored row and the unsaved copy separately. Otherwise the copy
    /// represents both.
    pub uninstall_compares_each: bool,
    /// UNINSTALL removes only the version that it compared.
    pub conditional_removal: bool,
    /// Only a refusal in the API's own format is final.
    pub only_api_words: bool,
    /// The intent is recorded before the refresh token is sent.
    pub intent: bool,
    /// A final refusal needs two refusals, whether or not the outcome of an earlier use is unknown.
    pub two_refusals: bool,
    /// A deletion writes its tombstone and removes the row in one transaction. Otherwise it writes
    /// the tombstone first.
    pub atomic_deletion: bool,
    /// A refresh takes the store's lock.
    pub lock: bool,
}

/// How the first save of a record detects a deletion since the mint or consent began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSave {
    /// It does not.
    Unchecked,
    /// It rereads the tombstone after the save, and removes its own record if the tombstone
    /// changed.
    ReadsAgain,
    /// The save names the preceding tombstone, and the store compares it in the same step.
    NamesTombstone,
}

impl Rules {
    /// Every rule.
    pub const ALL: Rules = Rules {
        conflict_by_content: true,
        later_beginning_wins: true,
        intent_version_is_unique: true,
        versions_continue: true,
        tombstone_without_row: true,
        deleted_copy_dropped: true,
        first_save: FirstSave::NamesTombstone,
        import_keeps_good: true,
        spent_digests: true,
        answer_names_owner: true,
        calls_offer: true,
        close_offers: true,
        uninstall_by_beginning: true,
        install_mints: true,
        vendor_time: true,
        dropped_mint_stays_due: true,
        uninstall_compares_each: true,
        conditional_removal: true,
        only_api_words: true,
        intent: true,
        two_refusals: true,
        atomic_deletion: true,
        lock: true,
    };
}

/// The kinds of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Refresh a token, or mint it if a location has none.
    Refresh,
    /// Return the token from memory.
    Access,
    /// Mint a location's token from its company's, without the lock.
    Mint,
    /// Delete a token.
    Delete,
    /// Store the token of a consent.
    Consent,
    /// Import a saved response of unknown age.
    Import,
    /// Process an UNINSTALL webhook.
    Uninstalled,
    /// Process an INSTALL webhook.
    Installed,
    /// Free the client.
    Close,
}

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A process is killed: its memory is lost and its lock released. It restarts at once.
    Kill,
    /// A response is lost; the server may have processed the request.
    LostReply,
    /// The store refuses a save.
    RefusedSave,
    /// The store saves, but its acknowledgement is lost.
    LostAck,
    /// The store releases a lock whose holder continues.
    LostLock,
    /// The server calls a refresh token invalid although it would repeat its response a moment
    /// later.
    HastyInvalid,
    /// A gateway answers a mint with an HTML page.
    Page,
    /// The machine loses power: every process ends, and writes without a sync are undone.
    PowerCut,
    /// The database server restarts: locks are lost and unsynced writes are undone, but the
    /// processes continue.
    StoreRestart,
    /// A webhook is never delivered.
    LostWebhook,
}

/// One configuration: the initial state, the calls and faults, and their bounds.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub rules: Rules,
    /// The number of processes.
    pub processes: usize,
    /// The number of calls of each kind by resource: 0 is the company, 1 the location.
    pub calls: Vec<(Kind, usize, u8)>,
    /// The possible faults.
    pub faults: Vec<Fault>,
    /// The total number of faults.
    pub most_faults: u8,
    /// Whether the server repeats its response for the refresh token that it consumed last, until
    /// the window closes.
    pub window: bool,
    /// Whether a new consent revokes the earlier grants of its resource.
    pub consent_revokes: bool,
    /// The error of the wall clock of each process.
    pub skew: Vec<i8>,
    /// Whether the company and the location have a token at the start.
    pub held: [bool; 2],
    /// The location's record holds the company's refresh token.
    pub mislabelled: bool,
    /// The vendor uninstalls the app from the location and reinstalls it, each at its own time.
    pub reinstalls: bool,
    /// Imports are made with `replace`.
    pub replace: bool,
    /// The saved response comes from another, dead chain unknown to this store.
    pub foreign_import: bool,
}
