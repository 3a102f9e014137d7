//! The peers: clients and backends that follow a script.

use std::collections::VecDeque;

use crate::random::Random;

use mahoraga::time::{MS, US};

/// One act of a peer; the next one begins when it is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Sends the header of a proxy.
    Header,
    /// Sends this many bytes, as fast as the connection takes them.
    Send(u64),
    /// Sends a byte every so often, for ever.
    Drip(u64),
    /// Sends a byte for each one that it reads, until the other end has ended.
    Echo,
    /// Does nothing for a time.
    Pause(u64),
    /// Does not read for a time.
    Deafen(u64),
    /// Reads in sips for a time, some 10 kB a second.
    Sip(u64),
    /// Waits until it has read this many bytes.
    Await(u64),
    /// Waits until what it has asked for is answered.
    AwaitAnswer,
    /// Waits for the end of what it reads.
    AwaitEnd,
    /// Ends its own direction.
    Fin,
    /// Closes: sends FIN, reads no more, answers further bytes by RST.
    Close,
    /// Aborts by RST.
    Reset,
}

/// The state of a peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) script: VecDeque<Act>,
    /// A look at the script is scheduled already.
    pub(crate) acting: bool,
    /// A read is under way.
    pub(crate) reading: bool,
    pub(crate) deaf_until: u64,
    pub(crate) sips_until: u64,
    /// Bytes sent by [`Act::Echo`].
    pub(crate) echoed: u64,
    /// It sends its next bytes only when the last ones are acknowledged (Nagle).
    pub(crate) patient: bool,
    /// When it closed both directions.
    pub(crate) closed_at: Option<u64>,
    /// The most bytes that it reads at once, and the longest time that a read takes.
    pub(crate) read_bytes: u64,
    pub(crate) read_time: u64,
    /// The longest time between two writes.
    pub(crate) write_time: u64,
}

impl Peer {
    fn new(script: Vec<Act>, random: &mut Random) -> Self {
        let slow = random.permille(150);
        Self {
            script: script.into(),
            acting: false,
            reading: false,
            deaf_until: 0,
            sips_until: 0,
            echoed: 0,
            patient: random.permille(300),
            closed_at: None,
            read_bytes: random.pick(&[700, 1_448, 16_384, 65_536, 1 << 20]),
            read_time: if slow { 3 * MS } else { 30 * US },
            write_time: random.pick(&[5 * US, 50 * US, MS]),
        }
    }

    pub(crate) fn client(random: &mut Random) -> Self {
        let script = client_script(random);
        Self::new(with_pauses(script, random), random)
    }

    /// A client that sends a byte after each such time.
    pub(crate) fn dripping(every: u64, random: &mut Random) -> Self {
        Self::new(vec![Act::Drip(every)], random)
    }

    pub(crate) fn backend(random: &mut Random) -> Self {
        let script = backend_script(random);
        Self::new(with_pauses(script, random), random)
    }

    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.script.front(), Some(Act::Send(_) | Act::Drip(_)))
    }
}

fn client_script(random: &mut Random) -> Vec<Act> {
    let bytes = amount(random);
    match random.below(17) {
        // Enough to be spliced back, to a client that stops reading in the middle, or nearly there.
        stops @ 13..=15 => vec![
            Act::Send(bytes.max(300_000)),
            Act::Fin,
            Act::Await(100_000),
            match stops {
                13 => Act::Sip(DEAF_FOR_LONG),
                _ => Act::Deafen(DEAF_FOR_LONG),
            },
            Act::AwaitEnd,
        ],
        0..=3 => vec![Act::Send(bytes), Act::Fin, Act::AwaitEnd, Act::Close],
        4 => vec![Act::Send(bytes), Act::AwaitEnd, Act::Fin],
        5 => vec![Act::Send(bytes), Act::Await(1), Act::Send(bytes), Act::Fin],
        6 => vec![Act::Send(bytes), Act::Reset],
        7 => vec![Act::Send(bytes), Act::Fin, Act::Await(100), Act::Reset],
        8 => vec![Act::Fin, Act::AwaitEnd],
        9 => vec![Act::Send(bytes), Act::Close],
        10 => vec![Act::Drip(random.between(MS, 40 * MS))],
        11 => vec![Act::AwaitEnd, Act::Send(bytes), Act::Fin],
        12 => vec![Act::Send(bytes)],
        _ => vec![
            Act::Send(BULK),
            Act::Pause(MS),
            Act::Send(900),
            Act::Pause(2 * MS),
            Act::Send(BULK / 2),
            Act::Fin,
            Act::AwaitEnd,
        ],
    }
}

fn backend_script(random: &mut Random) -> Vec<Act> {
    let bytes = amount(random);
    match random.below(15) {
        13 => vec![Act::Fin, Act::Deafen(DEAF_FOR_LONG), Act::AwaitEnd],
        0..=3 => vec![Act::Echo, Act::Fin],
        4 => vec![Act::Send(bytes), Act::Echo, Act::Fin],
        5 => vec![Act::AwaitEnd, Act::Send(bytes), Act::Fin],
        6 => vec![Act::Send(bytes), Act::Fin, Act::AwaitEnd],
        7 => vec![Act::Send(bytes), Act::Close],
        8 => vec![Act::Await(10), Act::Send(bytes), Act::Close],
        9 => vec![Act::Await(500), Act::Send(bytes), Act::Reset],
        10 => vec![Act::Await(1), Act::Reset],
        11 => vec![Act::Send(bytes)],
        12 => vec![Act::Send(bytes), Act::Drip(random.between(MS, 40 * MS))],
        _ => vec![
            Act::Send(BULK),
            Act::Pause(MS),
            Act::Send(900),
            Act::Pause(2 * MS),
            Act::Send(BULK / 2),
            Act::AwaitEnd,
            Act::Fin,
        ],
    }
}

/// Adds pauses and stretches without reading at any place.
fn with_pauses(script: Vec<Act>, random: &mut Random) -> Vec<Act> {
    let mut paused = Vec::new();
    for act in script {
        if random.permille(250) {
            paused.push(Act::Pause(random.lag()));
        }
        if random.permille(150) {
            let most = random.pick(&[400, 400, 4_000]);
            paused.push(Act::Deafen(random.between(MS, most * MS)));
        }
        paused.push(act);
    }
    paused
}

fn amount(random: &mut Random) -> u64 {
    match random.below(20) {
        0..=7 => random.between(1, 2_000),
        8..=15 => random.between(1, 40_000),
        16..=18 => random.between(40_000, 200_000),
        _ => BULK,
    }
}

/// A sink that stays full longer than any timeout.
const DEAF_FOR_LONG: u64 = 3_000 * MS;
/// Enough for a promotion to splice.
const BULK: u64 = 500_000;
