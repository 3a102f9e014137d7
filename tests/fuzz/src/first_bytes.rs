//! The first bytes of a client, which may be anything.

use mahoraga::peek::{BYTES_MAX, Field, FirstBytes, Miss, Peeked, Protocol, peek};

/// Once a prefix tells a protocol, or a field, all longer ones tell the same.
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
    let mut before = (
        Err(Miss::Incomplete),
        fields.clone().map(|_| Peeked::Incomplete),
    );
    let some = (0..bytes.len()).step_by(1 + bytes.len() / 256);
    for length in some.chain([bytes.len()]) {
        let first = FirstBytes::new(&bytes[..length], false);
        let now = (
            first.protocol(),
            fields.each_ref().map(|field| first.key(field)),
        );
        let settles = before.0 == Err(Miss::Incomplete) || before.0 == now.0;
        assert!(settles, "{:?}, and {:?} in {length} bytes", before.0, now.0);
        for (field, (before, now)) in fields.iter().zip(before.1.iter().zip(&now.1)) {
            let settles = *before == Peeked::Incomplete || before == now;
            assert!(
                settles,
                "{field:?}: {before:?}, and {now:?} in {length} bytes"
            );
        }
        if let Some(field) = fields
            .iter()
            .zip(&now.1)
            .find(|its| matches!(its.1, Peeked::Found(_)))
        {
            assert_is_of(field.0, now.0);
        }
        before = now;
    }
    for field in &fields {
        assert!(bytes.len() < BYTES_MAX || peek(field, bytes) != Peeked::Incomplete);
    }
}

/// A field that is found is one of the protocol that is told. A method of HTTP could begin as SSH
/// does.
fn assert_is_of(field: &Field, told: Result<Protocol, Miss>) {
    if told == Ok(Protocol::Ssh) {
        return;
    }
    let protocol = match field {
        Field::Sni | Field::TlsSessionId => Protocol::Tls,
        Field::HttpPath | Field::HttpHost | Field::HttpCookie(_) => Protocol::Http,
        Field::RdpCookie => Protocol::Rdp,
        Field::MqttClientId => Protocol::Mqtt,
        Field::PostgresUser | Field::PostgresDatabase => Protocol::Postgres,
        Field::ProxyTlv(_) | Field::TlsClientCn | Field::TlsClientFingerprint => {
            unreachable!("it is in no first bytes")
        }
    };
    assert_eq!(told, Ok(protocol), "{field:?}");
}
