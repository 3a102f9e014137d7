//! What goes wrong with limits of the fleet, in a few sentences, however many balancers and limits.

use crate::control::remote::Mistakes;
use crate::fleet_shares::{FleetMember, MEMBERS_MAX};

/// What goes wrong, a sentence each. Limits are names and how much they are here; `error` is why a
/// request fails.
pub(super) fn problems(
    member: &FleetMember,
    limits: &[(&str, u32)],
    error: Option<&str>,
    now: u64,
) -> Vec<String> {
    let mut problems = Vec::new();
    let (name, _) = member.identity();
    if member.has_rival() {
        problems.push(format!(
            "another balancer is called `{name}`, or an earlier process of this one whose lease \
             lasts: no share before that ends; balancers need names of their own (`fleet.name`)"
        ));
    } else if !member.has_lease(now) {
        let why = error.unwrap_or("no lease yet");
        problems.push(format!(
            "no lease, so that each is no more than its base here: {why}"
        ));
    } else if let Some(why) = error {
        problems.push(format!(
            "shares do not follow what is needed, and what has none stays without: {why}"
        ));
    } else if member.is_left_out() {
        problems.push(format!(
            "the ledger has {MEMBERS_MAX} balancers: no share here before one is left out; take \
             those out of it that do not come back"
        ));
    }
    if member.is_held_back(now) {
        problems.push("the ledger was lost: no share grows before all balancers know".to_owned());
    }
    problems.extend(gone(member));
    problems.extend(without_part(member, limits));
    problems.extend(different(member, limits));
    let of_limits = problems.into_iter();
    let of_limits = of_limits.map(|its| format!("limits of the fleet: {its}"));
    of_limits.collect()
}

fn gone(member: &FleetMember) -> Option<String> {
    let all: Vec<&str> = member.gone().collect();
    let names = match &*all {
        [] => return None,
        [one] => format!("`{one}` has"),
        [one, other] => format!("`{one}` and `{other}` have"),
        [one, other, rest @ ..] => format!("`{one}`, `{other}` and {} more have", rest.len()),
    };
    let bases = match &*all {
        [_] => "its bases",
        _ => "their bases",
    };
    Some(format!(
        "{names} no lease: {bases} stay reserved for an hour"
    ))
}

fn without_part(member: &FleetMember, limits: &[(&str, u32)]) -> Option<String> {
    let mut found = Mistakes::default();
    for (limit, whole) in limits {
        let shares = member.ledger().members.values();
        let count = shares.filter(|its| its.contains_key(*limit)).count();
        if usize::try_from(*whole).is_ok_and(|whole| whole < count) {
            found.add(|| {
                format!(
                    "`{limit}` is {whole}, and there are {count} balancers: not each has a part"
                )
            });
        }
    }
    found.sentence()
}

fn different(member: &FleetMember, limits: &[(&str, u32)]) -> Option<String> {
    let mut found = Mistakes::default();
    for (limit, whole) in limits {
        let (me, _) = member.identity();
        let members = member
            .ledger()
            .members
            .iter()
            .filter(|(name, _)| *name != me);
        let mut theirs = members.filter_map(|(name, its)| Some((name, its.get(*limit)?.limit)));
        if let Some((other, theirs)) = theirs.find(|(_, theirs)| theirs != whole) {
            found.add(|| {
                format!("`{limit}` is {whole} here, and {theirs} at `{other}`: the lower one holds")
            });
        }
    }
    found.sentence()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fleet_shares::{Answer, Ask, FleetShare, Ledger, LedgerView};
    use crate::time::SECOND;

    fn share(limit: u32) -> FleetShare {
        FleetShare {
            limit,
            ..FleetShare::default()
        }
    }

    /// A balancer with a lease, and a ledger of some that have none.
    fn member(gone: usize, limits: &[&str]) -> FleetMember {
        let mut member = FleetMember::new("lb", "me", SECOND);
        let shares: BTreeMap<_, _> = limits
            .iter()
            .map(|its| ((*its).to_owned(), share(9)))
            .collect();
        let members = (0..gone).map(|number| (format!("pod-{number}"), shares.clone()));
        let view = LedgerView {
            revision: 3,
            ledger: Ledger {
                members: members.collect(),
            },
            instances: [("lb".to_owned(), "me".to_owned())].into(),
        };
        for (ask, answer) in [
            (Ask::Grant, Answer::Granted(7, 100 * SECOND)),
            (Ask::Register(7), Answer::Registered(None)),
            (Ask::Read, Answer::Read(view)),
        ] {
            member.answered(ask, answer, SECOND, SECOND);
        }
        member
    }

    fn told(member: &FleetMember, limits: &[(&str, u32)], error: Option<&str>) -> Vec<String> {
        let told = problems(member, limits, error, 2 * SECOND).into_iter();
        told.map(|its| its.replace("limits of the fleet: ", ""))
            .collect()
    }

    #[test]
    fn balancers_that_are_gone_are_one_sentence() {
        let of = |count| told(&member(count, &[]), &[], None).join("|");
        assert_eq!(of(0), "");
        assert_eq!(
            of(1),
            "`pod-0` has no lease: its bases stay reserved for an hour"
        );
        assert_eq!(
            of(200),
            "`pod-0`, `pod-1` and 198 more have no lease: their bases stay reserved for an hour"
        );
    }

    #[test]
    fn limits_that_differ_are_one_sentence() {
        let member = member(20, &["a", "b"]);
        assert_eq!(
            told(&member, &[("a", 8), ("b", 7)], None)[1..],
            [
                "`a` is 8, and there are 20 balancers: not each has a part; and 1 mistake more",
                "`a` is 8 here, and 9 at `pod-0`: the lower one holds; and 1 mistake more",
            ]
        );
    }

    #[test]
    fn a_failure_is_told_while_the_lease_lasts_too() {
        let told = told(&member(0, &[]), &[], Some("it is full"));
        let [told] = &*told else { panic!() };
        assert!(told.starts_with("shares do not follow") && told.ends_with("it is full"));
    }

    #[test]
    fn its_own_earlier_limit_is_no_difference() {
        let mut member = member(0, &[]);
        let mut view = LedgerView {
            revision: 4,
            instances: [("lb".to_owned(), "me".to_owned())].into(),
            ..LedgerView::default()
        };
        let own = [("a".to_owned(), share(9))].into();
        view.ledger.members.insert("lb".to_owned(), own);
        member.answered(Ask::Read, Answer::Read(view), SECOND, SECOND);
        assert_eq!(told(&member, &[("a", 3)], None), [""; 0]);
    }

    #[test]
    fn a_full_ledger_is_told() {
        let told = told(&member(255, &[]), &[], None);
        assert!(
            told[0].starts_with("the ledger has 255 balancers"),
            "{told:?}"
        );
    }
}
