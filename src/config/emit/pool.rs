//! Pools and backends, as a file says them.

use super::value::{Fields, Value, name_of};
use super::{check, or_off};
use crate::config::strategy::SUBSET;
use crate::config::{
    AdminState, AllDown, Backend, Discovery, Ejection, FirstTier, Group, Hash, Key, LeastTime,
    OnDown, Persist, Pool, Predictive, Queue, ScaleBy, Scaling, SecondTier, Strategy, TwoTier,
};

pub(super) fn pool(pool: &Pool) -> Value {
    let is_sticky = pool.strategy == Strategy::StickyRoundRobin;
    let persist = pool.persist.as_ref().filter(|_| !is_sticky);
    let (reserve, backends): (Vec<_>, Vec<_>) =
        pool.backends.iter().partition(|backend| backend.reserve);
    let list = |backends: &[&Backend]| Value::list(backends.iter().map(|one| backend(one)));
    let strategy = (pool.strategy != Strategy::default()).then(|| strategy(pool));
    let all_down = pool.all_down.as_ref();
    let all_down = all_down.map(|answer| Value::text(name_of(&AllDown::ALL, answer)));
    let is_ejected = pool.ejection == Some(Ejection::default());
    Fields::default()
        .with("name", Value::text(&pool.name))
        .some("strategy", strategy)
        .some("persist", persist.map(self::persist))
        .some("max_connections", pool.max_connections)
        .unless(pool.origins.addresses.is_empty(), "source", || {
            let addresses = pool.origins.addresses.iter();
            Value::list(addresses.map(|address| Value::text(&address.to_string())))
        })
        .some(
            "source_ports",
            pool.origins
                .ports
                .map(|ports| Value::text(&ports.to_string())),
        )
        .some("queue", queue(pool.queue))
        .some("check", pool.check.as_ref().map(check::check))
        .unless(is_ejected, "ejection", || ejection(pool.ejection))
        .some("panic_below", pool.panic_below)
        .some("all_down", all_down)
        .some("slow_start", pool.slow_start)
        .some("on_down", on_down(pool.on_down))
        .some("discover", pool.discovery.as_ref().map(discovery))
        .some("scaling", pool.scaling.as_ref().map(scaling))
        .unless(backends.is_empty(), "backends", || list(&backends))
        .unless(reserve.is_empty(), "reserve", || list(&reserve))
        .into()
}

fn backend(backend: &Backend) -> Value {
    let address = backend.target().to_string();
    let fields = Fields::default()
        .unless(backend.name == address, "name", || {
            Value::text(&backend.name)
        })
        .differs("weight", backend.weight, 1)
        .some("max_connections", backend.max_connections)
        .unless(!backend.backup, "backup", || true.into())
        .some("group", backend.group.as_deref().map(Value::text))
        .unless(backend.state == AdminState::default(), "state", || {
            Value::text(backend.state.as_str())
        });
    let address = Value::text(&address);
    if fields.is_empty() {
        address
    } else {
        fields.led_by("address", address).into()
    }
}

fn strategy(pool: &Pool) -> Value {
    let fields = Fields::default();
    let fields = match &pool.strategy {
        Strategy::RoundRobin
        | Strategy::LeastConnections
        | Strategy::Random
        | Strategy::PowerOfTwo
        | Strategy::First => fields,
        Strategy::StickyRoundRobin => {
            remembering(fields, &pool.persist.clone().unwrap_or_default())
        }
        Strategy::Hash(Hash { key, max_load }) => {
            self::key(fields, key).some("max_load", max_load.map(Value::ratio))
        }
        Strategy::LeastTime(settings) => decay(fields, *settings),
        Strategy::TwoTier(tiers) => two_tier(tiers, pool),
        Strategy::Predictive(Predictive { horizon, season }) => {
            let default = Predictive::default();
            fields.differs("horizon", *horizon, default.horizon).unless(
                *season == default.season,
                "season",
                || or_off(*season),
            )
        }
    };
    let name = Value::text(pool.strategy.name());
    if fields.is_empty() {
        name
    } else {
        fields.led_by("name", name).into()
    }
}

fn two_tier(tiers: &TwoTier, pool: &Pool) -> Fields {
    let default = TwoTier::default();
    let fields = match &tiers.first {
        FirstTier::Hash { key, subset } => {
            self::key(Fields::default(), key)
                .unless(*subset == SUBSET, "subset", || subset.get().into())
        }
        first @ (FirstTier::Weight | FirstTier::Priority) => {
            Fields::default().with("first", Value::text(first.name()))
        }
    };
    let fields = fields.unless(tiers.then == default.then, "then", || {
        Value::text(tiers.then.name())
    });
    let fields = match tiers.then {
        SecondTier::LeastTime(settings) => decay(fields, settings),
        SecondTier::LeastConnections | SecondTier::PowerOfTwo => fields,
    };
    let of_backends = Group::of(pool.backends.iter());
    let group = |group: &Group| {
        let name = Value::text(&group.name);
        // A weight of 0 is still to be that of the backends.
        if group.weight == 0 || of_backends.contains(group) {
            name
        } else {
            let fields = Fields::default().with("name", name);
            fields.with("weight", group.weight).into()
        }
    };
    let is_said = tiers.groups.is_empty() || tiers.groups == of_backends;
    fields.unless(is_said, "groups", || {
        Value::list(tiers.groups.iter().map(group))
    })
}

fn decay(fields: Fields, LeastTime { decay }: LeastTime) -> Fields {
    fields.differs("decay", decay, LeastTime::default().decay)
}

fn key(fields: Fields, key: &Key) -> Fields {
    fields.unless(*key == Key::default(), "key", || {
        Value::text(&key.to_string())
    })
}

fn persist(persist: &Persist) -> Value {
    let default = Persist::default();
    let is_short = persist.ttl == default.ttl && persist.clients_max == default.clients_max;
    if is_short {
        return Value::text(&persist.key.to_string());
    }
    remembering(Fields::default(), persist).into()
}

fn remembering(fields: Fields, persist: &Persist) -> Fields {
    let default = Persist::default();
    key(fields, &persist.key)
        .differs("ttl", persist.ttl, default.ttl)
        .differs("clients_max", persist.clients_max, default.clients_max)
}

fn queue(queue: Queue) -> Option<Value> {
    let default = Queue::default();
    let fields = Fields::default()
        .differs("max", queue.max, default.max)
        .differs("timeout", queue.timeout, default.timeout);
    if queue.max == 0 && queue.timeout == default.timeout {
        Some(Value::text("off"))
    } else {
        fields.if_any()
    }
}

fn ejection(ejection: Option<Ejection>) -> Value {
    let Some(ejection) = ejection else {
        return Value::text("off");
    };
    let default = Ejection::default();
    let max = default.max.max(ejection.base);
    Fields::default()
        .differs("failures", ejection.failures, default.failures)
        .differs("base", ejection.base, default.base)
        .differs("max", ejection.max, max)
        .differs("share", ejection.share, default.share)
        .unless(ejection.latency == default.latency, "latency", || {
            ejection
                .latency
                .map_or_else(|| Value::text("off"), Value::ratio)
        })
        .into()
}

fn on_down(on_down: OnDown) -> Option<Value> {
    match on_down {
        OnDown::Keep => None,
        OnDown::Close(over) if over.is_zero() => Some(Value::text("close")),
        OnDown::Close(over) => Some(Fields::default().with("close_over", over).into()),
    }
}

fn discovery(discovery: &Discovery) -> Value {
    let fields = Fields::default();
    let fields = match discovery {
        Discovery::Dns { name, port } => fields.with("dns", Value::text(name)).with("port", *port),
        Discovery::Srv(name) => fields.with("srv", Value::text(name)),
        Discovery::File(path) => fields.with("file", &**path),
    };
    fields.into()
}

fn scaling(scaling: &Scaling) -> Value {
    let default = Scaling::default();
    Fields::default()
        .unless(scaling.by == default.by, "by", || {
            Value::text(name_of(&ScaleBy::ALL, &scaling.by))
        })
        .differs("high", scaling.high, default.high)
        .differs("low", scaling.low, Scaling::low_default(scaling.high))
        .differs("window", scaling.window, default.window)
        .differs("cool_down", scaling.cool_down, default.cool_down)
        .differs("min", scaling.min, default.min)
        .some("webhook", scaling.webhook.as_deref().map(Value::text))
        .into()
}
