//! The first bytes of a client, which may be anything.

use mahoraga::peek::{BYTES_MAX, Field, Peeked, peek};

/// Once a prefix gives an answer, all longer ones give the same answer.
pub fn first_bytes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX + 1)];
    let fields = [
        Field::Sni,
        Field::TlsSessionId,
        Field::HttpPath,
        Field::HttpHost,
        Field::HttpCookie("sid".into()),
        Field::RdpCookie,
        Field::MqttClientId,
        Field::PostgresUser,
        Field::PostgresDatabase,
    ];
    for field in fields {
        let answer = peek(&field, bytes);
        assert!(bytes.len() < BYTES_MAX || answer != Peeked::Incomplete);
        let mut before = Peeked::Incomplete;
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 256) {
            let peeked = peek(&field, &bytes[..length]);
            let settles = before == Peeked::Incomplete || before == peeked;
            assert!(
                settles,
                "{field:?}: {before:?}, and {peeked:?} in {length} bytes"
            );
            before = peeked;
        }
        assert!(
            before == Peeked::Incomplete || before == answer,
            "{field:?}: {before:?}"
        );
    }
}
