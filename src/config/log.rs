//! The access log, and how the operational log looks.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::json;

use super::codec::{Codec, duration, list, named, number, spelled, truth};
use super::reader::{At, Reader};
use super::table::{Shape, settings, words};
use super::text::Text;
use super::tree::Kind;
use super::values;
use crate::session::CloseReason;

settings! {
    /// Where and how sessions are logged.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessLog: Shape {
        /// Where lines go: "-" is standard output, "off" is nowhere, "syslog" and "journald" are
        /// those servers of this machine, anything else is a file.
        pub to: LogSink = LogSink::Stdout => spelled(
            "\"-\", \"off\", \"syslog\", \"journald\" or the path of a file",
            values::log_sink,
            LogSink::to_string,
        );
        /// The shape of a line.
        pub format: LogFormat = LogFormat::KeyValue => named("log format", &LogFormat::ALL);
        /// Which sessions get a line: "all", "errors" (all but those that both sides closed in
        /// order), or those that ended for one of these reasons.
        pub only: LogOnly = LogOnly::All => only();
        /// One of so many sessions that both sides closed in order gets a line; all others do.
        pub sample: NonZeroU32 = NonZeroU32::MIN => number(values::SAMPLE);
        /// Whether connections of a proxy's own on which it sends nothing get a line.
        pub proxy_checks: bool = false => truth();
        /// Whether a session gets a line at its start too, when it is connected to its backend.
        pub start: bool = false => truth();
        /// How often a session gets a line while it is open.
        pub progress: Option<Duration> = None => duration(values::PROGRESS).or("off");
        /// The fields of a line, in this order; "standard" stands for those without a choice.
        pub fields: Vec<LogField> = vec![LogField::Standard]
            => list(named("field", &LogField::ALL));
    }
}

impl Shape for AccessLog {
    const SHORT: Option<&'static str> = Some("to");

    fn is_off(at: At<'_>, _: &mut Reader<'_>) -> bool {
        at.says("to", "off")
    }

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if self.only != LogOnly::All {
            let why = "expected `only: \"all\"` with it: how a session ends is not known before";
            for setting in ["start", "progress"] {
                let is_off = at.says(setting, "off") || (setting == "start" && !self.start);
                if !is_off {
                    reader.wrong(at, setting, why);
                }
            }
        }
        let is_empty = |name| {
            let field = at.value.field(name);
            field.is_some_and(|value| matches!(&value.kind, Kind::List(all) if all.is_empty()))
        };
        if is_empty("only") {
            reader.wrong(
                at,
                "only",
                "expected a reason: without one no session has a line",
            );
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.fields.iter().find(|field| !seen.insert(**field)) {
            let name = twice.as_str();
            reader.wrong(
                at,
                "fields",
                format!("`{name}` is there twice: leave one out"),
            );
        }
        if is_empty("fields") {
            reader.wrong(
                at,
                "fields",
                "expected a field: a line can't be without one",
            );
        }
    }
}

impl AccessLog {
    /// The fields of a line, with those that [`LogField::Standard`] stands for in its place. One
    /// that is named too stands where its name does.
    #[must_use]
    pub fn written_fields(&self) -> Vec<LogField> {
        let has_events = self.start || self.progress.is_some();
        let standard = match has_events {
            true => &STANDARD[..],
            false => &STANDARD[..STANDARD.len() - 1],
        };
        let is_named = |field: &LogField| self.fields.contains(field);
        let each = self.fields.iter().flat_map(|field| {
            let is_of_group = *field == LogField::Standard;
            let group = match is_of_group {
                true => standard,
                false => std::slice::from_ref(field),
            };
            group
                .iter()
                .filter(move |its| !is_of_group || !is_named(its))
        });
        each.copied().collect()
    }
}

impl LogField {
    /// Whether it is of TLS that ends here.
    #[must_use]
    pub fn is_of_tls(self) -> bool {
        matches!(
            self,
            Self::TlsVersion
                | Self::TlsCipher
                | Self::TlsAlpn
                | Self::TlsResumed
                | Self::TlsUs
                | Self::TlsError
                | Self::TlsClientSubject
                | Self::TlsClientCn
                | Self::TlsClientSan
                | Self::TlsClientSerial
                | Self::TlsClientFingerprint
                | Self::BackendTlsVersion
                | Self::BackendTlsCipher
                | Self::BackendTlsAlpn
                | Self::BackendTlsResumed
                | Self::BackendTlsUs
                | Self::BackendTlsError
        )
    }

    /// Whether it is what TCP knows of a connection.
    #[must_use]
    pub fn is_of_tcp(self) -> bool {
        matches!(
            self,
            Self::ClientRttUs
                | Self::ClientRetransmits
                | Self::ClientLost
                | Self::BackendRttUs
                | Self::BackendRetransmits
                | Self::BackendLost
        )
    }
}

super::table::defaults!(AccessLog);

/// Which sessions get a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOnly {
    /// All of them.
    All,
    /// All but those that both sides closed in order.
    Errors,
    /// Those that ended for one of these reasons.
    Reasons(Vec<CloseReason>),
}

fn only() -> Codec<LogOnly> {
    let reasons = list(named("close reason", &REASONS));
    let expected = "\"all\", \"errors\" or a list of close reasons such as [\"idle_timeout\"]";
    let writer = list(named("close reason", &REASONS));
    Codec::new(
        expected,
        json!({ "anyOf": [{ "const": "all" }, { "const": "errors" }, reasons.facts.schema] }),
        move |at, reader, _| match (&at.value.kind, at.text()) {
            (_, Some("all")) => Some(LogOnly::All),
            (_, Some("errors")) => Some(LogOnly::Errors),
            (Kind::List(_), _) => reasons.read(at, reader, &Vec::new()).map(LogOnly::Reasons),
            _ => reader.unexpected(at, expected),
        },
        move |only, _, around| match only {
            LogOnly::All => Text::quoted("all"),
            LogOnly::Errors => Text::quoted("errors"),
            LogOnly::Reasons(reasons) => writer.write(reasons, &Vec::new(), around),
        },
    )
}

/// Each reason with its word.
static REASONS: LazyLock<Vec<(&'static str, CloseReason)>> = LazyLock::new(|| {
    CloseReason::ALL
        .map(|reason| (reason.as_str(), reason))
        .into()
});

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, which is created if absent; lines are appended.
    File(PathBuf),
    /// The socket of a syslog server, which takes messages of RFC 5424.
    Syslog(PathBuf),
    /// The socket of journald, which takes messages in its native format.
    Journald(PathBuf),
}

impl LogSink {
    /// Where it is in the file system; `None`: standard output.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) | Self::Syslog(path) | Self::Journald(path) => Some(path),
        }
    }

    /// The socket of a server, which takes a datagram for each line.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Stdout | Self::File(_) => None,
            Self::Syslog(path) | Self::Journald(path) => Some(path),
        }
    }
}

/// As a file has it.
impl fmt::Display for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = |f: &mut fmt::Formatter<'_>, name, path: &Path, default| {
            f.write_str(name)?;
            match path == Path::new(default) {
                true => Ok(()),
                false => write!(f, ":{}", path.display()),
            }
        };
        match self {
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
            Self::Syslog(path) => server(f, SYSLOG, path, SYSLOG_SOCKET),
            Self::Journald(path) => server(f, JOURNALD, path, JOURNALD_SOCKET),
        }
    }
}

/// The word for a syslog server, and its socket.
pub(super) const SYSLOG: &str = "syslog";
pub(super) const SYSLOG_SOCKET: &str = "/dev/log";
/// The word for journald, and its socket.
pub(super) const JOURNALD: &str = "journald";
pub(super) const JOURNALD_SOCKET: &str = "/run/systemd/journal/socket";

words! {
    /// The shape of an access log line.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum LogFormat {
        /// `key=value` pairs.
        #[default]
        KeyValue = "key_value",
        /// One JSON object.
        Json = "json",
    }
}

words! {
    /// The shape of a record of the operational log.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum RecordFormat {
        /// A line of text.
        #[default]
        Text = "text",
        /// One JSON object.
        Json = "json",
    }
}

words! {
    /// A field of an access log line.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum LogField {
        /// All that a line has without a choice.
        Standard = "standard",
        /// When the session ended.
        Time = "time",
        /// Its id.
        Session = "session",
        /// The listener.
        Listener = "listener",
        /// The client's address.
        Client = "client",
        /// The backend that was selected last.
        Backend = "backend",
        /// The pool.
        Pool = "pool",
        /// The pool's strategy.
        Strategy = "strategy",
        /// Connect attempts.
        Attempts = "attempts",
        /// Time in the queue.
        QueuedUs = "queued_us",
        /// Time until the backend answered the connect.
        ConnectUs = "connect_us",
        /// Time until the backend's first byte.
        FirstByteUs = "first_byte_us",
        /// Time until the end.
        TotalUs = "total_us",
        /// Bytes delivered from the client.
        BytesUp = "bytes_up",
        /// Bytes delivered to the client.
        BytesDown = "bytes_down",
        /// The worker.
        Worker = "worker",
        /// Why the session ended.
        Reason = "reason",
        /// Each attempt with its backend, address, outcome and time.
        AttemptsList = "attempts_list",
        /// The proxy that named the client by a header, where there is one.
        Proxy = "proxy",
        /// The rule in dry run that would have refused the client, where there is one.
        DryRun = "dry_run",
        /// What happened: the session began, goes on, or ended.
        Event = "event",
        /// How many sessions the line stands for.
        Sample = "sample",
        /// The status of the backend's first answer, where that is HTTP/1.
        Status = "status",
        /// Which of the listener's routes its client took: its name, or its place from 1 on; none
        /// of one that goes to the listener's own pool.
        Route = "route",
        /// The server name in the hello of TLS, where first bytes are looked at.
        Sni = "sni",
        /// The fingerprint of the hello of TLS by what its client can do, where first bytes are
        /// looked at.
        TlsJa4 = "tls_ja4",
        /// The version of TLS that ends here.
        TlsVersion = "tls_version",
        /// Its cipher suite.
        TlsCipher = "tls_cipher",
        /// The application protocol that was agreed on in it.
        TlsAlpn = "tls_alpn",
        /// Whether the client resumed a session of it.
        TlsResumed = "tls_resumed",
        /// How long its handshake took since the accept.
        TlsUs = "tls_us",
        /// Why it failed.
        TlsError = "tls_error",
        /// The subject of the client's certificate.
        TlsClientSubject = "tls_client_subject",
        /// The common name in it.
        TlsClientCn = "tls_client_cn",
        /// Its alternative names.
        TlsClientSan = "tls_client_san",
        /// Its serial number.
        TlsClientSerial = "tls_client_serial",
        /// Its SHA-256.
        TlsClientFingerprint = "tls_client_fingerprint",
        /// The version of TLS with the backend.
        BackendTlsVersion = "backend_tls_version",
        /// Its cipher suite.
        BackendTlsCipher = "backend_tls_cipher",
        /// The application protocol that was agreed on in it.
        BackendTlsAlpn = "backend_tls_alpn",
        /// Whether a session of it was resumed.
        BackendTlsResumed = "backend_tls_resumed",
        /// How long its handshake took since the connect.
        BackendTlsUs = "backend_tls_us",
        /// Why its last handshake, or what followed it, failed.
        BackendTlsError = "backend_tls_error",
        /// The round-trip time to the client at the end.
        ClientRttUs = "client_rtt_us",
        /// Segments that were sent to the client again.
        ClientRetransmits = "client_retransmits",
        /// Segments to the client that were lost at the end.
        ClientLost = "client_lost",
        /// The round-trip time to the backend at the end.
        BackendRttUs = "backend_rtt_us",
        /// Segments that were sent to the backend again.
        BackendRetransmits = "backend_retransmits",
        /// Segments to the backend that were lost at the end.
        BackendLost = "backend_lost",
    }
}

/// What [`LogField::Standard`] stands for, in its order. The last one only where sessions get other
/// lines than that of their end.
const STANDARD: [LogField; 20] = [
    LogField::Time,
    LogField::Session,
    LogField::Listener,
    LogField::Client,
    LogField::Backend,
    LogField::Pool,
    LogField::Strategy,
    LogField::Attempts,
    LogField::QueuedUs,
    LogField::ConnectUs,
    LogField::FirstByteUs,
    LogField::TotalUs,
    LogField::BytesUp,
    LogField::BytesDown,
    LogField::Worker,
    LogField::Reason,
    LogField::AttemptsList,
    LogField::Proxy,
    LogField::DryRun,
    LogField::Event,
];
