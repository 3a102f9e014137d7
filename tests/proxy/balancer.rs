//! The program under test: the tests start it, query it, stop it, and check that nothing is left.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use parking_lot::{Mutex, MutexGuard};

use crate::moved::note_numbers;
use crate::peers;
use crate::process::{Descriptors, Process};
use crate::watchdog::eventually;

/// The way to start the program.
pub(crate) struct Launch {
    command: Command,
    dir: PathBuf,
    workers: usize,
    listeners: usize,
    reads_output: bool,
    /// The fields of the pool in its file, which is written when it starts.
    pool: Option<String>,
    /// More fields of the file: beside the pools, and behind the first pool.
    settings: String,
    more_pools: String,
    /// Or the whole file.
    file: Option<String>,
}

/// A running balancer.
pub(crate) struct Balancer {
    child: Child,
    pub(crate) process: Process,
    workers: usize,
    /// The addresses of its listeners, as logged.
    listeners: Vec<String>,
    log: Text,
    output: Text,
    dir: PathBuf,
    before: Descriptors,
}

/// The lines of an output stream, which a thread reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text(Arc<Mutex<String>>);

impl Launch {
    /// One worker on `127.0.0.1`, any port.
    pub(crate) fn to(backends: &[String]) -> Self {
        Self::between("127.0.0.1:0", backends)
    }

    pub(crate) fn between(from: &str, backends: &[String]) -> Self {
        let launch = Self::new("proxy").also_from(from);
        backends
            .iter()
            .fold(launch, |launch, to| launch.flag("--to", to))
    }

    /// `mahoraga demo`, to be spawned.
    pub(crate) fn demo() -> Self {
        Self::new("demo").workers(0)
    }

    /// `mahoraga run` on `127.0.0.1`, any port, with these fields of a pool besides its name, as
    /// config.ron has them. The access log goes to standard output.
    pub(crate) fn with_pool(pool: &str) -> Self {
        let mut launch = Self::new("run");
        launch.listeners = 1;
        launch.pool = Some(pool.to_owned());
        launch
    }

    /// `mahoraga run` with this file, which has this many listeners, and as many workers as
    /// [`Self::workers`] sets.
    pub(crate) fn with_config(text: &str, listeners: usize) -> Self {
        let mut launch = Self::new("run");
        launch.listeners = listeners;
        launch.file = Some(text.to_owned());
        launch
    }

    /// The whole file, of [`Self::with_config`].
    pub(crate) fn file(mut self, text: &str) -> Self {
        self.file = Some(text.to_owned());
        self
    }

    fn new(subcommand: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mahoraga-proxy-{}-{number}", std::process::id());
        let dir = env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mahoraga"));
        command
            .arg(subcommand)
            .current_dir(&dir)
            .stdin(Stdio::null());
        command.env_remove("MAHORAGA_LOG").stderr(Stdio::piped());
        Self {
            command,
            dir,
            workers: 1,
            listeners: 0,
            reads_output: true,
            pool: None,
            settings: String::new(),
            more_pools: String::new(),
            file: None,
        }
    }

    /// More fields of the file, of [`Self::with_pool`].
    pub(crate) fn settings(mut self, fields: &str) -> Self {
        if !fields.is_empty() {
            self.settings = fields.to_owned() + ",";
        }
        self
    }

    /// More pools, of [`Self::with_pool`].
    pub(crate) fn more_pools(mut self, pools: &str) -> Self {
        self.more_pools = pools.to_owned();
        self
    }

    pub(crate) fn also_from(mut self, from: &str) -> Self {
        self.listeners += 1;
        self.flag("--from", from)
    }

    pub(crate) fn flag(mut self, name: &str, value: &str) -> Self {
        self.command.args([name, value]);
        self
    }

    pub(crate) fn switch(mut self, name: &str) -> Self {
        self.command.arg(name);
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Gives standard output, where the access log goes, no reader.
    pub(crate) fn with_unread_output(mut self) -> Self {
        self.reads_output = false;
        self
    }

    /// The directory it runs in: its own, gone with it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Calls something in the child before the program is executed.
    #[expect(unsafe_code, reason = "between fork and exec little is allowed")]
    pub(crate) fn before_exec(
        mut self,
        call: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: callers make plain system calls only, and allocate nothing.
        unsafe { self.command.pre_exec(call) };
        self
    }

    /// Runs a program that should end by itself: its exit status and its output.
    pub(crate) fn run(self) -> (ExitStatus, String) {
        let dir = self.dir.clone();
        let mut child = self.spawn();
        let mut log = String::new();
        let stderr = child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        let status = child.wait().unwrap();
        let _ = fs::remove_dir_all(dir);
        (status, log)
    }

    /// Starts it and leaves it to the test.
    pub(crate) fn spawn(mut self) -> Child {
        let workers = self.workers;
        if let Some(file) = &self.file {
            fs::write(self.dir.join("config.ron"), file).unwrap();
        } else if let Some(pool) = &self.pool {
            let (settings, more_pools) = (&self.settings, &self.more_pools);
            let config = format!(
                "(workers: {workers}, {settings}\n\
                 listeners: [(bind: \"127.0.0.1:0\", pool: \"default\")],\n\
                 pools: [(name: \"default\", {pool}), {more_pools}])"
            );
            fs::write(self.dir.join("config.ron"), config).unwrap();
        } else if workers > 0 {
            self.command.arg("--workers").arg(workers.to_string());
        }
        self.command.stdout(Stdio::piped());
        // A test that hangs or is killed leaves no balancer behind.
        let launch = self.before_exec(die_with_parent);
        let mut command = launch.command;
        command.spawn().unwrap()
    }

    /// Starts it, and waits until it listens on its addresses and handles its signals.
    pub(crate) fn start(self) -> Balancer {
        let (dir, workers, listeners) = (self.dir.clone(), self.workers, self.listeners);
        let reads_output = self.reads_output;
        let mut child = self.spawn();
        let process = Process(child.id());
        let log = Text::collect(child.stderr.take().unwrap());
        let output = match reads_output {
            true => Text::collect(child.stdout.take().unwrap()),
            false => Text::default(),
        };
        let mut balancer = Balancer {
            child,
            process,
            workers,
            listeners: Vec::new(),
            log,
            output,
            dir,
            before: Descriptors::default(),
        };
        eventually("ready", || {
            let exited = balancer.child.try_wait().unwrap();
            assert!(exited.is_none(), "{exited:?}: {}", balancer.log.all());
            balancer.log.count("] accepting clients\n")
                + balancer.log.count(":\"accepting clients\"}\n")
                == 1
        });
        assert!(process.listens_to_signals());
        balancer.listeners = balancer.log.lines_with("listener `");
        // Others are about its certificates.
        balancer.listeners.retain(|line| line.contains("` on "));
        assert_eq!(balancer.listeners.len(), listeners);
        for line in &mut balancer.listeners {
            let address = line.rsplit(" on ").next().unwrap();
            *line = address.trim_end_matches("\"}").to_owned();
        }
        balancer.before = settled_descriptors(process);
        balancer
    }
}

impl Balancer {
    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of(0)
    }

    pub(crate) fn address_of(&self, listener: usize) -> SocketAddr {
        self.listeners[listener].parse().unwrap()
    }

    /// A client of the first listener.
    pub(crate) fn connect(&self) -> TcpStream {
        peers::connect(self.address())
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn log(&self) -> &Text {
        &self.log
    }

    /// Standard output so far: the access log, if it goes there.
    pub(crate) fn output(&self) -> &Text {
        &self.output
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Pipes that workers have made so far, beyond what there was at the start.
    pub(crate) fn pipes_made(&self) -> usize {
        (self.process.descriptors().pipe_ends - self.before.pipe_ends) / 2
    }

    /// The gauges and counters of each worker, from the report of SIGUSR1.
    pub(crate) fn numbers(&self) -> Vec<HashMap<String, u64>> {
        let gauges = "sessions=";
        let asked = self.log.count(gauges);
        self.process.signal(libc::SIGUSR1);
        eventually("an answer to SIGUSR1", || {
            self.log.count(gauges) == asked + self.workers
                && self.log.count("histograms appended") == (asked / self.workers) + 1
        });
        let lines = self.log.lines_with(gauges);
        let pairs = |line: &String| {
            let words = line.split_whitespace();
            let pairs = words.filter_map(|word| word.split_once('='));
            let pairs = pairs.filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
            pairs.collect()
        };
        let numbers: Vec<HashMap<_, _>> = lines[asked..].iter().map(pairs).collect();
        note_numbers(numbers.iter().flatten());
        numbers
    }

    /// One of [`Self::numbers`], over all workers.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let numbers = self.numbers();
        numbers
            .iter()
            .map(|worker| worker.get(name).copied().unwrap_or(0))
            .sum()
    }

    /// Asserts that no session left anything behind, then ends the balancer in order.
    pub(crate) fn finish(mut self) {
        self.assert_rest();
        self.note_figures();
        self.process.signal(libc::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log.all());
        assert_eq!(self.log.count("panicked at"), 0);
    }

    /// No descriptor, slot, buffer or pipe is in use beyond those of the start, and it idles.
    pub(crate) fn assert_rest(&self) {
        // A failure can be diagnosed: it prints the last state when the balancer never comes to
        // rest.
        let mut last = self.process.descriptors();
        for _ in 0..1_000 {
            if last.are_back_to(&self.before) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            last = self.process.descriptors();
        }
        let (now, before) = (&last.lasting, &self.before.lasting);
        assert!(
            last.are_back_to(&self.before),
            "descriptors leak: {now:?}, {before:?} before"
        );
        assert!(self.pipes_made() <= PIPES_MAX * self.workers);
        eventually("all gauges at 0", || {
            let numbers = self.numbers();
            let gauges = [
                "sessions",
                "buffers",
                "pipes",
                "parked",
                "arriving",
                "unfinished_headers",
                "held",
            ];
            numbers
                .iter()
                .all(|worker| gauges.iter().all(|gauge| worker[*gauge] == 0))
        });
        self.process.expect_cpu_below(0.05);
        // A spin makes more turns than this within a few milliseconds.
        let in_vain = self.number("turns_in_vain");
        let most = IN_VAIN_MAX + IN_VAIN_PER_SESSION * self.number("accepted");
        assert!(in_vain <= most, "{in_vain} turns in vain, not {most}");
        assert_eq!(self.log.count("panicked at"), 0, "{}", self.log.all());
    }

    /// Waits for the end after a signal.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the balancer's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.log.finished();
        status.unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the balancer's log ---\n{}---", self.log.all());
        }
        // The process may have ended in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Text {
    pub(crate) fn collect(from: impl Read + Send + 'static) -> Self {
        let text = Self::default();
        let to = text.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|read| read > 0) {
                to.0.lock().push_str(&line);
                line.clear();
            }
        });
        text
    }

    /// Waits until the thread that reads has read to the end.
    fn finished(&self) {
        eventually("the end of the log", || Arc::strong_count(&self.0) == 1);
    }

    pub(crate) fn all(&self) -> String {
        self.0.lock().clone()
    }

    /// Nothing reads the stream until this is dropped.
    pub(crate) fn unread(&self) -> MutexGuard<'_, String> {
        self.0.lock()
    }

    /// The number of lines that contain this text.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().matches(what).count()
    }

    /// The same without the lines of the audit log, which repeat the errors.
    pub(crate) fn count_unaudited(&self, what: &str) -> usize {
        let text = self.0.lock();
        let lines = text.lines().filter(|line| !line.contains("\"action\":"));
        lines.map(|line| line.matches(what).count()).sum()
    }

    pub(crate) fn lines_with(&self, what: &str) -> Vec<String> {
        let text = self.0.lock();
        let lines = text.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect()
    }

    /// All lines, once there are this many.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), || self.count("\n") >= count);
        self.lines_with("")
    }
}

/// Waits until all threads sleep: ready or not, the control thread still makes itself an eventfd.
/// On a busy machine a thread that has work may wait long for a CPU.
fn settled_descriptors(process: Process) -> Descriptors {
    let mut found = process.descriptors();
    let mut same = 0;
    eventually("at rest after the start", || {
        let now = process.descriptors();
        let settled = process.sleeps() && now == found;
        same = if settled { same + 1 } else { 0 };
        found = now;
        same == 5
    });
    found
}

#[expect(unsafe_code, reason = "neither std nor socket2 has prctl")]
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is handed over.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Pipes that a worker keeps once made.
const PIPES_MAX: usize = 64;
/// Turns in vain that a whole test may have, and each session of it.
const IN_VAIN_MAX: u64 = 500;
const IN_VAIN_PER_SESSION: u64 = 8;
