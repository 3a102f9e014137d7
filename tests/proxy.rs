//! The real program on the real ring on loopback, between clients and backends made of threads
//! and blocking sockets.
//!
//! Tests end by [`balancer::Balancer::finish`]: the process is back to its starting descriptors,
//! every gauge is 0, nothing panicked, it idles, and SIGTERM ends it with 0. Two kinds don't: those
//! that are about the end itself (in `signals`, and the stop at the limit in `max_connections`)
//! wait for the exit code that they expect, and those that are about a start refused (in `startup`)
//! read code and log. Times are never asserted, other than that waiting costs next to no CPU; a
//! watchdog turns a hang into a failure. Without io_uring these tests fail: they skip nothing.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests stand outside of the balancer, in wall time"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "proxy/accept_proxy.rs"]
mod accept_proxy;
#[path = "proxy/access_lists.rs"]
mod access_lists;
#[path = "proxy/access_log.rs"]
mod access_log;
#[path = "proxy/actions.rs"]
mod actions;
#[path = "proxy/administration.rs"]
mod administration;
#[path = "proxy/agreement.rs"]
mod agreement;
#[path = "proxy/api.rs"]
mod api;
#[path = "proxy/asking.rs"]
mod asking;
#[path = "proxy/authority.rs"]
mod authority;
#[path = "proxy/balancer.rs"]
mod balancer;
#[path = "proxy/bandwidth.rs"]
mod bandwidth;
#[path = "proxy/bans.rs"]
mod bans;
#[path = "proxy/bytes.rs"]
mod bytes;
#[path = "proxy/connecting.rs"]
mod connecting;
#[path = "proxy/crowd.rs"]
mod crowd;
#[path = "proxy/crowded.rs"]
mod crowded;
#[path = "proxy/dashboard.rs"]
mod dashboard;
#[path = "proxy/discovery.rs"]
mod discovery;
#[path = "proxy/echo.rs"]
mod echo;
#[path = "proxy/ejection.rs"]
mod ejection;
#[path = "proxy/ends_together.rs"]
mod ends_together;
#[path = "proxy/equal_parts.rs"]
mod equal_parts;
#[path = "proxy/etcd.rs"]
mod etcd;
#[path = "proxy/exhaustion.rs"]
mod exhaustion;
#[path = "proxy/explain.rs"]
mod explain;
#[path = "proxy/first_bytes.rs"]
mod first_bytes;
#[path = "proxy/fleet.rs"]
mod fleet;
#[path = "proxy/half_close.rs"]
mod half_close;
#[path = "proxy/hashing.rs"]
mod hashing;
#[path = "proxy/health.rs"]
mod health;
#[path = "proxy/hindered.rs"]
mod hindered;
#[path = "proxy/history.rs"]
mod history;
#[path = "proxy/leaving.rs"]
mod leaving;
#[path = "proxy/loops.rs"]
mod loops;
#[path = "proxy/machines.rs"]
mod machines;
#[path = "proxy/max_connections.rs"]
mod max_connections;
#[path = "proxy/metrics.rs"]
mod metrics;
#[path = "proxy/moved.rs"]
mod moved;
#[path = "proxy/network.rs"]
mod network;
#[path = "proxy/operations.rs"]
mod operations;
#[path = "proxy/overload.rs"]
mod overload;
#[path = "proxy/panic.rs"]
mod panic;
#[path = "proxy/peers.rs"]
mod peers;
#[path = "proxy/persistence.rs"]
mod persistence;
#[path = "proxy/places.rs"]
mod places;
#[path = "proxy/ports.rs"]
mod ports;
#[path = "proxy/postgres.rs"]
mod postgres;
#[path = "proxy/postgres_tls.rs"]
mod postgres_tls;
#[path = "proxy/pressure.rs"]
mod pressure;
#[path = "proxy/privileges.rs"]
mod privileges;
#[path = "proxy/process.rs"]
mod process;
#[path = "proxy/queue.rs"]
mod queue;
#[path = "proxy/recipes.rs"]
mod recipes;
#[path = "proxy/registries.rs"]
mod registries;
#[path = "proxy/regret.rs"]
mod regret;
#[path = "proxy/reload.rs"]
mod reload;
#[path = "proxy/reloads.rs"]
mod reloads;
#[path = "proxy/reset.rs"]
mod reset;
#[path = "proxy/revoked.rs"]
mod revoked;
#[path = "proxy/roles.rs"]
mod roles;
#[path = "proxy/rolling_restart.rs"]
mod rolling_restart;
#[path = "proxy/routes.rs"]
mod routes;
#[path = "proxy/runtime.rs"]
mod runtime;
#[path = "proxy/scaling.rs"]
mod scaling;
#[path = "proxy/send_proxy.rs"]
mod send_proxy;
#[path = "proxy/server.rs"]
mod server;
#[path = "proxy/sharing.rs"]
mod sharing;
#[path = "proxy/signals.rs"]
mod signals;
#[path = "proxy/slow_readers.rs"]
mod slow_readers;
#[path = "proxy/slow_start.rs"]
mod slow_start;
#[path = "proxy/sni_member.rs"]
mod sni_member;
#[path = "proxy/sources.rs"]
mod sources;
#[path = "proxy/stage.rs"]
mod stage;
#[path = "proxy/stall.rs"]
mod stall;
#[path = "proxy/startup.rs"]
mod startup;
#[path = "proxy/storm.rs"]
mod storm;
#[path = "proxy/strategies.rs"]
mod strategies;
#[path = "proxy/streams.rs"]
mod streams;
#[path = "proxy/stuck.rs"]
mod stuck;
#[path = "proxy/syn_filter.rs"]
mod syn_filter;
#[path = "proxy/systemd.rs"]
mod systemd;
#[path = "proxy/tags.rs"]
mod tags;
#[path = "proxy/tiers.rs"]
mod tiers;
#[path = "proxy/tls.rs"]
mod tls;
#[path = "proxy/tls_backends.rs"]
mod tls_backends;
#[path = "proxy/tls_clients.rs"]
mod tls_clients;
#[path = "proxy/tls_files.rs"]
mod tls_files;
#[path = "proxy/tls_routes.rs"]
mod tls_routes;
#[path = "proxy/traffic.rs"]
mod traffic;
#[path = "proxy/transparency.rs"]
mod transparency;
#[path = "proxy/urgent.rs"]
mod urgent;
#[path = "proxy/waits.rs"]
mod waits;
#[path = "proxy/watchdog.rs"]
mod watchdog;
#[path = "proxy/weights.rs"]
mod weights;
