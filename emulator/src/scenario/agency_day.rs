//! The `agency-day` scenario: selects the locations and times of its events from the seed.

use crate::fault::{Endpoint, FaultKind, GrantType, Rule, Stage};
use crate::refusal::Refusal;
use crate::scenario_run::{DAY_MS, Event, HOUR_MS, MINUTE_MS, Run};
use crate::state::State;
use std::time::Duration;

/// Percentage of the agency's locations for each kind of event; at least one location each.
const UNINSTALLED: usize = 3;
const BACK_AFTER_HOURS: usize = 2;
const REINSTALLED_WITHIN_SECONDS: usize = 5;
const PAUSED_FOR_HOURS: usize = 8;
const PAUSED_TO_THE_END: usize = 2;
const MOVED: usize = 2;
const REFUSED_FOR_AN_HOUR: usize = 1;
const OPENED: usize = 6;

pub(super) fn plan(run: &mut Run, state: &State, began_ms: i64) {
    let agency = &state.directory.companies[0].id;
    let mut candidates: Vec<String> = state
        .directory
        .locations_of(agency)
        .filter(|location| location.installed_at_ms.is_some())
        .map(|location| location.id.clone())
        .collect();
    let count =
        |per_cent: usize| (state.directory.locations_of(agency).count() * per_cent / 100).max(1);
    // At most one kind of event per location, so that its state at the end of the day is clear.
    let mut draw = |run: &mut Run, per_cent: usize| -> Vec<String> {
        (0..count(per_cent))
            .map_while(|_| {
                let left = i64::try_from(candidates.len()).unwrap_or(0);
                let index = usize::try_from(run.below(left)).unwrap_or(0);
                (index < candidates.len()).then(|| candidates.swap_remove(index))
            })
            .collect()
    };
    // Between half an hour after the start and three hours before the end.
    let moment = |run: &mut Run| {
        began_ms + 30 * MINUTE_MS + run.below(DAY_MS - 3 * HOUR_MS - 30 * MINUTE_MS)
    };

    for _ in 0..count(OPENED) {
        let at_ms = moment(run);
        run.schedule(at_ms, Event::Open);
    }
    for id in draw(run, UNINSTALLED) {
        let at_ms = moment(run);
        run.schedule(at_ms, Event::Uninstall(id));
    }
    for id in draw(run, BACK_AFTER_HOURS) {
        let at_ms = began_ms + HOUR_MS + run.below(12 * HOUR_MS);
        let back_ms = at_ms + HOUR_MS + run.below(8 * HOUR_MS);
        run.schedule(at_ms, Event::Uninstall(id.clone()));
        run.schedule(back_ms, Event::Install(id));
    }
    for location_id in draw(run, REINSTALLED_WITHIN_SECONDS) {
        let at_ms = moment(run);
        let after = Duration::from_secs(u64::try_from(1 + run.below(9)).unwrap_or(1));
        run.schedule(at_ms, Event::Reinstall { location_id, after });
    }
    for id in draw(run, PAUSED_FOR_HOURS) {
        let at_ms = began_ms + HOUR_MS + run.below(12 * HOUR_MS);
        let resumed_ms = at_ms + HOUR_MS + run.below(8 * HOUR_MS);
        run.schedule(at_ms, Event::Pause(id.clone()));
        run.schedule(resumed_ms, Event::Resume(id));
    }
    for id in draw(run, PAUSED_TO_THE_END) {
        let at_ms = moment(run);
        run.schedule(at_ms, Event::Pause(id));
    }
    let moved = draw(run, MOVED);
    if let Some(other) = state.directory.companies.get(1) {
        for location_id in moved {
            let at_ms = moment(run);
            run.schedule(at_ms, Event::Move { location_id, company_id: other.id.clone() });
        }
    }
    let refused = draw(run, REFUSED_FOR_AN_HOUR);
    let misfiled = draw(run, REFUSED_FOR_AN_HOUR);
    faults(run, began_ms, &refused, &misfiled);
    run.schedule(quota_spent_at(began_ms), Event::SpendQuota);
    // After the last event and its deliveries.
    run.schedule(began_ms + DAY_MS + 4 * HOUR_MS, Event::End);
}

/// Two hours before midnight (UTC), when the quota resets, and at least two hours after the start.
fn quota_spent_at(began_ms: i64) -> i64 {
    let midnight_ms = began_ms - began_ms.rem_euclid(DAY_MS) + DAY_MS;
    let spent_ms = midnight_ms - 2 * HOUR_MS;
    if spent_ms < began_ms + 2 * HOUR_MS { spent_ms + DAY_MS } else { spent_ms }
}

/// The transient faults: each is removed after a while.
fn faults(run: &mut Run, began_ms: i64, refused: &[String], misfiled: &[String]) {
    let timed_out = |stage| FaultKind::CommandTimedOut { stage, as_object: false };
    let refreshes = Rule::on(Endpoint::Token).grant_type(GrantType::RefreshToken);
    let unavailable = FaultKind::UnavailablePage { stage: Stage::AfterProcessing };
    let mut windows = vec![
        // Start in hours, duration in minutes, the rule, and the fault.
        (1, 20, Rule::default().probability(0.2), timed_out(Stage::BeforeProcessing)),
        (4, 30, Rule::on(Endpoint::LocationToken).in_flight(4), timed_out(Stage::AfterProcessing)),
        (6, 60, refreshes.clone().times(2), unavailable),
        (9, 20, Rule::default().probability(0.1), FaultKind::ReplyLost),
        (
            14,
            30,
            Rule::default().probability(0.1),
            FaultKind::CommandTimedOut { stage: Stage::AfterProcessing, as_object: true },
        ),
    ];
    for (index, id) in refused.iter().enumerate() {
        let refusal =
            if index % 2 == 0 { Refusal::LocationInaccessible } else { Refusal::LocationForbidden };
        windows.push((11, 60, Rule::default().resource(id), FaultKind::Refusal { refusal }));
    }
    for id in misfiled {
        let rule = refreshes.clone().resource(id).times(1);
        windows.push((12, 10 * 60, rule, FaultKind::OtherOwner { owner_id: None }));
    }
    for (hours, minutes, rule, kind) in windows {
        let at_ms = began_ms + hours * HOUR_MS + run.below(HOUR_MS);
        let until_ms = at_ms + minutes * MINUTE_MS;
        run.schedule(at_ms, Event::FaultBegins { rule, kind, until_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_spent_before_midnight_within_the_day() {
        for hour in 0..24 {
            let began_ms = 20_000 * DAY_MS + hour * HOUR_MS;
            let spent_ms = quota_spent_at(began_ms);
            assert_eq!(spent_ms.rem_euclid(DAY_MS), 22 * HOUR_MS);
            assert!(
                (began_ms + 2 * HOUR_MS..began_ms + 26 * HOUR_MS).contains(&spent_ms),
                "{hour}"
            );
        }
    }
}
