//! Checks as a file has them: the settings of all types together.

use std::ops::RangeInclusive;

use serde_json::json;

use super::codec::{Codec, Facts, Leaf, bytes, group, required, spelled, status};
use super::reader::{Around, At, Reader};
use super::table::{self, Settings, Shape, settings};
use super::text::Text;
use super::tree::Kind;
use super::values::{self, CheckType};
use super::{Check, CheckTls, Expect, Probe};

settings! {
    /// What a check does, beside its times and counts.
    #[derive(Clone, PartialEq)]
    struct ProbeFile {
        /// What a probe does: "tcp" connects, "tls" shakes hands, "http" asks for a path,
        /// "send_expect" sends bytes and waits for others.
        r#type: Option<CheckType> = None => required(spelled(
            "\"off\", \"tcp\", \"tls\", \"http\" or \"send_expect\"",
            values::check_type,
            |kind| kind.name().to_owned(),
        ).given());
        /// send_expect: the bytes that are sent first.
        send: Vec<u8> = Vec::new() => bytes();
        /// send_expect: bytes in the first 16 KiB of the answer.
        expect: Option<Vec<u8>> = None => Expected.given();
        /// send_expect: a regular expression that matches the answer, in place of `expect`.
        expect_regex: Option<String> = None => spelled(
            "a regular expression",
            |pattern| values::expect_regex(pattern).map(|_| pattern.to_owned()),
            String::clone,
        ).given();
        /// http: the method of the request.
        method: String = Probe::METHOD.to_owned()
            => spelled("a method such as \"GET\"", values::http_method, String::clone);
        /// http: the path of the request.
        path: String = Probe::PATH.to_owned()
            => spelled("a path such as \"/healthz\"", values::http_path, String::clone);
        /// http: the `Host` field of the request; the backend's own where it is not given.
        host: Option<String> = None
            => spelled("a host such as \"example.org\"", values::http_host, String::clone).given();
        /// http: which status codes are good.
        status: RangeInclusive<u16> = Probe::STATUS => status();
        /// The TLS that a probe uses: true, or a group.
        tls: Option<Option<CheckTls>> = None => Tls;
    }
}

impl Shape for ProbeFile {
    const SHORT: Option<&'static str> = Some("type");
    const WANTED: Option<&'static str> =
        Some("a check: write \"TYPE\" or (type: \"TYPE\", ...) with settings");

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let Some(kind) = self.r#type else { return };
        let mut wrong = |name: &str, sentence: String| {
            if let Some(field) = at.value.field(name) {
                reader.mistake(&field.span, format!("{name}: {sentence}"));
            }
        };
        if kind == CheckType::Off {
            let sentence = "nothing else stands with `off`: write check: \"off\"";
            return wrong("type", sentence.to_owned());
        }
        for (owner, settings) in OWNERS.into_iter().filter(|(owner, _)| *owner != kind) {
            for name in settings {
                let error = values::not_its_setting(("check", kind.name()), &[owner.name()]);
                wrong(name, error.to_string());
            }
        }
        if kind == CheckType::Tls && self.tls == Some(None) {
            wrong("tls", "a check of type `tls` can't be without".to_owned());
        }
        let is_given = |name| at.value.field(name).is_some();
        match (is_given("expect"), is_given("expect_regex")) {
            (true, true) => {
                let sentence = "`expect` says already what is expected: leave one out";
                wrong("expect_regex", sentence.to_owned());
            }
            (false, false) if kind == CheckType::SendExpect => missing_expect(at, reader),
            _ => {}
        }
    }
}

/// The settings that only one type of check has.
const OWNERS: [(CheckType, &[&str]); 2] = [
    (CheckType::Http, &["method", "path", "host", "status"]),
    (CheckType::SendExpect, &["send", "expect", "expect_regex"]),
];

fn missing_expect(at: At<'_>, reader: &mut Reader<'_>) {
    let sentence = "the field `expect` or `expect_regex` is missing here";
    reader.mistake(&at.value.start(), sentence.to_owned());
}

/// A check, or none.
pub(super) struct CheckCodec;

impl Codec for CheckCodec {
    type Value = Option<Check>;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        _: &Self::Value,
    ) -> Option<Self::Value> {
        let base = ProbeFile::base();
        let (file, times) = if let Kind::Group(_) = at.value.kind {
            reader.known(at, &[ProbeFile::names(), Check::names()].concat());
            let file = reader.fields(at, &base);
            (file, reader.fields(at, &Check::base()))
        } else {
            let file = reader.group(at, &base)?;
            if file.r#type == Some(CheckType::SendExpect) {
                missing_expect(at, reader);
            }
            (file, Check::base())
        };
        let (probe, tls) = match file.r#type? {
            CheckType::Off => return Some(None),
            CheckType::Tcp => (Probe::Tcp, file.tls.flatten()),
            CheckType::Tls => {
                let tls = file.tls.flatten().unwrap_or_default();
                (Probe::Tcp, Some(tls))
            }
            CheckType::Http => {
                let probe = Probe::Http {
                    method: file.method,
                    path: file.path,
                    host: file.host,
                    status: file.status,
                };
                (probe, file.tls.flatten())
            }
            CheckType::SendExpect => {
                let regex = file.expect_regex.map(Expect::Regex);
                let expect = file.expect.map(Expect::Bytes).or(regex)?;
                let send = file.send;
                (Probe::SendExpect { send, expect }, file.tls.flatten())
            }
        };
        Some(Some(Check {
            probe,
            tls,
            ..times
        }))
    }

    fn write(&self, value: &Self::Value, _: &Self::Value, around: &Around) -> Text {
        let Some(check) = value else {
            return Text::quoted("off");
        };
        let fields = table::fields(&in_file(check), &ProbeFile::base(), around);
        let times = table::fields(check, &Check::base(), around);
        fields.and(times).or_bare(ProbeFile::SHORT)
    }

    fn facts(&self) -> Facts {
        let facts = group::<ProbeFile>().facts();
        Facts {
            expected: "\"off\", a type or a group such as (type: \"http\", path: \"/up\")"
                .to_owned(),
            schema: json!({ "anyOf": [
                { "const": "off" },
                table::schema::<ProbeFile>(),
                table::schema::<Check>(),
            ] }),
            rows: |path| {
                let mut rows = super::reference::rows::<ProbeFile>(path);
                rows.extend(super::reference::rows::<Check>(path));
                rows
            },
            ..facts
        }
    }
}

fn in_file(check: &Check) -> ProbeFile {
    let base = ProbeFile::base();
    let tls = check.tls.clone();
    let with = |kind, file: ProbeFile| ProbeFile {
        r#type: Some(kind),
        tls: tls.clone().map(Some),
        ..file
    };
    match check.probe.clone() {
        Probe::Tcp if tls.is_some() => ProbeFile {
            // A check of this type has TLS anyway.
            tls: tls.clone().filter(|tls| *tls != CheckTls::base()).map(Some),
            ..with(CheckType::Tls, base)
        },
        Probe::Tcp => with(CheckType::Tcp, base),
        Probe::SendExpect { send, expect } => {
            let (expect, expect_regex) = match expect {
                Expect::Bytes(bytes) => (Some(bytes), None),
                Expect::Regex(pattern) => (None, Some(pattern)),
            };
            let file = ProbeFile {
                send,
                expect,
                expect_regex,
                ..base
            };
            with(CheckType::SendExpect, file)
        }
        Probe::Http {
            method,
            path,
            host,
            status,
        } => {
            let file = ProbeFile {
                method,
                path,
                host,
                status,
                ..base
            };
            with(CheckType::Http, file)
        }
    }
}

/// The bytes that are expected.
struct Expected;

impl Leaf for Expected {
    type Value = Vec<u8>;

    fn parse(&self, at: At<'_>) -> Result<Vec<u8>, values::ValueError> {
        values::expect_bytes(bytes().parse(at)?, at.written)
    }

    fn text(&self, value: &Vec<u8>) -> Text {
        Text::bytes(value)
    }

    fn expected(&self) -> String {
        "1 to 16384 bytes".to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// `true`, `false` or a group.
struct Tls;

impl Codec for Tls {
    type Value = Option<Option<CheckTls>>;

    fn read<'a>(
        &self,
        at: At<'a>,
        reader: &mut Reader<'a>,
        _: &Self::Value,
    ) -> Option<Self::Value> {
        let tls = if let Kind::Bool(is_on) = at.value.kind {
            is_on.then(CheckTls::base)
        } else if let Kind::Group(_) = at.value.kind {
            Some(group().read(at, reader, &CheckTls::base())?)
        } else {
            let error = at.not("true, false or a group such as (verify: \"system\")");
            return reader.take::<Self::Value>(at, Err(error));
        };
        Some(Some(tls))
    }

    fn write(&self, value: &Self::Value, _: &Self::Value, around: &Around) -> Text {
        match value.clone().flatten() {
            None => Text::Leaf("false".to_owned()),
            Some(tls) if tls == CheckTls::base() => Text::Leaf("true".to_owned()),
            Some(tls) => group().write(&tls, &CheckTls::base(), around),
        }
    }

    fn facts(&self) -> Facts {
        let facts = group::<CheckTls>().facts();
        Facts {
            expected: "true, false or a group".to_owned(),
            schema: json!({ "anyOf": [{ "type": "boolean" }, facts.schema] }),
            ..facts
        }
    }
}
