//! The rules of the protocol, one switch each, and the bounds of a configuration.

/// The rules of the protocol. Every test of a single rule switches that one off and expects a violation.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A conflict on the save of a refreshed token is decided by the refresh token that the row holds: the spent one
    /// gives way, any other stays, a missing row means a deletion. Otherwise the later wall-clock expiry wins.
    pub conflict_by_content: bool,
    /// Of tokens from different grants the one whose installation began later wins, unless a deletion came after it. A
    /// saved answer of unknown age began before all others.
    pub later_beginning_wins: bool,
    /// Every compare-and-swap compares the stored refresh token as well as the version.
    pub writes_check_token: bool,
    /// A write without a sync, the intent, uses up no version.
    pub intent_keeps_version: bool,
    /// Versions continue after the tombstone. Otherwise they start again at 1.
    pub versions_continue: bool,
    /// A deletion writes a tombstone even if the store holds no row.
    pub tombstone_without_row: bool,
    /// An unsaved copy whose base was deleted is dropped. Otherwise it is inserted again.
    pub deleted_copy_dropped: bool,
    /// How the first save of a record learns of a deletion.
    pub first_save: FirstSave,
    /// An import of unknown age replaces no good token.
    pub import_keeps_good: bool,
    /// An import of a refresh token that this store has spent is refused by its digest.
    pub spent_digests: bool,
    /// An answer is filed under the owner that it names.
    pub answer_names_owner: bool,
    /// Every call that touches a resource offers its unsaved copy.
    pub calls_offer: bool,
    /// Closing the client offers the unsaved copies.
    pub close_offers: bool,
    /// UNINSTALL is compared with the beginning of the installation. Otherwise with the last refresh.
    pub uninstall_by_beginning: bool,
    /// INSTALL that is newer than the installation held leads to a new mint.
    pub install_mints: bool,
    /// The beginning of an installation is a time of the vendor's clock. Otherwise of the client's own.
    pub vendor_time: bool,
    /// A mint whose token was dropped stays on the list of mints to be made.
    pub dropped_mint_stays_due: bool,
    /// UNINSTALL compares the stored row and the unsaved copy each on its own. Otherwise the copy stands for both.
    pub uninstall_compares_each: bool,
    /// UNINSTALL removes only the version that it compared.
    pub conditional_removal: bool,
    /// Only a refusal in the API's own words is a verdict on a token.
    pub only_api_words: bool,
    /// The intent is recorded before the refresh token is sent.
    pub intent: bool,
    /// A verdict needs two refusals, whether or not an earlier use of the refresh token is in doubt.
    pub two_refusals: bool,
    /// A deletion writes its tombstone and removes the row in one transaction. Otherwise the tombstone first.
    pub atomic_deletion: bool,
    /// A refresh takes the store's lock.
    pub lock: bool,
}

/// How the first save of a record learns that the resource was deleted after the mint or consent began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSave {
    /// It does not.
    Unchecked,
    /// It reads the tombstone again after the save, and removes its own record if the tombstone changed.
    ReadsAgain,
    /// The save names the tombstone that it follows, and the store compares that in the same step.
    NamesTombstone,
}

impl Rules {
    /// Every rule.
    pub const ALL: Rules = Rules {
        conflict_by_content: true,
        later_beginning_wins: true,
        writes_check_token: true,
        intent_keeps_version: false,
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
    /// Hand out the token in memory.
    Access,
    /// Mint a location's token from its company's, without the lock.
    Mint,
    /// Delete a token.
    Delete,
    /// Store the token that a person's consent granted.
    Consent,
    /// Import a saved answer whose age is unknown.
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
    /// A process is killed: its memory is lost and its lock freed. It starts again at once.
    Kill,
    /// An answer does not arrive; the server processed the request or did not.
    LostReply,
    /// The store refuses a save.
    RefusedSave,
    /// The store saves, and its acknowledgement does not arrive.
    LostAck,
    /// The store frees a lock whose holder continues.
    LostLock,
    /// The server calls a refresh token invalid although it would repeat its answer a moment later.
    HastyInvalid,
    /// A gateway answers a mint with an HTML page.
    Page,
    /// The machine loses power: every process ends, and writes without a sync are undone.
    PowerCut,
    /// The database server restarts: locks are lost and writes without a sync are undone, but the processes go on.
    StoreRestart,
    /// A webhook is never delivered.
    LostWebhook,
}

/// One configuration: the initial state, the calls and faults, and their bounds.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub rules: Rules,
    /// How many processes there are.
    pub processes: usize,
    /// How often each kind of call may be made, and on which resource: 0 is the company, 1 the location.
    pub calls: Vec<(Kind, usize, u8)>,
    /// Which faults may happen.
    pub faults: Vec<Fault>,
    /// How many faults may happen in all.
    pub most_faults: u8,
    /// Whether the server repeats its answer for the refresh token that it consumed last, until the window closes.
    pub window: bool,
    /// Whether a new consent revokes the earlier grants of its resource.
    pub consent_revokes: bool,
    /// By how much the wall clock of each process is wrong.
    pub skew: Vec<i8>,
    /// Whether the company and the location have a token at the start.
    pub held: [bool; 2],
    /// The location's record holds the company's refresh token.
    pub mislabelled: bool,
    /// The vendor uninstalls the app from the location and installs it again, each at a time of its own.
    pub reinstalls: bool,
    /// Imports are made with `replace`.
    pub replace: bool,
    /// The saved answer comes from another chain, which this store never saw, and is dead.
    pub foreign_import: bool,
}
