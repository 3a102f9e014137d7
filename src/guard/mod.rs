//! Admission: which clients may connect, and how many connections there may be.

#![forbid(unsafe_code)]

mod access;
mod action;
mod bandwidth;
mod bans;
mod gate;
mod index;
mod limit;
mod overload;
mod pacing;
mod prefixes;
mod ranges;
mod rate;
mod sample;
mod sources;
mod syn_program;
mod trusted;

pub use access::{Access, AccessFilter, AccessFilters, AccessVerdict, Refused};
pub use action::{Action, Pit};
pub use bandwidth::{ByteRate, ListenerBandwidth, Meter, Meters};
pub use bans::{Ban, BanNews, BanRule, BannedBy, Bans, BansFull, RuleBan};
pub use gate::{Gate, Pass, RateRule, Refusal, Rules};
pub use limit::Limit;
pub use overload::{Admission, OverloadDetector, Shed};
pub use pacing::{Buckets, Lane, Pacing, SHARED, SharedLimit};
pub use prefixes::{Clash, Prefixes};
pub use rate::Rate;
pub use sample::Sample;
pub use sources::{Held, SourcePlace, SourceRules, Sources};
pub use syn_program::{
    ClassicInstruction, ExtendedInstruction, classic_syn_program, extended_syn_program,
};
pub use trusted::Trusted;
