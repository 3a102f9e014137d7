//! How much memory the process may use.

use std::fs;
use std::path::Path;

/// The memory that the process's cgroup allows, or else that of the machine, in bytes.
#[must_use]
pub fn available_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(total).unwrap_or(u64::MAX);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |path: &Path| read_limit(&fs::read_to_string(path).ok()?);
    machine.min(allowed(&own, &limit))
}

/// The least limit of a cgroup and those around it (cgroups(7); version 2, then version 1). In a
/// container the path may be the host's, and the root of the mount its own.
fn allowed(own: &str, limit: &impl Fn(&Path) -> Option<u64>) -> u64 {
    let files = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|one| one == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let around = Path::new(path.trim_start_matches('/')).ancestors();
        let around = around.filter_map(|group| limit(&Path::new(root).join(group).join(file)));
        around.min()
    });
    files.min().unwrap_or(u64::MAX)
}

/// `None`: "max", which is no limit.
fn read_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &'static [(&'static str, &'static str)]) -> impl Fn(&Path) -> Option<u64> {
        move |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            read_limit(found.1)
        }
    }

    #[test]
    fn the_least_limit_around_a_cgroup_counts() {
        let files = with(&[
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.max", "5000\n"),
        ]);
        assert_eq!(allowed("0::/a/b\n", &files), 1_000);
        assert_eq!(allowed("0::/elsewhere\n", &files), 5_000);
        assert_eq!(allowed("", &files), u64::MAX);
        let first = with(&[("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "7\n")]);
        assert_eq!(allowed("3:cpu,memory:/x\n0::/\n", &first), 7);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       2 kB\nMemFree: 1 kB\n"), Some(2_048));
        assert!(available_memory() > 1 << 20);
    }
}
