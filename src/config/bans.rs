//! The ban table, and what a request to ban a client says.

use std::path::PathBuf;
use std::time::Duration;

use super::SourceLimits;
use super::access_list::prefix;
use super::codec::{duration, named, number, path, required, spelled, telling, truth};
use super::reader::{At, Reader};
use super::table::{Shape, defaults, settings};
use super::values;
use crate::guard::{Action, BanRule};
use crate::prefix::Prefix;
use crate::time::nanos;

settings! {
    /// The table of banned clients.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BanTable: Shape {
        /// The most bans at a time, each of an address or a prefix.
        pub max: u32 = 100_000 => number(1..=1_000_000);
        /// The file that keeps bans for the next run. It is read at a start, and written after
        /// changes. Off: bans end with the process.
        pub file: Option<PathBuf> = None => path().or("off");
        /// A file with more bans, one on each line: a prefix, and the reason as its comment. They
        /// come and go with its lines: it is read again when it changes.
        pub import: Option<PathBuf> = None => path().or("off");
        /// What is done with banned clients that connect: "reset", "drop" without a word, or
        /// "tarpit", which lets them wait. Their open sessions are reset in any case.
        pub action: Action = Action::Reset => named("action", &Action::ALL);
    }
}

impl Shape for BanTable {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if self.import.is_some() && self.import == self.file {
            let why = "expected another file than `file`, which the balancer writes";
            reader.wrong(at, "import", why);
        }
    }
}

settings! {
    /// When a source of a listener is banned: it was refused too often by its access list or by
    /// `source_limits`, or its first bytes did not come in time.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BanAfter {
        /// How many offences ban a source.
        pub after: u32 = 10 => telling(number(values::OFFENCES));
        /// How long an offence counts: those within this time of the first count together.
        pub within: Duration = Duration::from_secs(10) => telling(duration(values::BAN));
        /// How long the first ban lasts. Each further one lasts twice as long as the one before.
        pub r#for: Duration = Duration::from_secs(60) => telling(duration(values::BAN));
        /// The longest ban. A source whose last ban ended this long ago begins again with the
        /// first.
        pub up_to: Duration = Duration::from_secs(3_600) => duration(values::BAN);
        /// Whether sources that would be banned are only counted and reported.
        pub dry_run: bool = false => truth();
    }
}

impl BanAfter {
    /// What workers apply. A source is what it is for the limits of sources.
    #[must_use]
    pub fn rule(&self, limits: &SourceLimits) -> BanRule {
        BanRule {
            after: self.after,
            within: nanos(self.within),
            time: nanos(self.r#for),
            up_to: nanos(self.up_to),
            prefix_v4: limits.prefix_v4,
            prefix_v6: limits.prefix_v6,
            dry_run: self.dry_run,
        }
    }
}

settings! {
    /// A ban by an operator.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct NewBan {
        /// The address or the prefix whose clients are refused.
        pub prefix: Option<Prefix> = None => required(prefix().given());
        /// How long the ban lasts. Forever: until it is lifted.
        pub r#for: Option<Duration> = None => duration(values::BAN).or("forever");
        /// The reason of the ban, in up to 200 characters. It is shown with the ban.
        pub reason: Option<String> = None => reason().given();
        /// Whether to ban a prefix shorter than /8 of IPv4, or than /19 of IPv6.
        pub force: bool = false => truth();
    }
}

defaults!(BanAfter, BanTable, NewBan);

fn reason() -> super::codec::Leaf<String> {
    spelled(
        values::REASON,
        |text| values::reason(text).ok(),
        String::clone,
    )
}

impl NewBan {
    /// Why it needs `force`, if it does.
    #[must_use]
    pub fn too_wide(&self) -> Option<String> {
        let prefix = self.prefix.filter(|_| !self.force)?;
        let shortest = shortest_ban(prefix);
        (prefix.length() < shortest).then(|| {
            format!(
                "invalid prefix `{prefix}`: expected /{shortest} or longer, as it bans a large \
                 part of the internet; `--force` (`force` in JSON) bans it all the same"
            )
        })
    }
}

/// The length from which on a prefix of this kind is banned without force.
#[must_use]
pub fn shortest_ban(prefix: Prefix) -> u8 {
    match prefix.ip().is_ipv4() {
        true => WIDEST_V4,
        false => WIDEST_V6,
    }
}

pub(super) const BAN_AFTER: &str =
    "\"off\" or a group such as (after: 10, within: \"10s\", for: \"1m\")";
/// The shortest prefixes that need no force.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_prefixes_need_force() {
        let too_wide = |text: &str, force| {
            let prefix = Some(text.parse().unwrap());
            let ban = NewBan {
                prefix,
                force,
                ..NewBan::default()
            };
            ban.too_wide().is_some()
        };
        for (wide, narrow) in [("10.0.0.0/7", "10.0.0.0/8"), ("2000::/18", "2000::/19")] {
            assert!(too_wide(wide, false) && !too_wide(wide, true), "{wide}");
            assert!(!too_wide(narrow, false), "{narrow}");
        }
    }
}
