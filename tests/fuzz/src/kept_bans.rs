//! The file that keeps bans over a restart: what one run writes, the next one reads.

use std::time::{Duration, SystemTime};

use mahoraga::control::rewrite_kept_bans;

/// Any file: its good lines survive any number of restarts, as they are.
pub fn kept_bans(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + NOW;
    let (first, _) = rewrite_kept_bans(bytes, now);
    let (second, mistake) = rewrite_kept_bans(&first, now);
    assert_eq!(mistake, None, "{}", first.escape_ascii());
    assert!(
        first == second,
        "{}\n{}",
        first.escape_ascii(),
        second.escape_ascii()
    );
}

/// In 2026: the seeds have bans of before and after.
const NOW: Duration = Duration::from_secs(1_790_000_000);
