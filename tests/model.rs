//! Explicit-state model checking of the token protocol: all interleavings and faults within the
//! bounds, breadth first. [docs/model.md](../docs/model.md) describes the scope of the model.

#[path = "model/calls.rs"]
mod calls;
#[path = "model/configurations.rs"]
mod configurations;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/protocol.rs"]
mod protocol;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/state.rs"]
mod state;

use std::collections::BTreeSet;
use std::time::Instant;

use configurations as of;
use protocol::Action;
use rules::{Fault, FirstSave, Rules, Scenario};
use state::{Broken, State};
use stateright::{Checker, HasDiscoveries, Model, Path};

/// Explores a configuration completely. Fails with the trace of the first violation.
fn assert_clean(name: &str, scenario: Scenario) {
    let begun = Instant::now();
    let checker = scenario.checker().spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    eprintln!("{name}: {states} states, {depth} steps deep, {:.1?}", begun.elapsed());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name} violates \"{property}\":\n{}", trace(path));
    }
}

/// The steps from the start to a violation, one per line.
fn trace(path: Path<State, Action>) -> String {
    let steps = path.into_actions().into_iter().map(|action| format!("  {action:?}"));
    steps.collect::<Vec<String>>().join("\n")
}

/// Changes the rules of a configuration and expects the violation of a property.
fn assert_violation(scenario: Scenario, change: impl FnOnce(&mut Rules), broken: Broken) {
    let mut scenario = scenario;
    change(&mut scenario.rules);
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([broken.property()]));
    let checker = scenario.checker().finish_when(wanted).spawn_bfs().join();
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    let path = checker.discovery(broken.property());
    let path =
        path.unwrap_or_else(|| panic!("\"{}\" holds; violated: {found:?}", broken.property()));
    eprintln!("\"{}\" is violated:\n{}", broken.property(), trace(path));
}

#[test]
fn refreshes_keep_all_properties_with_and_without_a_replay_window() {
    assert_clean("refresh", of::refresh());
    assert_clean("refresh without a window", of::refresh_without_window());
}

#[test]
fn lost_unsynced_writes_keep_all_properties() {
    assert_clean("unsynced writes", of::unsynced());
}

#[test]
fn deletions_and_new_consents_keep_all_properties() {
    assert_clean("deletion and consent", of::deletion());
    assert_clean("two consents", of::consents());
}

#[test]
fn mints_keep_all_properties() {
    assert_clean("first mint", of::mint());
    assert_clean("location with a token", of::location());
}

#[test]
fn imports_keep_all_properties() {
    assert_clean("import", of::import());
    assert_clean("import with replace", of::import_with_replace());
    assert_clean("import from another chain", of::foreign_import());
}

#[test]
fn responses_for_another_resource_keep_all_properties() {
    assert_clean("mislabelled location", of::mislabelled());
}

#[test]
fn webhooks_in_any_order_keep_all_properties() {
    assert_clean("reinstalled location", of::reinstalled());
    assert_clean("reinstalled and minted location", of::reinstalled_and_minted());
}

#[test]
fn one_of_every_call_keeps_all_properties() {
    assert_clean("one of everything", of::everything());
}

#[test]
fn conflict_resolved_by_wall_clock_overwrites_a_live_token() {
    assert_violation(of::refresh(), |rules| rules.conflict_by_content = false, Broken::Overwritten);
}

#[test]
fn consent_that_yields_to_the_stored_token_is_lost() {
    assert_violation(of::deletion(), |rules| rules.later_beginning_wins = false, Broken::Lost);
}

#[test]
fn response_that_yields_to_an_import_of_unknown_age_is_lost() {
    assert_violation(
        Scenario { most_faults: 2, ..of::foreign_import() },
        |rules| rules.later_beginning_wins = false,
        Broken::Lost,
    );
}

#[test]
fn intent_with_the_next_version_overwrites_a_live_token_after_a_database_restart() {
    let change = |rules: &mut Rules| rules.intent_version_is_unique = false;
    assert_violation(of::unsynced(), change, Broken::Overwritten);
}

/// As in SQLite, whose processes all end in a power cut.
#[test]
fn intents_with_the_next_version_keep_all_properties_in_a_power_cut() {
    let mut scenario = of::unsynced();
    scenario.rules.intent_version_is_unique = false;
    scenario.faults.retain(|fault| *fault != Fault::StoreRestart);
    assert_clean("power cut", scenario);
}

#[test]
fn versions_that_restart_let_an_old_copy_overwrite_a_new_consent() {
    let change = |rules: &mut Rules| rules.versions_continue = false;
    assert_violation(of::deletion(), change, Broken::Overwritten);
}

#[test]
fn unsaved_copy_inserted_after_a_deletion_undoes_the_deletion() {
    assert_violation(of::deletion(), |rules| rules.deleted_copy_dropped = false, Broken::CameBack);
}

#[test]
fn deletion_of_a_missing_row_without_a_tombstone_is_undone_by_a_first_mint() {
    assert_violation(of::mint(), |rules| rules.tombstone_without_row = false, Broken::CameBack);
}

#[test]
fn first_mint_that_ignores_the_tombstone_undoes_a_deletion() {
    assert_violation(of::mint(), |rules| rules.first_save = FirstSave::Unchecked, Broken::CameBack);
}

/// Rereading the tombstone after the save is not enough, because the process can be killed in
/// between.
#[test]
fn first_mint_killed_before_it_rereads_the_tombstone_undoes_a_deletion() {
    assert_violation(
        of::mint(),
        |rules| rules.first_save = FirstSave::ReadsAgain,
        Broken::CameBack,
    );
}

/// It also fails without a kill: another process can read and refresh the row before it is removed.
#[test]
fn first_mint_that_rereads_the_tombstone_after_another_process_used_its_record_undoes_a_deletion() {
    let mut scenario = of::mint();
    scenario.faults.clear();
    assert_violation(scenario, |rules| rules.first_save = FirstSave::ReadsAgain, Broken::CameBack);
}

#[test]
fn deletion_in_two_steps_loses_a_consent_made_between_them() {
    let change = |rules: &mut Rules| rules.atomic_deletion = false;
    assert_violation(of::deletion(), change, Broken::Lost);
}

#[test]
fn import_of_unknown_age_that_replaces_overwrites_a_live_token() {
    assert_violation(
        of::foreign_import(),
        |rules| rules.import_keeps_good = false,
        Broken::Overwritten,
    );
}

#[test]
fn import_without_digests_overwrites_a_live_token_with_a_spent_token() {
    assert_violation(
        of::import_with_replace(),
        |rules| rules.spent_digests = false,
        Broken::Overwritten,
    );
}

#[test]
fn response_filed_under_the_requested_owner_changes_the_owner() {
    assert_violation(of::mislabelled(), |rules| rules.answer_names_owner = false, Broken::Owner);
}

#[test]
fn call_that_only_reads_memory_never_retries_the_unsaved_save() {
    assert_violation(of::refresh(), |rules| rules.calls_offer = false, Broken::NotOffered);
}

#[test]
fn client_closed_without_a_final_save_loses_the_unsaved_copy() {
    assert_violation(of::refresh(), |rules| rules.close_offers = false, Broken::Lost);
}

#[test]
fn uninstall_compared_with_the_last_refresh_leaves_the_token() {
    let change = |rules: &mut Rules| rules.uninstall_by_beginning = false;
    assert_violation(of::reinstalled(), change, Broken::KeptAfterUninstall);
}

#[test]
fn install_that_finds_a_token_keeps_the_token_of_the_earlier_installation() {
    assert_violation(of::reinstalled(), |rules| rules.install_mints = false, Broken::MissedInstall);
}

#[test]
fn installation_start_from_the_local_clock_leaves_the_token_after_uninstall() {
    let change = |rules: &mut Rules| rules.vendor_time = false;
    assert_violation(of::reinstalled_and_minted(), change, Broken::KeptAfterUninstall);
}

#[test]
fn install_cleared_before_its_token_is_stored_is_missed() {
    let change = |rules: &mut Rules| rules.dropped_mint_stays_due = false;
    let scenario = Scenario { most_faults: 2, ..of::reinstalled() };
    assert_violation(scenario, change, Broken::MissedInstall);
}

#[test]
fn uninstall_that_removes_any_stored_token_ends_a_later_installation() {
    let change = |rules: &mut Rules| rules.conditional_removal = false;
    assert_violation(of::reinstalled(), change, Broken::EndedByOldUninstall);
}

#[test]
fn gateway_page_taken_as_a_refusal_ends_a_usable_connection() {
    assert_violation(of::location(), |rules| rules.only_api_words = false, Broken::HastyVerdict);
}

#[test]
fn refresh_without_an_intent_accepts_a_single_refusal_after_a_kill() {
    let change = |rules: &mut Rules| {
        rules.two_refusals = false;
        rules.intent = false;
    };
    let scenario = Scenario { faults: vec![Fault::Kill, Fault::HastyInvalid], ..of::refresh() };
    assert_violation(scenario, change, Broken::HastyVerdict);
}

/// The decision is equally safe without the intent, which is not synced.
#[test]
fn refreshes_without_an_intent_keep_all_properties_after_two_refusals() {
    for (name, mut scenario) in [("refresh", of::refresh()), ("unsynced writes", of::unsynced())] {
        scenario.rules.intent = false;
        assert_clean(&format!("{name} without an intent"), scenario);
    }
}

/// The intent is not synced: a restart of the database loses it while the other processes continue.
#[test]
fn single_refusal_accepted_after_a_database_restart_ends_a_usable_connection() {
    assert_violation(of::unsynced(), |rules| rules.two_refusals = false, Broken::HastyVerdict);
}

#[test]
fn uninstall_that_compares_a_stale_unsaved_copy_ends_a_later_installation() {
    let change = |rules: &mut Rules| rules.uninstall_compares_each = false;
    let scenario = Scenario { most_faults: 2, ..of::reinstalled() };
    assert_violation(scenario, change, Broken::EndedByOldUninstall);
}

#[test]
fn refresh_without_the_lock_runs_twice_concurrently() {
    let mut scenario = of::refresh();
    scenario.faults.retain(|fault| *fault != Fault::LostLock);
    assert_violation(scenario, |rules| rules.lock = false, Broken::TwoRefreshes);
}
