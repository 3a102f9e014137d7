//! The table in the module's documentation: each kind of hello has one answer.

use super::*;

#[test]
fn each_kind_of_hello_has_one_answer() {
    for (kind, extensions, expected) in kinds_of_names().into_iter().chain(other_kinds()) {
        let first = record(&hello(b"id", &extensions));
        let read = ClientHello::parse(&first);
        let name = |hello: ClientHello| {
            hello
                .server_name
                .map_or(vec![], |name| name.as_bytes().into())
        };
        let expected_name = expected.map(|(name, _)| name.as_bytes().to_vec());
        assert_eq!(read.map(name), expected_name.ok_or(Miss::Absent), "{kind}");
        if let Some((_, alpn)) = expected {
            let mut offers = Vec::new();
            each_offer(&first, |name| offers.push(name.to_vec())).unwrap();
            let expected = alpn.split(' ').filter(|name| !name.is_empty());
            let expected: Vec<_> = expected.map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(offers, expected, "{kind}");
        }
        // In records of any length it is the same.
        for length in 1..40 {
            let cut = in_records(&message_of(&first), length);
            assert_eq!(ClientHello::parse(&cut), read, "{kind}, by {length}");
        }
    }
}

/// A hello of these extensions, and what is read: the name and the protocols, if it is one.
type Kind = (&'static str, Vec<(u16, Vec<u8>)>, Answer);
type Answer = Option<(&'static str, &'static str)>;

fn kinds_of_names() -> Vec<Kind> {
    let long = vec![b'a'; NAME_MAX + 1];
    let two = [name_of_type(0, b"a"), name_of_type(0, b"b")].concat();
    let named = |name| Some((name, ""));
    vec![
        ("no name", vec![alpn(&[b"h2"])], Some(("", "h2"))),
        ("dot", vec![sni(b"a.example.")], named("a.example")),
        ("case", vec![sni(b"A.Example")], named("a.example")),
        (
            "IDN",
            vec![sni(b"xn--bcher-kva.de")],
            named("xn--bcher-kva.de"),
        ),
        ("UTF-8", vec![sni("b\u{fc}cher.de".as_bytes())], None),
        ("address", vec![sni(b"192.0.2.1")], named("192.0.2.1")),
        ("empty", vec![sni(b"")], None),
        ("long", vec![sni(&long)], None),
        ("space", vec![sni(b"a example")], None),
        ("two names", vec![(0, vector16(&two))], None),
        ("names twice", vec![sni(b"a"), sni(b"a")], None),
    ]
}

fn other_kinds() -> Vec<Kind> {
    let both = [alpn(&[b"h2", b"http/1.1"]), sni(b"a")];
    let long = [vector16(b"\x02h2"), vec![0]].concat();
    let ech = [sni(b"outer"), (0xfe0d, vec![0; 9])];
    let grease = [(0x2a2a, vec![]), alpn(&[b"\x0a\x0a", b"h2"])];
    let others = [(13, vec![1]), sni(b"a"), (51, vec![])];
    vec![
        ("no extensions", vec![], Some(("", ""))),
        ("ALPN", both.to_vec(), Some(("a", "h2 http/1.1"))),
        ("ALPN twice", vec![alpn(&[b"h2"]), alpn(&[b"h2"])], None),
        ("no ALPN name", vec![alpn(&[])], None),
        ("empty ALPN name", vec![alpn(&[b"h2", b""])], None),
        ("short ALPN list", vec![(16, vector16(b"\x03h2"))], None),
        ("long ALPN list", vec![(16, long)], None),
        ("ECH", ech.to_vec(), Some(("outer", ""))),
        ("GREASE", grease.to_vec(), Some(("", "\n\n h2"))),
        ("others", others.to_vec(), Some(("a", ""))),
    ]
}

fn alpn(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let names: Vec<_> = names.iter().map(|name| vector8(name)).collect();
    (16, vector16(&names.concat()))
}
