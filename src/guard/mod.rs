//! Admission: which clients may connect, and how many connections there may be. [`ClientStage`] and
//! [`PeerStage`] are what a listener asks.

#![forbid(unsafe_code)]

mod access;
mod action;
mod bandwidth;
mod bans;
mod client_stage;
mod example;
mod fleet_rate;
mod gate;
mod index;
mod limit;
mod overload;
mod pacing;
mod peer_stage;
mod prefixes;
mod ranges;
mod rate;
mod sample;
mod share;
mod sources;
mod syn_program;
mod trusted;

pub use access::{Access, AccessFilter, AccessFilters, AccessVerdict, Refused};
pub use action::{Action, Pit};
pub use bandwidth::{ByteRate, ListenerBandwidth, Meter, Meters};
pub use bans::{
    Ban, BanNews, BanRule, BannedBy, Bans, BansFull, ImportOutcome, ImportedBan, ImportedBans,
    RuleBan,
};
pub use client_stage::{Barred, ClientPass, ClientStage, Denied, DeniedBy};
pub use example::Example;
pub use fleet_rate::{FleetRate, FleetRule};
pub use gate::{Gate, Pass, RateRule, Refusal, Rules};
pub use limit::Limit;
pub use overload::{Admission, OverloadDetector, Shed};
pub use pacing::{Buckets, Lane, Pacing, SHARED, SharedLimit};
pub use peer_stage::{PeerDenied, PeerStage};
pub use prefixes::{Clash, Prefixes};
pub use rate::Rate;
pub use sample::Sample;
pub use sources::{Held, SourcePlace, SourceRules, Sources};
pub use syn_program::{
    ClassicInstruction, ExtendedInstruction, classic_syn_program, extended_syn_program,
};
pub use trusted::Trusted;
