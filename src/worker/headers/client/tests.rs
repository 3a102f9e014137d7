//! Who the client of a header is, and what is no header.

use super::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
/// With padding, which is a TLV.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x02\xc6\x33\x64\x07\xdc\x04\x01\xbb\
                    \x04\0\0";

fn proxy() -> ProxyPeer {
    ProxyPeer::Tcp("10.0.0.5:40000".parse().expect("an address"))
}

#[track_caller]
fn client(first: &[u8], proxy: ProxyPeer) -> HeaderClient {
    let found = client_of(first, proxy, false).expect("no flaw");
    let (length, client) = found.expect("all of it");
    assert!(length <= first.len());
    client
}

#[test]
fn a_header_names_its_client_or_the_proxy_is_the_client() {
    let [of_v1, of_v2] = [V1, V2].map(|first| client(first, proxy()));
    assert_eq!(of_v1.peer, "192.0.2.1:56324".parse().ok());
    assert_eq!(of_v2.peer, "192.0.2.2:56324".parse().ok());
    assert_eq!(of_v1.named.destination, "198.51.100.7:443".parse().ok());
    assert!(of_v1.named.tlvs.is_empty());
    assert_eq!(&*of_v2.named.tlvs, b"\x04\0\0");
    assert_eq!((of_v1.named.proxy, of_v1.named.is_own), (proxy(), false));
    for (first, is_own) in [
        (proxy_protocol::LOCAL_V1, false),
        (proxy_protocol::LOCAL_V2, true),
    ] {
        let own = client(first, proxy());
        assert_eq!((own.peer, own.named.destination), (proxy().address(), None));
        assert_eq!(own.named.is_own, is_own);
        assert_eq!(client(first, ProxyPeer::Unix).peer, None);
    }
    assert_eq!(client(V1, ProxyPeer::Unix).peer, of_v1.peer);
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 56324 443\r\n";
    let mapped = client(mapped, proxy());
    assert_eq!(mapped.peer, of_v1.peer);
    assert_eq!(mapped.named.destination, of_v1.named.destination);
    let shown = [proxy(), ProxyPeer::Unix].map(|its| its.to_string());
    assert_eq!(shown, ["10.0.0.5:40000", "unix"]);
}

/// However a stream is cut, it has the same client or the same flaw.
#[test]
fn every_piece_of_a_stream_gives_the_same_answer() {
    for (stream, served) in [
        ([V1, b"hello"].concat(), Some(V1.len())),
        ([V2, b"\x16\x03\x01"].concat(), Some(V2.len())),
        ([V1, b"PROXIES"].concat(), Some(V1.len())),
        ([V2, b"\r\n\r\n\0GET"].concat(), Some(V2.len())),
        ([V1, V1].concat(), None),
        ([V1, V2].concat(), None),
        ([V2, V1, b"hello"].concat(), None),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        (b"PROXY TCP4 192.0.2.1\r\n".to_vec(), None),
    ] {
        let whole = client_of(&stream, proxy(), false);
        let length = whole
            .as_ref()
            .ok()
            .map(|found| found.as_ref().ok().map(|its| its.0));
        assert_eq!(length, served.map(Some), "{}", stream.escape_ascii());
        for cut in 0..stream.len() {
            let piece = client_of(&stream[..cut], proxy(), false);
            // A header alone: that no other one follows is not waited for.
            let is_alone = cut == V1.len() && stream.starts_with(V1)
                || cut == V2.len() && stream.starts_with(V2);
            if !is_alone {
                assert!(
                    matches!(piece, Ok(Err(_))) || piece == whole,
                    "{cut} of {}",
                    stream.escape_ascii()
                );
            }
        }
    }
}

#[test]
fn at_the_end_of_its_time_what_has_come_counts() {
    let lack = |come, has_header| Ok(Err(Lack { come, has_header }));
    for behind in [&b"\r\n"[..], b"P", b"PROXY", b"\r\n\r\n\0\r\nQUIT"] {
        let begun = [V1, behind].concat();
        assert_eq!(client_of(&begun, proxy(), false), lack(begun.len(), true));
        let found = client_of(&begun, proxy(), true).expect("no flaw");
        assert_eq!(found.map(|its| its.0), Ok(V1.len()));
    }
    for last in [false, true] {
        assert_eq!(client_of(&V1[..20], proxy(), last), lack(20, false));
    }
}
