//! The files of access lists: one prefix on each line.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use crate::config::{Config, values};
use crate::control::StartError;
use crate::control::list_files::{self, ListFile};
use crate::guard::{self, Access, Prefixes};
use crate::prefix::Prefix;

/// A file that was read, and what was seen of it before.
pub(in crate::control) type PrefixesRead = list_files::FileRead<Prefixes>;

/// Files that are followed.
pub(in crate::control) type KnownPrefixes = list_files::Known<Prefixes>;

/// Reads the files of a configuration that are not known, or have changed. May take long.
///
/// # Errors
/// [`StartError::AccessList`]
pub(in crate::control) fn read_files(
    config: &Config,
    known: &KnownPrefixes,
) -> Result<Vec<PrefixesRead>, StartError> {
    list_files::read_all::<PrefixFile>(files(config), known).map_err(StartError::AccessList)
}

/// What is wrong with each of the files of a configuration. May take long.
pub(in crate::control) fn mistakes(config: &Config) -> impl Iterator<Item = StartError> {
    let mistakes = files(config).into_iter().filter_map(|file| {
        let read = list_files::read_all::<PrefixFile>([file], &KnownPrefixes::new());
        read.err()
    });
    mistakes.map(StartError::AccessList)
}

fn files(config: &Config) -> BTreeSet<&PathBuf> {
    let lists = config.access_lists.iter();
    lists.filter_map(|list| list.file.as_ref()).collect()
}

/// The prefixes of an access list's file. May take long: 64 MiB at most.
///
/// # Errors
/// The first mistake, with its line.
pub fn read_access_list(text: impl io::Read) -> Result<Prefixes, String> {
    list_files::parse_text::<PrefixFile>(text)
}

/// The prefixes of the lines that were read.
#[derive(Default)]
pub(super) struct PrefixFile(Vec<(Prefix, Access)>);

impl ListFile for PrefixFile {
    type List = Prefixes;
    /// Room for a million long lines.
    const BYTES_MAX: u64 = 64 << 20;
    /// A file that has no lines is not a list.
    const LINE_MAX: u64 = 256;
    const COMMENTS: &[u8] = b"#;";

    fn take(&mut self, line: &str, _comment: &[u8]) -> Result<(), String> {
        let (access, prefix) = match line.split_once(char::is_whitespace) {
            Some(("allow", prefix)) => (Access::Allow, prefix.trim_start()),
            Some(("deny", prefix)) => (Access::Deny, prefix.trim_start()),
            _ => (Access::Deny, line),
        };
        let prefix_of = values::prefix(prefix).map_err(|error| error.about("prefix", prefix));
        self.0.push((prefix_of?, access));
        if self.0.len() > PREFIXES_MAX {
            return Err(format!("expected at most {PREFIXES_MAX} prefixes"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Prefixes, String> {
        let clash = |guard::Clash(prefix)| format!("{prefix} is allowed and denied");
        Prefixes::new(self.0).map_err(clash)
    }

    /// A file that suddenly has no prefix was most likely truncated.
    fn may_replace(list: &Prefixes, before: &Prefixes) -> Result<(), String> {
        if list.is_empty() && !before.is_empty() {
            return Err(format!(
                "expected at least one prefix, as it had {}: if that is meant, take `file` out of \
                 the list",
                before.len()
            ));
        }
        Ok(())
    }
}

/// Prefixes of a file.
const PREFIXES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::net::{IpAddr, Ipv6Addr};
    use std::sync::Arc;

    use super::read_access_list as parse;
    use super::*;
    use crate::guard::AccessFilter;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn lines_comments_and_blanks() {
        let text = "\u{feff}# from a feed\n\n192.0.2.0/24 ; SBL1\r\nallow  192.0.2.7 # ours\n\
                    deny 2001:db8::/32\n192.0.2.0/24\n";
        let table = parse(text.as_bytes()).unwrap();
        assert_eq!(table.len(), 3);
        assert!(parse(&b""[..]).unwrap().is_empty());
        assert_eq!(parse(&b"allow 10.0.0.0/8"[..]).unwrap().len(), 1);
        // Comments may have other encodings, and be long.
        let text = [&b"10.0.0.0/8 ; \xe9"[..], &b"x".repeat(1000), b"\n::1\n"].concat();
        assert_eq!(parse(&*text).unwrap().len(), 2);
    }

    /// Lists with lines of all kinds, against a search of the longest prefix one by one.
    #[test]
    fn a_list_says_what_its_lines_say() {
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..100 {
            let mut known: BTreeMap<Prefix, Access> = BTreeMap::new();
            let mut text = String::new();
            let ip = |rng: &mut fastrand::Rng| -> IpAddr {
                let low = rng.u8(..16);
                match rng.u8(..3) {
                    0 => [10, 0, rng.u8(..2), low].into(),
                    1 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low.into()).into(),
                    _ => Ipv6Addr::new(0x2001, 0xdb8, 0, low.into(), 0, 0, 0, 1).into(),
                }
            };
            for _ in 0..rng.usize(..60) {
                let ip = ip(&mut rng);
                let whole = if ip.is_ipv4() { 32 } else { 128 };
                let length = if rng.bool() {
                    whole
                } else {
                    rng.u8(20..=whole)
                };
                let prefix = Prefix::new(ip, length).unwrap();
                let any = Access::ALL[rng.usize(..2)].1;
                let access = *known.entry(prefix).or_insert(any);
                let word = match access {
                    Access::Allow => "allow ",
                    Access::Deny if rng.bool() => "deny\t",
                    Access::Deny => "",
                };
                let line = ["", " ", "# 10.0.0.0/8 allow\n", "\n; x\n"][rng.usize(..4)];
                let end = ["\n", "\r\n", " # allow\n", ";\n"][rng.usize(..4)];
                text += &format!("{line}{word}{prefix}{end}");
            }
            let table = Arc::new(parse(text.as_bytes()).unwrap());
            assert_eq!(table.len(), known.len());
            let list = AccessFilter::new("a".into(), Arc::default(), Some(table), Access::Allow);
            for _ in 0..200 {
                let ip = ip(&mut rng);
                let within = known.iter().filter(|(prefix, _)| prefix.contains(ip));
                let longest = within.max_by_key(|(prefix, _)| prefix.length());
                let verdict = list.decide(ip);
                assert_eq!(verdict.prefix, longest.map(|its| *its.0), "{ip} in {round}");
                let access = longest.map_or(Access::Allow, |its| *its.1);
                assert_eq!(verdict.access, access, "{ip} in {round}");
            }
        }
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        assert_eq!(
            error("10.0.0.0/8\nwhat is this?\n"),
            "line 2: invalid prefix `what is this?`: expected an IP address or a prefix, such as \
             \"10.0.0.0/8\" or \"2001:db8::/32\""
        );
        assert_eq!(
            error("permit 10.0.0.0/8"),
            "line 1: invalid prefix `permit 10.0.0.0/8`: expected an IP address or a prefix, such \
             as \"10.0.0.0/8\" or \"2001:db8::/32\""
        );
        let beyond = error("allow 10.1.0.0/8");
        assert!(
            beyond.ends_with("the address has bits beyond the /8: write `10.0.0.0/8`"),
            "{beyond}"
        );
        assert_eq!(
            error("10.0.0.0/8\nallow 10.0.0.0/8\n"),
            "10.0.0.0/8 is allowed and denied"
        );
    }

    #[test]
    fn a_file_that_suddenly_has_no_prefix_is_a_mistake() {
        let dir = std::env::temp_dir().join(format!("mahoraga-access-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("office.txt");
        let text = format!(
            "(access_lists: [(name: \"a\", file: {path:?}, others: \"deny\")],
            listeners: [(bind: \"127.0.0.1:1\", pool: \"p\")],
            pools: [(name: \"p\", backends: [\"unix:/b\"])])"
        );
        let (config, _) = crate::config::parse(String::new(), text.into()).unwrap();
        let read =
            |known: &KnownPrefixes| read_files(&config, known).map_err(|error| error.to_string());
        assert!(read(&KnownPrefixes::new()).is_err(), "it is not there");
        std::fs::write(&path, "# none yet\n").unwrap();
        assert!(read(&KnownPrefixes::new()).unwrap()[0].list.is_empty());
        std::fs::write(&path, "allow ::1\nallow ::2\n").unwrap();
        assert_eq!(read(&KnownPrefixes::new()).unwrap()[0].list.len(), 2);
        std::fs::remove_dir_all(&dir).unwrap();
        let table = |text: &str| parse(text.as_bytes()).unwrap();
        let may_replace = |one, other| PrefixFile::may_replace(&table(one), &table(other));
        assert_eq!(may_replace("", ""), Ok(()));
        assert_eq!(may_replace("::1", "::1\n::2"), Ok(()));
        let why = may_replace("# ::1", "::1\n::2").unwrap_err();
        assert!(
            why.starts_with("expected at least one prefix, as it had 2"),
            "{why}"
        );
    }

    #[test]
    fn a_file_is_bounded() {
        let prefix = "192.0.2.1".parse().unwrap();
        let mut full = PrefixFile(vec![(prefix, Access::Deny); PREFIXES_MAX - 1]);
        assert_eq!(full.take("192.0.2.2", b""), Ok(()));
        let error = full.take("192.0.2.3", b"").unwrap_err();
        assert_eq!(error, "expected at most 1000000 prefixes");
        let endless = parse(io::repeat(b'#')).unwrap_err();
        assert_eq!(endless, "it is larger than 64 MiB");
        let endless = parse(b"::1\n".chain(io::repeat(b' '))).unwrap_err();
        assert_eq!(endless, "line 2: it is longer than 256 bytes");
        let padded = format!("{:<255}\n::2", "::1");
        assert_eq!(parse(padded.as_bytes()).unwrap().len(), 2);
    }
}
