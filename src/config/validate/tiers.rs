//! The strategy `two_tier` and the groups that it picks from.

use std::collections::HashMap;

use super::pool::Member;
use super::strategy::Told;
use crate::config::judge::{Judge, number, text};
use crate::config::raw::{RawGroup, RawStrategy, Scalar, Short};
use crate::config::spans::Node;
use crate::config::values;
use crate::config::{FirstTier, Group, LeastTime, SecondTier, TwoTier};

/// How a strategy was written.
type Written<'a> = (&'a RawStrategy, &'a Node);

impl<'a> Judge<'a> {
    pub(super) fn tiers(
        &mut self,
        (raw, at): Written<'a>,
        told: Told,
        members: Option<&[Member<'a>]>,
    ) -> TwoTier {
        let some_named = members.is_some_and(|all| all.iter().any(Member::names_a_group));
        let is_grouped = raw.groups.is_some() || some_named;
        let groups = self.groups((raw, at), members);
        let first = match told.first.unwrap_or_default() {
            FirstTier::Hash { key, subset } => {
                if is_grouped && raw.subset.is_set() {
                    let sentence = "subset: the key picks one of the groups: leave `subset` out";
                    self.mistake(&at.field("subset").span, sentence.to_owned());
                }
                FirstTier::Hash {
                    key: told.key.unwrap_or(key),
                    subset: told.subset.unwrap_or(subset),
                }
            }
            first @ (FirstTier::Weight | FirstTier::Priority) => {
                for setting in [("key", &raw.key), ("subset", &raw.subset)] {
                    self.only_of("hash", ("first tier", first.name()), setting, at);
                }
                if !is_grouped && members.is_some() {
                    let sentence = format!(
                        "first: `{}` picks a group: say with each backend which it is in, \
                         such as group: \"a\"",
                        first.name()
                    );
                    self.mistake(&at.field("first").span, sentence);
                }
                first
            }
        };
        let then = match told.then.unwrap_or_default() {
            SecondTier::LeastTime(default) => SecondTier::LeastTime(LeastTime {
                decay: told.decay.unwrap_or(default.decay),
            }),
            then @ (SecondTier::LeastConnections | SecondTier::PowerOfTwo) => {
                let tier = ("second tier", then.name());
                self.only_of("least_time", tier, ("decay", &raw.decay), at);
                then
            }
        };
        TwoTier {
            first,
            then,
            groups,
        }
    }

    /// Refuses a setting that the tier does not have.
    fn only_of(
        &mut self,
        owner: &str,
        tier: (&'static str, &'static str),
        (setting, raw): (&str, &Scalar),
        at: &Node,
    ) {
        if raw.is_set() {
            let error = values::not_its_setting(tier, &[owner]);
            self.mistake(&at.field(setting).span, format!("{setting}: {error}"));
        }
    }

    /// The groups as they were written, or else as the backends name them. Where there are none
    /// whose names are known, a weight that is not written is 0.
    fn groups(&mut self, (raw, at): Written<'a>, members: Option<&[Member<'a>]>) -> Vec<Group> {
        let of_pool = members.is_some();
        let members = members.unwrap_or_default();
        if members.iter().any(Member::names_a_group) {
            for member in members.iter().filter(|member| !member.names_a_group()) {
                let sentence = "the field `group` is missing here: other backends of the pool \
                                have one";
                self.mistake(&member.at.start(), sentence.to_owned());
            }
        }
        let named = Group::of(members.iter().map(|member| &member.backend));
        let Some(raw) = &raw.groups else {
            return named;
        };
        let at = at.field("groups");
        if raw.is_empty() {
            self.mistake(&at.start(), "groups: at least one is wanted".to_owned());
        }
        let mut seen = HashMap::new();
        let mut groups = Vec::with_capacity(raw.len());
        for (i, Short(raw)) in raw.iter().enumerate() {
            let named = of_pool.then_some(&*named);
            if let Some(group) = self.group(raw, at.item(i), named) {
                let name = ("two groups of the pool are called", group.name.clone());
                self.unique(&mut seen, name, &at.item(i).field("name").span);
                groups.push(group);
            }
        }
        // Of a group whose name was refused, no backend can be blamed.
        if of_pool && groups.len() == raw.len() && !raw.is_empty() {
            self.groups_match(&groups, at, members);
        }
        groups
    }

    fn group(&mut self, raw: &'a RawGroup, at: &'a Node, named: Option<&[Group]>) -> Option<Group> {
        let name = self.leaf(&raw.name, at, "name");
        let weight = self.leaf(&raw.weight, at, "weight");
        let name = self.require(&name, |leaf| values::name(text(leaf)?));
        let weight = self.read(&weight, number(values::GROUP_WEIGHT));
        let name = name?;
        let of_backends = || {
            let Some(named) = named else { return 0 };
            let found = named.iter().find(|group| group.name == name);
            found.map_or(1, |group| group.weight)
        };
        Some(Group {
            weight: weight.unwrap_or_else(of_backends),
            name,
        })
    }

    /// Refuses backends in other groups than these, and groups without a backend.
    fn groups_match(&mut self, groups: &[Group], at: &Node, members: &[Member<'a>]) {
        let mut is_strange = false;
        for member in members {
            let Some(name) = &member.backend.group else {
                // Refused, or missing and reported.
                is_strange |= member.names_a_group();
                continue;
            };
            if groups.iter().all(|group| group.name != *name) {
                let known = groups.iter().map(|group| group.name.as_str());
                let hint = values::did_you_mean(name, known);
                let sentence = format!("group: there is no group called `{name}`{hint}");
                self.mistake(&member.at.field("group").span, sentence);
                is_strange = true;
            }
        }
        // A group may be empty for a slip in a backend's.
        if is_strange {
            return;
        }
        for (i, group) in groups.iter().enumerate() {
            let is_in = |member: &Member<'_>| member.backend.group.as_ref() == Some(&group.name);
            if !members.iter().any(is_in) {
                let sentence = format!("groups: no backend is in the group `{}`", group.name);
                self.mistake(&at.item(i).field("name").span, sentence);
            }
        }
    }
}

impl Member<'_> {
    fn names_a_group(&self) -> bool {
        self.raw.group.is_set()
    }
}
