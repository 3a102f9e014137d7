//! How many workers, connections and buffers there are: what the configuration says, within what
//! the machine allows.

use std::num::NonZeroU32;
use std::thread;

use crate::config::{Config, DESCRIPTORS_RESERVED, values};
use crate::kernel::BUFFER_BYTES;
use crate::sys;

use super::StartError;

/// Pipes of a worker: up to eight workers together stay within the quota of an unprivileged user,
/// 64 MiB by default (pipe(7)).
#[must_use]
pub fn pipes(workers: u32, sessions: u32) -> u32 {
    (64 / workers.max(1)).max(8).min(sessions.div_ceil(4))
}

/// A CPU for each worker: those of the affinity mask in turn. When a cgroup's quota pays for fewer
/// CPUs than the mask shows, there are as many workers as it pays for, and none is pinned: every
/// container with a quota would pin to the same first CPUs of the machine.
#[must_use]
pub fn worker_cpus(wanted: Option<NonZeroU32>) -> Vec<Option<usize>> {
    let allowed = sys::allowed_cpus();
    // It takes cgroup quotas into account, which the mask does not show.
    let paid = thread::available_parallelism().map_or(1, usize::from);
    let count = wanted.map_or(paid, |count| count.get() as usize).max(1);
    if allowed.is_empty() || wanted.is_none() && paid < allowed.len() {
        return vec![None; count];
    }
    allowed.into_iter().map(Some).cycle().take(count).collect()
}

/// Sessions that one worker has descriptors for: two each, in its own table.
#[must_use]
pub fn sessions_per_worker(descriptors: u64) -> u32 {
    let free = descriptors.saturating_sub(DESCRIPTORS_RESERVED.min(descriptors / 2));
    u32::try_from(free / 2).unwrap_or(u32::MAX).max(1)
}

/// Client connections in all: what is configured, within what the descriptors allow.
#[must_use]
pub fn connections_in_all(wanted: Option<NonZeroU32>, workers: u32, per_worker: u32) -> u32 {
    within(wanted, workers.saturating_mul(per_worker))
}

/// What is configured, or what is possible if that is less.
#[must_use]
pub fn within(wanted: Option<NonZeroU32>, possible: u32) -> u32 {
    wanted.map_or(possible, |wanted| wanted.get().min(possible))
}

/// Bytes for receive buffers and pipes over all workers: what is configured, or a quarter of the
/// memory. The rest is for the kernel's socket buffers, which count for the same cgroup: up to some
/// MiB for each connection that streams. `Err`: too little is configured; this is the least.
pub fn memory_in_all(wanted: Option<u64>, there_is: u64, workers: u32) -> Result<u64, u64> {
    let least = u64::from(workers) * WORKER_MEMORY_MIN;
    match wanted {
        Some(wanted) if wanted < least => Err(least),
        Some(wanted) => Ok(wanted),
        None => Ok((there_is / 4).max(least)),
    }
}

/// The same for a configuration, on this machine.
pub(super) fn memory_of(config: &Config) -> Result<u64, StartError> {
    let workers = u32::try_from(worker_cpus(config.workers).len()).unwrap_or(u32::MAX);
    let memory = memory_in_all(config.memory, sys::available_memory(), workers);
    memory.map_err(|least| StartError::Memory {
        least: values::memory_text(least),
        workers,
    })
}

/// Buffers and pipes of a worker that has this many bytes for them.
#[must_use]
pub fn buffers_and_pipes(memory: u64, workers: u32, sessions: u32) -> (u16, u32) {
    let affordable = memory / 4 / PIPE_BYTES;
    let pipes = pipes(workers, sessions).min(u32::try_from(affordable).unwrap_or(u32::MAX));
    let left = memory.saturating_sub(u64::from(pipes) * PIPE_BYTES);
    let affordable = u16::try_from(left / u64::from(BUFFER_BYTES)).unwrap_or(u16::MAX);
    (buffers(sessions).min(affordable), pipes)
}

/// Receive buffers of a worker: four per session, rounded up to a power of two. A buffer takes
/// memory only once it is used.
#[must_use]
pub fn buffers(sessions: u32) -> u16 {
    let wanted = sessions
        .saturating_mul(4)
        .clamp(256, 1 << 15)
        .next_power_of_two();
    u16::try_from(wanted).unwrap_or(1 << 15)
}

/// Three quarters for buffers, which is enough for a batch, and a pipe.
const WORKER_MEMORY_MIN: u64 = 4 << 20;
const PIPE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_configured_or_a_quarter_and_enough_for_each_worker() {
        assert_eq!(memory_in_all(None, 8 << 30, 2), Ok(2 << 30));
        assert_eq!(memory_in_all(None, 16 << 20, 2), Ok(8 << 20));
        assert_eq!(memory_in_all(Some(8 << 20), 8 << 30, 2), Ok(8 << 20));
        assert_eq!(memory_in_all(Some(8 << 20), 8 << 30, 3), Err(12 << 20));
    }

    #[test]
    fn buffers_and_pipes_stay_within_the_memory() {
        assert_eq!(buffers_and_pipes(WORKER_MEMORY_MIN, 2, 9_872), (192, 1));
        assert_eq!(buffers_and_pipes(64 << 20, 2, 9_872), (3_072, 16));
        assert_eq!(buffers_and_pipes(1 << 40, 2, 9_872), (32_768, 32));
        assert_eq!(buffers_and_pipes(1 << 40, 2, 10), (256, 3));
    }

    #[test]
    fn sessions_fit_the_descriptors() {
        assert_eq!(sessions_per_worker(20_000), 9_872);
        assert_eq!(sessions_per_worker(1_024), 384);
        assert_eq!(sessions_per_worker(64), 16);
        assert_eq!(sessions_per_worker(0), 1);
    }

    #[test]
    fn a_configured_limit_stays_within_what_is_possible() {
        let wanted = NonZeroU32::new(100);
        assert_eq!(connections_in_all(wanted, 2, 384), 100);
        assert_eq!(connections_in_all(wanted, 2, 16), 32);
        assert_eq!(connections_in_all(None, 2, 384), 768);
    }

    #[test]
    fn buffers_are_a_power_of_two_within_the_kernels_limit() {
        assert_eq!(buffers(1), 256);
        assert_eq!(buffers(384), 2_048);
        assert_eq!(buffers(u32::MAX), 32_768);
    }

    #[test]
    fn one_worker_per_allowed_cpu_unless_configured_otherwise() {
        let all = worker_cpus(None);
        assert!(!all.is_empty() && all.len() <= sys::allowed_cpus().len());
        let pinned = all.iter().flatten().count();
        assert!(pinned == 0 || pinned == all.len());
        assert_eq!(worker_cpus(NonZeroU32::new(5)).len(), 5);
    }
}
