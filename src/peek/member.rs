//! Patterns of host names that have a number: `broker-{n}.k.example`.

use std::fmt;

use super::NamePattern;

/// A host name with a number in it, by which it names a member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPattern {
    /// What stands before the number and behind it, as [`Name`](super::Name) writes it.
    around: [String; 2],
}

impl MemberPattern {
    /// Reads a host name with `{n}` once; `None`: it is no such name.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(MARK)?;
        let Ok(NamePattern::Exact(name)) = format!("{before}0{after}").parse() else {
            return None;
        };
        let is_whole = !before.contains(BRACES) && !after.contains(BRACES);
        let (before, after) = name.split_at_checked(before.len())?;
        is_whole.then(|| Self {
            around: [before, after.get(1..).unwrap_or_default()].map(str::to_owned),
        })
    }

    /// The number in a name, which is as [`Name`](super::Name) writes it; `None`: it is another
    /// name. A number above 0 begins with no 0, so that each has one name.
    #[must_use]
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        let [before, after] = self.around.each_ref().map(|text| text.as_bytes());
        let digits = name.strip_prefix(before)?.strip_suffix(after)?;
        let has_one_form = match digits {
            [b'0'] => true,
            [first, rest @ ..] => {
                (b'1'..=b'9').contains(first) && rest.iter().all(u8::is_ascii_digit)
            }
            [] => false,
        };
        let digits = std::str::from_utf8(digits).ok().filter(|_| has_one_form)?;
        let number = digits.parse().ok()?;
        (number <= MEMBER_MAX).then_some(number)
    }
}

impl fmt::Display for MemberPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.around;
        write!(f, "{before}{MARK}{after}")
    }
}

/// Stands for the number.
const MARK: &str = "{n}";
const BRACES: [char; 2] = ['{', '}'];
/// The highest number of a member, as Kafka's `broker.id`.
pub const MEMBER_MAX: u32 = i32::MAX.unsigned_abs();

#[cfg(test)]
mod tests {
    use super::*;

    fn number(pattern: &str, name: &str) -> Option<u32> {
        MemberPattern::read(pattern)
            .unwrap()
            .number(name.as_bytes())
    }

    #[test]
    fn each_number_has_one_name() {
        let pattern = "broker-{n}.k.example";
        for (name, expected) in [
            ("broker-0.k.example", Some(0)),
            ("broker-7.k.example", Some(7)),
            ("broker-1001.k.example", Some(1_001)),
            ("broker-2147483647.k.example", Some(MEMBER_MAX)),
            ("broker-2147483648.k.example", None),
            ("broker-99999999999999999999.k.example", None),
            ("broker-00.k.example", None),
            ("broker-07.k.example", None),
            ("broker-+7.k.example", None),
            ("broker--7.k.example", None),
            ("broker-7a.k.example", None),
            ("broker-.k.example", None),
            ("broker-7.k.example.net", None),
            ("a.broker-7.k.example", None),
            ("broker.k.example", None),
            ("bootstrap.k.example", None),
            ("", None),
        ] {
            assert_eq!(number(pattern, name), expected, "{name}");
        }
        assert_eq!(number("{n}", "12"), Some(12));
        assert_eq!(number("k-1{n}1", "k-121"), Some(2));
        // What stands around the number does not overlap.
        assert_eq!(number("k-1{n}1", "k-1"), None);
    }

    #[test]
    fn a_pattern_is_read_as_names_are_compared() {
        for (text, written) in [
            ("Broker-{n}.K.Example.", "broker-{n}.k.example"),
            ("{n}.k.example", "{n}.k.example"),
            ("k{n}", "k{n}"),
            ("k{n}.", "k{n}"),
        ] {
            let pattern = MemberPattern::read(text).unwrap();
            assert_eq!(pattern.to_string(), written);
            assert_eq!(MemberPattern::read(written), Some(pattern));
        }
        for text in [
            "",
            "broker.k.example",
            "broker-{n}.{n}.example",
            "broker-{N}.example",
            "broker-{n}.k.example:9092",
            "*.{n}.example",
            "a-{n}.*.example",
            "a..{n}",
            "a-{n}..b",
            "a {n}",
            "bücher-{n}",
            "{{n}}",
        ] {
            assert_eq!(MemberPattern::read(text), None, "{text}");
        }
    }
}
