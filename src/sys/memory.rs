//! How much memory the process may use, and how much the sockets of the machine hold.

use std::env;
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

/// An empty vector with room for so many values. Where that is much, the kernel is asked to back it
/// by huge pages: a look-up in it then seldom misses the TLB. A kernel without them, or with them
/// turned off, backs it by small ones.
#[must_use]
pub fn vec_in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    let room = vec.spare_capacity_mut();
    let bytes = size_of_val(room);
    if bytes >= HUGE_PAGES {
        let start = room.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE).min(bytes);
        let whole = (bytes - skipped) / PAGE * PAGE;
        // SAFETY: the pages lie in the vector's own room, which nothing else uses, and the kernel
        // has ended to use the pointer when the call returns. The advice changes how pages are
        // backed, not what they hold. Where the allocator keeps them later, it goes on to hold.
        unsafe {
            libc::madvise(
                start.wrapping_add(skipped).cast(),
                whole,
                libc::MADV_HUGEPAGE,
            )
        };
    }
    vec
}

/// What the TCP sockets of the whole machine hold, and how much of that is too much, in bytes
/// (tcp(7), `tcp_mem`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpMemory {
    /// What they hold.
    pub used: u64,
    /// Above this the kernel saves memory.
    pub pressure: u64,
    /// Beyond this it drops what arrives, for all sockets.
    pub max: u64,
}

/// What the TCP sockets of the machine hold. `None`: it can't be known, as in a container with a
/// network of its own, which does not have the limit.
#[must_use]
pub fn tcp_memory() -> Option<TcpMemory> {
    let overridden = env::var(TCP_MEM_OF_TESTS).ok();
    let (used, limits) = match overridden.filter(|_| cfg!(debug_assertions)) {
        Some(all) => {
            let (used, limits) = all.split_once(' ')?;
            (format!("TCP: mem {used}"), limits.to_owned())
        }
        None => (
            fs::read_to_string("/proc/net/sockstat").ok()?,
            fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?,
        ),
    };
    // SAFETY: the call takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    tcp_memory_of(&limits, &used, u64::try_from(page).ok()?)
}

/// Segments of TCP in a network namespace since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegments {
    /// Received.
    pub received: u64,
    /// Sent, without those that were sent again.
    pub sent: u64,
    /// Sent again.
    pub sent_again: u64,
}

/// The segments of this network namespace, over all its programs; `None`: they can't be known.
#[must_use]
pub fn tcp_segments() -> Option<TcpSegments> {
    tcp_segments_of(&fs::read_to_string("/proc/net/snmp").ok()?)
}

/// From two lines, of names and of numbers (proc(5)).
fn tcp_segments_of(snmp: &str) -> Option<TcpSegments> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let numbers: Vec<_> = numbers.split_whitespace().collect();
    let of = |name: &str| {
        let place = names.split_whitespace().position(|its| its == name)?;
        numbers.get(place)?.parse().ok()
    };
    Some(TcpSegments {
        received: of("InSegs")?,
        sent: of("OutSegs")?,
        sent_again: of("RetransSegs")?,
    })
}

fn tcp_memory_of(limits: &str, sockstat: &str, page: u64) -> Option<TcpMemory> {
    let mut limits = limits.split_whitespace().map(|pages| {
        let pages: u64 = pages.parse().ok()?;
        Some(pages.saturating_mul(page))
    });
    let line = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    let used: u64 = words.nth(1)?.parse().ok()?;
    // The first is where the kernel ends to save memory.
    Some(TcpMemory {
        used: used.saturating_mul(page),
        pressure: limits.nth(1)??,
        max: limits.next()??,
    })
}

/// From so many bytes on huge pages are asked for: two of them.
const HUGE_PAGES: usize = 4 << 20;
/// What the advice begins and ends at: a multiple of the size of pages.
const PAGE: usize = 65_536;
/// In a program that is built for tests: the pages in use, and what stands for `tcp_mem`.
const TCP_MEM_OF_TESTS: &str = "MAHORAGA_TEST_TCP_MEM";

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
    fn large_vectors_are_as_good_as_small_ones() {
        for count in [0, 1, HUGE_PAGES / 8 - 1, HUGE_PAGES / 8 + 1, 3_000_000] {
            let mut vec = vec_in_huge_pages(count);
            assert!(vec.is_empty() && vec.capacity() >= count);
            vec.extend(0..count as u64);
            assert!(vec.iter().copied().eq(0..count as u64));
        }
        assert!(vec_in_huge_pages::<()>(HUGE_PAGES).is_empty());
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
    fn the_memory_of_tcp_is_read_as_the_kernel_writes_it() {
        let limits = "287901\t383869\t575802\n";
        let sockstat = "sockets: used 328\nTCP: inuse 244 orphan 0 tw 46 alloc 304 mem 114190\n\
                        UDP: inuse 0 mem 256\n";
        let memory = TcpMemory {
            used: 114_190 << 12,
            pressure: 383_869 << 12,
            max: 575_802 << 12,
        };
        assert_eq!(tcp_memory_of(limits, sockstat, 1 << 12), Some(memory));
        assert_eq!(tcp_memory_of("1 2", sockstat, 1), None);
        assert_eq!(tcp_memory_of(limits, "UDP: inuse 0 mem 256\n", 1), None);
    }

    #[test]
    fn segments_are_found_by_their_names() {
        let snmp = "Ip: InSegs\nIp: 9\nTcp: MaxConn InSegs OutSegs RetransSegs New\n\
                    Tcp: 200 5 7 1 3\nUdp: InSegs\n";
        let segments = TcpSegments {
            received: 5,
            sent: 7,
            sent_again: 1,
        };
        assert_eq!(tcp_segments_of(snmp), Some(segments));
        assert_eq!(tcp_segments_of("Tcp: InSegs OutSegs\nTcp: 5 7\n"), None);
        assert_eq!(tcp_segments_of("Tcp: InSegs\n"), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       2 kB\nMemFree: 1 kB\n"), Some(2_048));
        assert!(available_memory() > 1 << 20);
    }
}
