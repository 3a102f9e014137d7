//! The other balancers of the fleet.

use std::fmt::Write;

use crate::admin::model::{PeerStatus, PeersStatus};
use crate::cli::admin::table::{Paint, Tone};
use crate::cli::admin::units::{count, plain};
use crate::wording::counted;

/// A line for each peer, and one for strangers once there were any.
pub(super) fn peers(peers: &PeersStatus, paint: Paint) -> String {
    let mut text = String::new();
    for (nth, peer) in peers.members.iter().enumerate() {
        let name = if nth == 0 { "peers" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {}", line(peer, paint));
    }
    if peers.strangers > 0 {
        let strangers = counted(peers.strangers, count(peers.strangers), "connection");
        let _ = writeln!(text, "{:<12} {strangers} of no peer refused", "");
    }
    text
}

fn line(peer: &PeerStatus, paint: Paint) -> String {
    let (state, tone) = match (peer.sending, peer.receiving) {
        (true, true) => ("connected", Tone::Good),
        (true, false) => ("sends nothing", Tone::Bad),
        (false, true) => ("takes nothing", Tone::Bad),
        (false, false) => ("not connected", Tone::Bad),
    };
    let refused: u64 = peer.refused.values().sum();
    let reasons: Vec<_> = peer.refused.keys().map(String::as_str).collect();
    let reasons = match &*reasons {
        [] => String::new(),
        reasons => format!(" ({})", plain(&reasons.join(", "))),
    };
    let lag = peer.lag_ms.map(|ms| format!(", lag {ms} ms"));
    format!(
        "{} {}, {} sent, {} received, {} refused{reasons}{}",
        plain(&peer.name),
        paint.toned(state, tone),
        count(peer.sent),
        count(peer.received),
        count(refused),
        lag.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_line() {
        let peer = PeerStatus {
            name: "lb-2".to_owned(),
            sending: true,
            receiving: true,
            sent: 3,
            received: 4,
            refused: [("clock".to_owned(), 5)].into(),
            lag_ms: Some(2),
            ..PeerStatus::default()
        };
        let silent = PeerStatus {
            name: "lb-3".to_owned(),
            ..PeerStatus::default()
        };
        let all = PeersStatus {
            members: vec![peer, silent],
            strangers: 1,
        };
        let want = "peers        lb-2 connected, 3 sent, 4 received, 5 refused (clock), lag \
                    2 ms\n             \
                    lb-3 not connected, 0 sent, 0 received, 0 refused\n             \
                    1 connection of no peer refused\n";
        assert_eq!(peers(&all, Paint(false)), want);
        assert_eq!(peers(&PeersStatus::default(), Paint(false)), "");
    }
}
