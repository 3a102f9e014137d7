//! What /proc shows of a process, and ways to act on it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::watchdog::{eventually, slowness};

use mahoraga::time::between;

/// A process that this test started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

/// Open descriptors by thread, for the threads that have a table of their own or control the common
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// By thread and kind: the targets of /proc's links.
    pub(crate) lasting: BTreeMap<(String, String), usize>,
    /// Both ends of pipes. They are pooled, so their number changes.
    pub(crate) pipe_ends: usize,
}

impl Descriptors {
    /// Whether the workers have the same as before, and the control thread no more: a probe may
    /// have been under way before.
    pub(crate) fn are_back_to(&self, before: &Self) -> bool {
        let all = self.lasting.keys().chain(before.lasting.keys());
        all.into_iter().all(|key| {
            let [now, then] = [self, before].map(|its| its.lasting.get(key).copied().unwrap_or(0));
            let of_a_worker = key.0.starts_with("worker-");
            now == then || (now < then && !of_a_worker)
        })
    }
}

impl Process {
    fn path(self, rest: &str) -> PathBuf {
        format!("/proc/{}/{rest}", self.0).into()
    }

    /// Threads by name: the control thread and the workers. The kernel's own helper threads of the
    /// rings are left out.
    fn threads(self) -> Vec<(String, PathBuf)> {
        let tasks = fs::read_dir(self.path("task")).unwrap();
        let tasks = tasks.filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            Some((name.trim().to_owned(), path))
        });
        let main = self.path(&format!("task/{}", self.0));
        let ours = |(name, path): &(String, PathBuf)| name.starts_with("worker-") || *path == main;
        tasks.filter(ours).collect()
    }

    /// Threads that the kernel has made for operations that would block.
    pub(crate) fn kernel_threads(self) -> usize {
        let tasks = fs::read_dir(self.path("task")).unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("iou-wrk")).count()
    }

    pub(crate) fn descriptors(self) -> Descriptors {
        let mut found = Descriptors::default();
        for (thread, path) in self.threads() {
            // A thread that has ended has no descriptors.
            let Ok(entries) = fs::read_dir(path.join("fd")) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(target) = fs::read_link(entry.path()) else {
                    continue;
                };
                let target = target.display().to_string();
                let kind = target.split("[").next().unwrap_or("");
                if kind == "pipe:" {
                    found.pipe_ends += 1;
                    continue;
                }
                let key = (thread.clone(), kind.to_owned());
                *found.lasting.entry(key).or_default() += 1;
            }
        }
        found
    }

    /// Numbers of the descriptors of one worker's own table.
    fn descriptors_of(self, worker: usize) -> Vec<u64> {
        let name = format!("worker-{worker}");
        let mut threads = self.threads().into_iter();
        let (_, path) = threads.find(|(thread, _)| *thread == name).unwrap();
        let entries = fs::read_dir(path.join("fd")).unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.collect()
    }

    /// Changes the limit of descriptors so that a worker has room for just this many more. Returns
    /// the previous limit, as do the two functions that follow.
    pub(crate) fn leave_room(self, worker: usize, room: usize) -> u64 {
        let taken = self.descriptors_of(worker);
        let free = (0..).filter(|number| !taken.contains(number));
        // The limit is one above the highest number that may be given out (getrlimit(2)).
        self.limit_descriptors(free.take(room).last().map_or(0, |highest| highest + 1))
    }

    /// Changes the limit of descriptors so that this many of those in use are beyond it.
    pub(crate) fn overdraw(self, worker: usize, by: usize) -> u64 {
        let mut taken = self.descriptors_of(worker);
        taken.sort_unstable();
        self.limit_descriptors(taken[taken.len() - by])
    }

    /// CPU time of all threads so far (the first number of schedstat, in ns).
    pub(crate) fn cpu_time(self) -> Duration {
        let tasks = fs::read_dir(self.path("task")).unwrap();
        let ns = tasks.flatten().filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        between(0, ns.sum())
    }

    /// Expects it to use less than this share of one CPU soon. A spin never does; but on a busy
    /// machine the end of earlier work may reach into the first samples. On a slow machine the same
    /// work takes more, and a spin takes all there is.
    #[track_caller]
    pub(crate) fn expect_cpu_below(self, most: f64) {
        let most = (most * f64::from(slowness())).min(SPIN.max(most));
        let what = format!("less than {most} of a CPU in use");
        eventually(&what, || {
            let share = self.cpu_share(Duration::from_millis(300));
            if share >= most {
                eprintln!("{share:.3} of a CPU in use");
            }
            share < most
        });
    }

    /// The share of one CPU that the process uses over some time.
    fn cpu_share(self, over: Duration) -> f64 {
        let (began, before) = (Instant::now(), self.cpu_time());
        std::thread::sleep(over);
        // A kernel helper thread that ended meanwhile takes its CPU time along.
        let used = self.cpu_time().saturating_sub(before);
        used.as_secs_f64() / began.elapsed().as_secs_f64()
    }

    /// A field of /proc/PID/status.
    pub(crate) fn status(self, field: &str) -> String {
        value_of(&fs::read_to_string(self.path("status")).unwrap(), field)
    }

    /// A field of the status of the thread of this name.
    pub(crate) fn thread_status(self, thread: &str, field: &str) -> String {
        let mut threads = self.threads().into_iter();
        let (_, path) = threads.find(|(name, _)| name == thread).unwrap();
        value_of(&fs::read_to_string(path.join("status")).unwrap(), field)
    }

    /// The status of every thread, with those that the kernel has made for its rings.
    pub(crate) fn all_threads(self) -> Vec<ThreadStatus> {
        let tasks = fs::read_dir(self.path("task")).unwrap().flatten();
        // A thread that has ended has none.
        let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        texts.map(ThreadStatus).collect()
    }

    /// Processes that it has started and that have not ended.
    pub(crate) fn children(self) -> Vec<Self> {
        let all = fs::read_to_string(self.path(&format!("task/{}/children", self.0))).unwrap();
        let all = all.split_whitespace();
        all.map(|number| Self(number.parse().unwrap())).collect()
    }

    pub(crate) fn exists(self) -> bool {
        self.path("status").exists()
    }

    /// Whether no thread runs or waits for a CPU.
    pub(crate) fn sleeps(self) -> bool {
        self.threads().iter().all(|(_, path)| {
            // A thread that has ended has no work either.
            fs::read_to_string(path.join("status"))
                .map_or(true, |status| value_of(&status, "State").starts_with('S'))
        })
    }

    /// Memory that is the process's own and in RAM.
    pub(crate) fn resident_bytes(self) -> u64 {
        let anonymous = self.status("RssAnon");
        let kib: u64 = anonymous.trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Whether the process has a handler for every signal that it answers.
    pub(crate) fn listens_to_signals(self) -> bool {
        let caught = u64::from_str_radix(&self.status("SigCgt"), 16).unwrap();
        [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1]
            .into_iter()
            .all(|signal| caught & (1 << (signal - 1)) != 0)
    }

    /// Whether the process blocks or handles signals: it does so with all of them at once. (Ignored
    /// signals show nothing: a shell may have started it so.) Before execve(2) it is a copy of this
    /// process, in which the C library blocks signals for a moment.
    pub(crate) fn is_prepared_for_signals(self) -> bool {
        let program = |of: &str| fs::read_link(format!("/proc/{of}/exe")).ok();
        if program(&self.0.to_string()) == program("self") {
            return false;
        }
        let has = |field: &str| {
            let mask = u64::from_str_radix(&self.status(field), 16).unwrap();
            mask & (1 << (libc::SIGTERM - 1)) != 0
        };
        has("SigBlk") || has("SigCgt")
    }

    #[expect(unsafe_code, reason = "neither std nor socket2 sends signals")]
    pub(crate) fn signal(self, signal: i32) {
        let pid = i32::try_from(self.0).unwrap();
        // SAFETY: no memory is handed over; the child was not waited for, so the number is its.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Stops all its threads, and waits until none of them runs: a signal comes in its own time.
    pub(crate) fn freeze(self) {
        self.signal(libc::SIGSTOP);
        let stopped = |task: &Path| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('T'))
        };
        eventually("it is stopped", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
            tasks.flatten().all(|task| stopped(&task.path()))
        });
    }

    /// Changes the soft limit of descriptors of the live process.
    #[expect(unsafe_code, reason = "neither std nor socket2 sets limits")]
    pub(crate) fn limit_descriptors(self, soft: u64) -> u64 {
        let pid = i32::try_from(self.0).unwrap();
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let what = libc::RLIMIT_NOFILE;
        // SAFETY: `limit` is written during the call only.
        let read = unsafe { libc::prlimit(pid, what, std::ptr::null(), &raw mut limit) };
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        // SAFETY: `limit` is read during the call only.
        let set = unsafe { libc::prlimit(pid, what, &raw const limit, std::ptr::null_mut()) };
        assert_eq!((read, set), (0, 0));
        before
    }
}

/// The status of a thread, as /proc shows it.
#[derive(Debug)]
pub(crate) struct ThreadStatus(String);

impl ThreadStatus {
    pub(crate) fn value(&self, field: &str) -> String {
        value_of(&self.0, field)
    }

    /// A field that is a set of bits.
    pub(crate) fn mask(&self, field: &str) -> u64 {
        u64::from_str_radix(&self.value(field), 16).unwrap()
    }
}

fn value_of(status: &str, field: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("no {field}"))
        .trim()
        .to_owned()
}

/// A spin uses at least this share of a CPU, on a machine however slow.
const SPIN: f64 = 0.6;
