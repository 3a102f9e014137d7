//! Changes of settings while the balancer runs.
//!
//! A [`Patch`] is what a request sends, what a change makes, and what logs and commands show of it.
//! Its settings are rows of tables: a new one needs a row in [`Changeable::rows`], and has then its
//! field in JSON, its schema, its flag of `mahoraga set` and its words.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use super::codec::{Codec, duration, number};
use super::json::{self, BodyError, KEEP};
use super::reader::Around;
use super::strategy_file::StrategyFile;
use super::table::{self, Setting, Settings, TableBuilder, setting};
use super::text::Text;
use super::values::{self, ValueError};
use super::{AccessEdits, Backend, Config, Listener, NewBan, NewWeights, Pool, QueueLimits};

/// A group of which some settings can change while the balancer runs.
pub trait Changeable: Sized + Clone + Send + Sync + 'static {
    /// The name of its schema in the description of the API.
    const SCHEMA: &'static str;

    /// Those settings.
    fn rows() -> &'static Rows<Self>;
}

/// The settings of a group that a [`Patch`] can change.
#[allow(
    missing_debug_implementations,
    reason = "functions have nothing to show"
)]
pub struct Rows<G: 'static> {
    base: fn() -> G,
    settings: Vec<Setting<G>>,
}

/// New values of some settings of a group. The others stay as they are.
#[derive(Clone)]
pub struct Patch<G> {
    /// The new values, in a group that has no meaning but for them.
    values: Box<G>,
    /// The settings that have a new value, a bit for each row.
    pub(super) given: u32,
}

impl<G: Changeable> Default for Patch<G> {
    fn default() -> Self {
        Self {
            values: Box::new((G::rows().base)()),
            given: 0,
        }
    }
}

impl<G: Changeable> Patch<G> {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given == 0
    }

    /// The settings that it changes.
    fn settings(&self) -> impl Iterator<Item = &'static Setting<G>> {
        let given = self.given;
        let rows = G::rows().settings.iter().enumerate();
        rows.filter_map(move |(i, row)| (given & 1 << i != 0).then_some(row))
    }

    /// Its values, if it changes this setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&G> {
        let mut settings = self.settings();
        settings
            .any(|its| its.name == name)
            .then_some(&*self.values)
    }

    /// Its values; the others have no meaning.
    #[must_use]
    pub fn values(&self) -> &G {
        &self.values
    }

    /// Changes a group.
    pub fn apply(&self, group: &mut G) {
        for setting in self.settings() {
            setting.row.copy(group, &self.values);
        }
    }

    /// This one after an earlier one, as one.
    #[must_use]
    pub fn after(&self, earlier: &Self) -> Self {
        let mut both = earlier.clone();
        self.apply(&mut both.values);
        both.given |= self.given;
        both
    }

    /// The settings in which two groups differ, a bit for each row.
    #[must_use]
    pub fn differing(one: &G, other: &G) -> u32 {
        let rows = G::rows().settings.iter().enumerate();
        let differing = rows.filter(|(_, setting)| !setting.row.is_same(one, other));
        differing.fold(0, |all, (i, _)| all | 1 << i)
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// It is no JSON object of these settings, changes nothing, or a value is invalid.
    pub fn read(json: &[u8]) -> Result<Self, BodyError> {
        let rows = &G::rows().settings;
        let patch = json::read(json, rows, |group, reader| {
            let names: Vec<_> = rows.iter().map(|setting| setting.name).collect();
            reader.known(group, &names);
            let mut patch = Self::default();
            for (i, setting) in rows.iter().enumerate() {
                if let Some(value) = group.field(setting.name) {
                    let at = reader.at(value, setting.name);
                    setting.row.read(at, reader, &mut patch.values);
                    patch.given |= 1 << i;
                }
            }
            Some(patch)
        })?;
        if patch.is_empty() {
            let sentence = "expected at least one field to change (null leaves a field as it is)";
            return Err(BodyError::Malformed(sentence.to_owned()));
        }
        Ok(patch)
    }

    /// One setting with a value as a flag writes it.
    ///
    /// # Errors
    /// The value is invalid.
    pub fn of(name: &str, text: &str) -> Result<Self, ValueError> {
        let mut patch = Self::default();
        let mut rows = G::rows().settings.iter().enumerate();
        let Some((i, setting)) = rows.find(|(_, setting)| setting.name == name) else {
            return Err(ValueError::Refused(format!("unknown setting `{name}`")));
        };
        setting.read_flag(text, &mut patch.values)?;
        patch.given |= 1 << i;
        Ok(patch)
    }

    /// The body of a request.
    #[must_use]
    pub fn json(&self) -> Json {
        body_of(self.settings(), &self.values)
    }

    /// Each setting with its new value, as a file writes it.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.settings()
            .map(|setting| (setting.name, word(setting, &*self.values)))
    }
}

impl<G: Changeable> fmt::Display for Patch<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.words().enumerate() {
            write!(f, "{}{name} {value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl<G: Changeable> fmt::Debug for Patch<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patch({self})")
    }
}

impl<G: Changeable> PartialEq for Patch<G> {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |setting: &Setting<G>| setting.row.is_same(&self.values, &other.values);
        self.given == other.given && self.settings().all(is_same)
    }
}

impl<G: Changeable> Eq for Patch<G> {}

/// A setting that a [`Patch`] can change, for the flags of a command.
#[derive(Clone, Debug)]
pub struct Changing {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: String,
    /// Its values in short, such as `N|off`.
    pub values: String,
}

/// The settings that a patch can change.
pub(crate) fn changing<G: Changeable>() -> impl Iterator<Item = Changing> {
    G::rows().settings.iter().map(|setting| {
        let facts = setting.row.facts();
        let about = setting.sentence();
        Changing {
            name: setting.name,
            about: match (facts.are_groups(), about.split_once(". ")) {
                (true, Some((first, _))) => format!("{first}: {}", facts.expected),
                (true, None) | (false, _) => about,
            },
            values: placeholder(setting.name, &facts.schema),
        }
    })
}

fn placeholder(name: &str, schema: &Json) -> String {
    if let Some(Json::Array(choices)) = schema.get("anyOf")
        && let [word, other, ..] = &choices[..]
        && let Some(word) = word["const"].as_str()
    {
        format!("{}|{word}", placeholder(name, other))
    } else if schema["type"] == "integer" {
        "N".to_owned()
    } else if schema["type"] == "object" {
        "GROUP".to_owned()
    } else if schema["pattern"].is_string() {
        "DUR".to_owned()
    } else {
        name.to_uppercase()
    }
}

/// The JSON schema of a patch, as a part of the description of the API.
pub(crate) fn patch_schema<G: Changeable>() -> Json {
    let Rows { base, settings } = G::rows();
    let mut schema = body_schema(&base(), settings);
    for setting in settings {
        // What is left out stays as it is.
        if let Some(fields) = schema["properties"][setting.name].as_object_mut() {
            fields.remove("default");
        }
    }
    schema
}

/// The JSON schema of a new backend, as a part of the description of the API.
pub(crate) fn backend_schema() -> Json {
    body_schema(&Backend::base(), Backend::table())
}

fn body_schema<G>(base: &G, settings: &[Setting<G>]) -> Json {
    let mut schema = table::object(base, settings);
    let fields = &mut schema["properties"];
    for setting in settings.iter().filter(|its| its.may_be_off()) {
        let field = &mut fields[setting.name];
        if setting.row.facts().are_groups() {
            continue;
        }
        field["anyOf"][1]["minimum"] = 0.into();
        field["description"] = format!("{} 0 is off too.", setting.sentence()).into();
    }
    fields[KEEP] = json!({
        "type": "boolean",
        "description": "Has no effect: every change holds over reloads.",
        "deprecated": true,
    });
    schema
}

impl Backend {
    /// Reads a new backend from the body of a request.
    ///
    /// # Errors
    /// It is no JSON object of a backend's settings, or a value is invalid.
    pub fn read(json: &[u8]) -> Result<Self, BodyError> {
        json::read(json, Self::table(), |group, reader| {
            reader.group(reader.at(group, ""), &Self::base())
        })
    }

    /// The body of a request that adds it.
    #[must_use]
    pub fn json(&self) -> Json {
        body_of(self.given().into_iter(), self)
    }

    /// Each setting that differs from its default, and its value as a flag has it.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let settings = self.given().into_iter();
        settings
            .map(|setting| (setting.name, word(setting, self)))
            .collect()
    }

    fn given(&self) -> Vec<&'static Setting<Self>> {
        let implied = table::Shape::implied(self, &Self::base());
        let differs =
            |its: &&Setting<Self>| its.row.facts().is_required || !its.row.is_same(self, &implied);
        Self::table().iter().filter(differs).collect()
    }

    /// The names of the settings in which two differ.
    pub(crate) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differing = Self::table().iter();
        let differing = differing.filter(|setting| !setting.row.is_same(self, other));
        differing.map(|setting| setting.name).collect()
    }
}

/// The value of a setting as a flag has it.
fn word<G>(setting: &Setting<G>, group: &G) -> String {
    let value = setting.row.text(group, &Around::default()).json();
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// All settings of a backend, for logs.
pub(crate) fn backend_values(backend: &Backend) -> Json {
    values_of(Backend::table().iter(), backend)
}

/// The settings of a group that a patch can change, for logs.
pub(crate) fn changeable_values<G: Changeable>(group: &G) -> Json {
    values_of(G::rows().settings.iter(), group)
}

fn values_of<'a, G: 'a>(settings: impl Iterator<Item = &'a Setting<G>>, group: &G) -> Json {
    object_of(settings, group, Text::json)
}

/// Settings as a request sends them.
fn body_of<'a, G: 'a>(settings: impl Iterator<Item = &'a Setting<G>>, group: &G) -> Json {
    object_of(settings, group, Text::body)
}

fn object_of<'a, G: 'a>(
    settings: impl Iterator<Item = &'a Setting<G>>,
    group: &G,
    json: fn(&Text) -> Json,
) -> Json {
    let value = |setting: &Setting<G>| json(&setting.row.text(group, &Around::default()));
    let fields = settings.map(|setting| (setting.name.to_owned(), value(setting)));
    fields.collect::<Map<_, _>>().into()
}

/// Declares which settings of a group a [`Patch`] can change.
macro_rules! changeable {
    ($Group:ident, $schema:literal, $settings:expr) => {
        impl Changeable for $Group {
            const SCHEMA: &'static str = $schema;

            fn rows() -> &'static Rows<Self> {
                static ROWS: LazyLock<Rows<$Group>> = LazyLock::new(|| Rows {
                    base: $Group::base,
                    settings: $settings.into(),
                });
                &ROWS
            }
        }
    };
}

changeable!(
    Backend,
    "BackendChange",
    [
        "weight",
        "max_connections",
        "bandwidth",
        "send_proxy",
        "state"
    ]
    .map(setting)
);
changeable!(Pool, "PoolChange", of_pool());
changeable!(
    Listener,
    "ListenerChange",
    [
        "max_connections",
        "fleet_max_connections",
        "access_list",
        "rate_limit",
        "source_limits",
        "ban",
        "bandwidth",
    ]
    .map(setting)
);
changeable!(
    AccessEdits,
    "AccessListChange",
    ["allow", "deny", "remove"].map(setting)
);
changeable!(NewWeights, "RouteChange", ["pools", "version"].map(setting));
changeable!(
    NewBan,
    "NewBan",
    ["prefix", "for", "reason", "force"].map(setting)
);
changeable!(
    Config,
    "GlobalChange",
    ["max_connections", "fleet_max_connections", "rate_limit"].map(setting)
);

fn of_pool() -> Vec<Setting<Pool>> {
    let mut table = TableBuilder::new(&[
        "How a backend is selected: a name, or a group in RON such as",
        "`(name: \"hash\", key: \"sni\")`.",
    ]);
    let put = Pool::select_by;
    let get = |pool: &Pool| pool.strategy.clone();
    table.add(("strategy", &[]), strategy(), get, put);
    table.settings.push(setting("max_connections"));
    table.settings.push(setting("send_proxy"));
    table.add(
        ("queue_max", setting::<QueueLimits>("max").about),
        number(values::QUEUE).or("off"),
        |pool: &Pool| pool.queue.max_or_off(),
        |pool: &mut Pool, max| pool.queue.put_max(max),
    );
    table.add(
        ("queue_timeout", setting::<QueueLimits>("timeout").about),
        duration(values::QUEUE_WAIT),
        |pool: &Pool| pool.queue.timeout,
        |pool: &mut Pool, timeout| pool.queue.timeout = timeout,
    );
    table.settings
}

/// A strategy in one string.
fn strategy() -> Codec<super::Strategy> {
    let expected = "a name, or a group such as (name: \"hash\", key: \"sni\"), in a string";
    Codec::new(
        expected,
        json!({ "type": "string" }),
        move |at, reader, _| match at.text() {
            Some(text) => reader.take(at, values::strategy_of(text)),
            None => reader.unexpected(at, expected),
        },
        |strategy, _, around| {
            let strategy = strategy.clone();
            let text = table::text(&StrategyFile { strategy }, &StrategyFile::base(), around);
            match text {
                Text::Leaf(_) => text,
                Text::Fields(_) | Text::List(_) => Text::quoted(&text.shown().unwrap_or_default()),
            }
        },
    )
}

#[cfg(test)]
impl<G: Changeable> Patch<G> {
    /// These settings with these values.
    pub(crate) fn all(settings: &[(&str, &str)]) -> Self {
        let each = settings.iter();
        let each = each.map(|(name, text)| Self::of(name, text).unwrap());
        each.fold(Self::default(), |all, one| one.after(&all))
    }
}
