//! The file that keeps bans over a restart: a line for each, between a first line that names the
//! format and a last one with their count and a checksum of all lines before it.
//!
//! It is read before the first client, and written by another thread: to a file beside it, which
//! then takes its place. So it is whole whenever the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::Xxh3;

use crate::config::{Config, values};
use crate::control::StartError;
use crate::guard::{Ban, BannedBy, Bans, Trusted};
use crate::prefix::Prefix;
use crate::sys;
use crate::time::{NEVER, nanos};

use super::Clocks;
use super::import::{BansRead, KnownBans, read_import};

/// The bans of files: those of the last run, and imported ones.
#[derive(Default)]
pub(in crate::control) struct KeptBans {
    bans: Vec<KeptBan>,
    pub(super) imported: Vec<BansRead>,
    /// Why the file could not be read.
    pub(super) problem: Option<String>,
    /// The file had a mistake, and stands aside.
    pub(super) damage: Option<Damage>,
    /// It could not be read, and is not to be replaced.
    pub(super) is_unread: bool,
}

/// A file with a mistake: bans beyond that do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where the file is now.
    pub(super) aside: PathBuf,
    /// What is wrong with it.
    pub(super) sentence: String,
}

/// A ban with its times as people know them.
#[derive(Debug, PartialEq, Eq)]
struct KeptBan {
    prefix: Prefix,
    by: BannedBy,
    since: SystemTime,
    until: Option<SystemTime>,
    hits: u64,
    /// How often a rule has banned the network.
    times: u32,
    reason: String,
}

impl KeptBans {
    /// Reads the files of a configuration. That of the last run is set aside where it has a
    /// mistake, and its good lines hold. May take long.
    ///
    /// # Errors
    /// [`StartError::ImportedBans`]
    pub(in crate::control) fn read(config: &Config) -> Result<Self, StartError> {
        let imported = read_import(config, &KnownBans::new())?;
        let kept = config.bans.file.as_deref();
        let kept = kept.map_or_else(Self::default, Self::of_last_run);
        Ok(Self { imported, ..kept })
    }

    pub(super) fn of_last_run(path: &Path) -> Self {
        let mut bans = Vec::new();
        let outcome = sys::open_regular(path).and_then(|file| parse(file, &mut bans));
        let shown = path.display();
        let mut kept = Self {
            bans,
            ..Self::default()
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let aside = beside(path, ".corrupt");
                match fs::rename(path, &aside) {
                    Ok(()) => {
                        let sentence = format!(
                            "bans file {shown}: {error}: it is set aside as {}, look at it and \
                             remove it; bans of it that hold: {}",
                            aside.display(),
                            kept.bans.len()
                        );
                        kept.damage = Some(Damage { aside, sentence });
                    }
                    Err(why) => {
                        let problem =
                            format!("bans file {shown}: {error}; cannot set it aside: {why}");
                        kept.refuse(problem);
                    }
                }
            }
            Err(error) => {
                kept.refuse(format!(
                    "cannot read the bans file {shown}: {error}; bans are lost"
                ));
            }
        }
        kept
    }

    /// Leaves the file as it is.
    fn refuse(&mut self, problem: String) {
        (self.problem, self.is_unread) = (Some(problem), true);
    }

    /// Puts those of the last run that still hold into the table, beside those that it has.
    /// Answers how many there are.
    pub(super) fn restore(&self, bans: &Bans) -> usize {
        self.restore_at(Clocks::now(), bans)
    }

    fn restore_at(&self, clocks: Clocks, bans: &Bans) -> usize {
        let hold = self.bans.iter().filter_map(|kept| kept.ban(clocks));
        let restored = hold.map(|ban| bans.restore(ban, clocks.monotonic));
        restored.filter(|holds| *holds).count()
    }

    /// Fills a new table: with the bans of the last run, and then with imported ones.
    pub(in crate::control) fn fill(&self, bans: &Bans, trusted: &Trusted) {
        self.restore(bans);
        for file in &self.imported {
            bans.import(&file.list, trusted, sys::monotonic());
        }
    }
}

impl KeptBan {
    /// The ban in the workers' time; `None`: it is over.
    fn ban(&self, clocks: Clocks) -> Option<Ban> {
        let until = match self.until {
            None => NEVER,
            Some(until) => {
                // A clock from before the ban is wrong, as before a machine without a clock of its
                // own has asked for the time. No ban gets longer by it.
                let now = clocks.wall.max(self.since);
                let left = until.duration_since(now).ok()?;
                clocks.monotonic.saturating_add(nanos(left))
            }
        };
        let age = clocks.wall.duration_since(self.since).unwrap_or_default();
        let age = i64::try_from(nanos(age)).unwrap_or(i64::MAX);
        let now = i64::try_from(clocks.monotonic).unwrap_or(i64::MAX);
        let since = now.saturating_sub(age);
        let ban = Ban::new(
            self.prefix,
            self.by,
            self.reason.as_str().into(),
            (since, until),
        );
        Some(ban.with_hits(self.hits).for_the(self.times))
    }

    /// Reads a line: prefix, who, since, until, refused clients, how often a rule has banned it
    /// (not in the first format), and the reason to its end.
    fn read(line: &str, is_first_format: bool) -> Result<Self, String> {
        let mut words = line.splitn(if is_first_format { 6 } else { 7 }, ' ');
        let mut word = |what: &str| words.next().ok_or_else(|| format!("expected {what}"));
        let prefix = word("a prefix")?;
        let prefix = values::prefix(prefix).map_err(|error| error.about("prefix", prefix))?;
        let by = word("who banned it")?;
        let by = KEPT.into_iter().find(|one| one.as_str() == by);
        let by = by.ok_or("expected `hand` or `rule`")?;
        let time = |text: &str| {
            let time = humantime::parse_rfc3339(text);
            time.map_err(|_| format!("invalid time `{text}`: expected RFC 3339"))
        };
        let since = time(word("a time")?)?;
        let until = match word("a time, or `forever`")? {
            FOREVER => None,
            until => Some(time(until)?),
        };
        let hits = word("a number")?;
        let hits = hits.parse().map_err(|_| "expected a number".to_owned())?;
        let times = match is_first_format {
            true => "0",
            false => word("a number")?,
        };
        let times = times.parse().map_err(|_| "expected a number".to_owned())?;
        let reason = words.next().unwrap_or_default();
        if !reason.is_empty() {
            values::reason(reason).map_err(|error| error.about("reason", reason))?;
        }
        Ok(Self {
            prefix,
            by,
            since,
            until,
            hits,
            times,
            reason: reason.to_owned(),
        })
    }
}

/// Reads all lines up to the first mistake.
fn parse(file: impl Read, bans: &mut Vec<KeptBan>) -> io::Result<()> {
    let mistake = |what: String| Err(io::Error::new(ErrorKind::InvalidData, what));
    let mut lines = BufReader::new(file.take(BYTES_MAX));
    let mut line = Vec::new();
    let mut is_first_format = false;
    let mut before = Xxh3::new();
    for number in 1u64.. {
        line.clear();
        (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line)?;
        let text = line
            .strip_suffix(b"\n")
            .and_then(|line| std::str::from_utf8(line).ok());
        match text {
            None => return mistake(format!("line {number}: it ends too soon, or is no text")),
            Some(head @ (HEAD | FIRST_HEAD)) if number == 1 => is_first_format = head != HEAD,
            Some(_) if number == 1 => return mistake(format!("line 1: expected `{HEAD}`")),
            Some(text) if text.starts_with(END) => {
                read_end(text, bans.len(), before.digest())
                    .or_else(|expected| mistake(format!("line {number}: {expected}")))?;
                return match lines.fill_buf()?.is_empty() {
                    true => Ok(()),
                    false => mistake(format!("line {}: expected the end of the file", number + 1)),
                };
            }
            Some(_) if bans.len() >= BANS_MAX => {
                return mistake(format!("line {number}: expected at most {BANS_MAX} bans"));
            }
            Some(text) => match KeptBan::read(text, is_first_format) {
                Ok(ban) => bans.push(ban),
                Err(error) => return mistake(format!("line {number}: {error}")),
            },
        }
        before.update(&line);
    }
    Ok(())
}

/// What is wrong with a file that keeps bans, for a look before a start that sets it aside. May
/// take long.
pub(in crate::control) fn mistake_in_kept(path: &Path) -> Option<String> {
    let outcome = sys::open_regular(path).and_then(|file| parse(file, &mut Vec::new()));
    let error = outcome.err()?;
    (error.kind() == ErrorKind::InvalidData).then(|| {
        let (shown, aside) = (path.display(), beside(path, ".corrupt"));
        format!(
            "bans file {shown}: {error}: a start sets it aside as {}, and only the bans before \
             that line hold",
            aside.display()
        )
    })
}

/// Reads the last line. Earlier versions wrote no checksum.
fn read_end(text: &str, bans: usize, sum: u64) -> Result<(), String> {
    let without = format!("{END}{bans}");
    let Some(rest) = text.strip_prefix(&without) else {
        return Err(format!("expected `{without}`"));
    };
    let whole = end(bans, sum);
    if rest.is_empty() || text == whole {
        return Ok(());
    }
    Err(format!(
        "expected `{whole}` by the lines before: one of them is damaged, or was changed"
    ))
}

/// The last line.
fn end(bans: usize, sum: u64) -> String {
    format!("{END}{bans} {sum:016x}")
}

/// Writes the bans that hold now to a file, in place of what it had. Waits for the disk.
pub(super) fn save(path: &Path, bans: &Bans) -> io::Result<()> {
    let new = beside(path, ".new");
    // What an earlier run left.
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(MODE).open(&new)?;
    let mut out = io::BufWriter::new(file);
    write(&mut out, bans, Clocks::now())?;
    out.into_inner()?.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|its| !its.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn write(out: &mut impl Write, bans: &Bans, clocks: Clocks) -> io::Result<()> {
    let mut all = bans.all(clocks.monotonic);
    all.retain(|ban| KEPT.contains(&ban.by));
    let mut sum = Xxh3::new();
    let mut put = |line: &str| {
        let line = format!("{line}\n");
        sum.update(line.as_bytes());
        out.write_all(line.as_bytes())
    };
    put(HEAD)?;
    for ban in &all {
        let [since, until] = clocks.times(ban).map(|time| {
            let shown = |at| humantime::format_rfc3339_millis(at).to_string();
            time.map_or_else(|| FOREVER.to_owned(), shown)
        });
        let (prefix, by, hits) = (ban.prefix, ban.by.as_str(), ban.hits());
        let (times, reason) = (ban.times, &ban.reason);
        let line = format!("{prefix} {by} {since} {until} {hits} {times} {reason}");
        put(line.trim_end())?;
    }
    writeln!(out, "{}", end(all.len(), sum.digest()))
}

/// Reads the text of a file that keeps bans, up to the first mistake, and writes what holds at a
/// time as the next run would. Answers with the mistake too.
#[must_use]
pub fn rewrite_kept_bans(text: &[u8], now: SystemTime) -> (Vec<u8>, Option<String>) {
    let clocks = Clocks {
        monotonic: 1 << 60,
        wall: now,
    };
    let mut kept = KeptBans::default();
    let outcome = parse(text, &mut kept.bans);
    let table = Bans::new(u32::MAX);
    kept.restore_at(clocks, &table);
    let mut out = Vec::new();
    let written = write(&mut out, &table, clocks);
    let mistake = outcome.and(written).err();
    (out, mistake.map(|error| error.to_string()))
}

/// The path of a file beside another one.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Origins of bans that are kept: those of a watched file are in that file.
const KEPT: [BannedBy; 2] = [BannedBy::Hand, BannedBy::Rule];
/// The first line.
const HEAD: &str = "mahoraga bans 2";
/// That of files of earlier versions, which can be read too.
const FIRST_HEAD: &str = "mahoraga bans 1";
/// What begins the last line.
const END: &str = "end ";
/// In place of an end.
const FOREVER: &str = "forever";
/// Of the file: it tells who was banned, and why.
const MODE: u32 = 0o640;
/// As many as the table may have.
const BANS_MAX: usize = 1_000_000;
/// Room for that many with long reasons.
const BYTES_MAX: u64 = 1 << 30;
/// Room for a long reason.
const LINE_MAX: u64 = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes(), &mut Vec::new())
            .unwrap_err()
            .to_string()
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mahoraga-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn bans_come_back_as_they_were() {
        let dir = directory("bans");
        let path = dir.join("bans");
        assert_eq!(
            KeptBans::of_last_run(&path).bans.len(),
            0,
            "there is no file yet"
        );
        let bans = Bans::new(100);
        let now = sys::monotonic();
        let add = |prefix: &str, by, reason: &str, until| {
            let since = i64::try_from(now).unwrap();
            let ban = Ban::new(prefix.parse().unwrap(), by, reason.into(), (since, until));
            let times = u32::from(by == BannedBy::Rule) * 3;
            bans.add(ban.with_hits(7).for_the(times), now).unwrap();
        };
        add(
            "192.0.2.0/24",
            BannedBy::Hand,
            "floods  the \u{e9}login",
            NEVER,
        );
        add(
            "2001:db8::/64",
            BannedBy::Rule,
            "",
            now + nanos(std::time::Duration::from_secs(600)),
        );
        // Its own file has it.
        add("198.51.100.7", BannedBy::File, "feed", NEVER);
        save(&path, &bans).unwrap();
        // Again, over what is there.
        save(&path, &bans).unwrap();
        let kept = KeptBans::of_last_run(&path);
        assert_eq!(kept.problem, None);
        let again = Bans::new(100);
        assert_eq!(kept.restore(&again), 2);
        let mut before = bans.all(now);
        before.retain(|ban| ban.by != BannedBy::File);
        for (ban, before) in again.all(now).iter().zip(&before) {
            assert_eq!((ban.prefix, ban.by), (before.prefix, before.by));
            assert_eq!((&ban.reason, ban.hits()), (&before.reason, 7));
            assert_eq!(ban.times, before.times);
            let difference = ban.until.abs_diff(before.until);
            assert!(difference < crate::time::SECOND, "{difference} ns");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_with_a_mistake_is_set_aside_and_its_good_lines_hold() {
        let dir = directory("bad-bans");
        let path = dir.join("bans");
        let line = "192.0.2.7 hand 2026-01-01T00:00:00Z forever 0 0 why";
        fs::write(&path, format!("{HEAD}\n{line}\n192.0.2.8 hand")).unwrap();
        // A look changes nothing.
        let found = mistake_in_kept(&path).unwrap();
        assert!(found.contains("line 3: it ends too soon"), "{found}");
        assert_eq!(mistake_in_kept(&dir.join("none")), None);
        let kept = KeptBans::of_last_run(&path);
        let damage = kept.damage.as_ref().unwrap();
        let problem = &damage.sentence;
        assert!(problem.contains("line 3: it ends too soon"), "{problem}");
        assert!(problem.ends_with("bans of it that hold: 1"), "{problem}");
        assert_eq!(damage.aside, dir.join("bans.corrupt"));
        assert_eq!(kept.restore(&Bans::new(9)), 1);
        assert!(!path.exists() && dir.join("bans.corrupt").exists());
        // What is not a file is not touched.
        let kept = KeptBans::of_last_run(&dir);
        assert!(kept.is_unread && kept.problem.is_some() && dir.exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        assert_eq!(error(""), "line 1: it ends too soon, or is no text");
        assert_eq!(error("10.0.0.0/8\n"), "line 1: expected `mahoraga bans 2`");
        let after = |line: &str| error(&format!("{HEAD}\n{line}\n"));
        assert_eq!(after("end 1"), "line 2: expected `end 0`");
        assert_eq!(after("end 0\nx"), "line 3: expected the end of the file");
        assert_eq!(after("10.0.0.0/8"), "line 2: expected who banned it");
        assert_eq!(after("10.0.0.0/8 me"), "line 2: expected `hand` or `rule`");
        assert_eq!(
            after("10.0.0.0/8 hand now"),
            "line 2: invalid time `now`: expected RFC 3339"
        );
        assert!(after("x hand").starts_with("line 2: invalid prefix `x`: expected"));
        let over =
            format!("{HEAD}\n::1 rule 2026-01-01T00:00:00Z 2026-01-02T00:00:00Z 3 2\nend 1\n");
        let mut bans = Vec::new();
        parse(over.as_bytes(), &mut bans).unwrap();
        assert_eq!((bans[0].hits, bans[0].times), (3, 2));
        let long_after = Clocks {
            monotonic: 5,
            wall: bans[0].until.unwrap(),
        };
        assert_eq!(bans[0].ban(long_after).map(|ban| ban.until), Some(5));
    }

    #[test]
    fn a_changed_bit_is_a_mistake_wherever_it_is() {
        let text = format!(
            "{HEAD}\n2001:db8::/64 rule 2026-01-01T00:00:00Z 2027-01-02T00:00:00Z 3 2 why\n\
             192.0.2.7 hand 2026-01-01T00:00:00Z forever 0 0\nend 2\n"
        );
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_790_000_000);
        let (whole, mistake) = rewrite_kept_bans(text.as_bytes(), now);
        assert_eq!(mistake, None, "earlier versions wrote no checksum");
        assert_eq!(parse(&*whole, &mut Vec::new()).ok(), Some(()));
        for at in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let outcome = parse(&*damaged, &mut Vec::new());
            assert!(outcome.is_err(), "{}", damaged.escape_ascii());
        }
        let end = whole.iter().rposition(|byte| *byte == b' ').unwrap();
        let sum = String::from_utf8_lossy(&whole[end + 1..whole.len() - 1]).into_owned();
        let changed = String::from_utf8_lossy(&whole).replace("why", "who");
        let why = error(&changed);
        assert!(why.starts_with("line 4: expected `end 2 ") && !why.contains(&sum));
        let again = changed.replace(&format!(" {sum}"), "");
        assert_eq!(parse(again.as_bytes(), &mut Vec::new()).ok(), Some(()));
    }

    /// As at the start of a machine whose clock is not set yet.
    #[test]
    fn a_clock_that_is_behind_makes_no_ban_longer() {
        let line = "::1 rule 2026-01-01T00:00:00Z 2026-01-01T01:00:00Z 3 2";
        let ban = KeptBan::read(line, false).unwrap();
        let hour = std::time::Duration::from_secs(3_600);
        let left = |wall| {
            let monotonic = 1 << 50;
            let ban = ban.ban(Clocks { monotonic, wall });
            ban.map(|ban| ban.until - monotonic)
        };
        assert_eq!(left(SystemTime::UNIX_EPOCH), Some(nanos(hour)));
        assert_eq!(left(ban.since - hour), Some(nanos(hour)));
        assert_eq!(left(ban.since + hour / 4), Some(nanos(hour / 4 * 3)));
        assert_eq!(left(ban.since + hour * 2), None);
    }

    /// A smaller table takes all, and what was there before stays.
    #[test]
    fn bans_are_restored_beside_others_and_beyond_the_limit() {
        let line = |last: u8| {
            format!("10.0.0.{last} rule 2026-01-01T00:00:00Z forever 3 source_rate: 3 times\n")
        };
        let text = format!("{FIRST_HEAD}\n{}{}{}end 3\n", line(1), line(2), line(3));
        let mut kept = KeptBans::default();
        parse(text.as_bytes(), &mut kept.bans).unwrap();
        let (bans, now) = (Bans::new(1), sys::monotonic());
        let ours = Ban::new(
            "10.0.0.2".parse().unwrap(),
            BannedBy::Hand,
            "".into(),
            (0, NEVER),
        );
        bans.add(ours, now).unwrap();
        assert_eq!(kept.restore(&bans), 2);
        let all = bans.all(now);
        let by: Vec<_> = all.iter().map(|ban| ban.by).collect();
        assert_eq!(by, [BannedBy::Rule, BannedBy::Hand, BannedBy::Rule]);
        assert_eq!(&*all[0].reason, "source_rate: 3 times");
    }
}
