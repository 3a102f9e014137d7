//! Frames are read as they were written, and nothing else is.

use fastrand::Rng;

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn any_text(rng: &mut Rng, most: usize) -> String {
    (0..rng.usize(..=most)).map(|_| rng.pick()).collect()
}

trait Pick {
    fn pick(&mut self) -> char;
}

impl Pick for Rng {
    fn pick(&mut self) -> char {
        self.choice(['a', 'é', '-', '€']).unwrap()
    }
}

fn any(rng: &mut Rng) -> Frame {
    let bans = |rng: &mut Rng| (0..rng.usize(..BANS_MAX)).map(|_| any_ban(rng)).collect();
    let body = match rng.u8(..6) {
        0 => Body::Bans(bans(rng)),
        5 => Body::PassedOn(any_text(rng, 64), bans(rng)),
        1 => {
            let backends: Vec<_> = (0..rng.usize(1..5)).map(|_| any_text(rng, 64)).collect();
            let count = rng.usize(..CLIENTS_MAX);
            let entries = (0..count).map(|_| ClientEntry {
                client: rng.u64(..),
                backend: u16::try_from(rng.usize(..backends.len())).unwrap(),
                used: Stamp(rng.u64(..)),
            });
            let entries = entries.collect();
            Body::Clients(Clients {
                pool: any_text(rng, 64),
                key: any_text(rng, 64),
                backends,
                entries,
            })
        }
        2 => Body::Synced,
        3 => Body::Beat,
        _ => Body::Ack(rng.u64(..)),
    };
    Frame {
        sent: rng.u64(..),
        body,
    }
}

fn any_ban(rng: &mut Rng) -> BanEntry {
    let prefixes = ["192.0.2.1", "10.0.0.0/8", "2001:db8::/48", "::1"];
    BanEntry {
        prefix: prefix(rng.choice(prefixes).unwrap()),
        stamp: Stamp(rng.u64(..)),
        writer: rng.u64(..),
        left_ms: rng.bool().then(|| rng.u64(..u64::MAX)),
        reason: rng.bool().then(|| any_text(rng, 200).into()),
    }
}

#[test]
fn frames_are_read_as_they_were_written() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..500 {
        let frame = any(&mut rng);
        let bytes = frame.bytes();
        assert_eq!(Frame::length(&bytes), Ok(Some(bytes.len() - 4)));
        assert_eq!(Frame::read(&bytes[4..]), Ok(frame));
    }
}

#[test]
fn the_largest_frames_fit() {
    let ban = BanEntry {
        prefix: prefix("2001:db8::1"),
        stamp: Stamp(u64::MAX),
        writer: 1,
        left_ms: Some(1),
        reason: Some("\u{1F980}".repeat(200).into()),
    };
    let entry = ClientEntry {
        client: 1,
        backend: 0,
        used: Stamp(1),
    };
    let clients = Clients {
        pool: "€".repeat(64),
        key: "k".repeat(NAME_BYTES_MAX),
        backends: vec!["b".repeat(NAME_BYTES_MAX); BACKENDS_MAX],
        entries: vec![entry; CLIENTS_MAX],
    };
    for body in [Body::Bans(vec![ban; BANS_MAX]), Body::Clients(clients)] {
        let frame = Frame { sent: 7, body };
        assert!(frame.bytes().len() <= FRAME_MAX, "{}", frame.bytes().len());
        assert_eq!(Frame::read(&frame.bytes()[4..]), Ok(frame));
    }
}

#[test]
fn every_shorter_frame_and_every_longer_one_is_refused() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..50 {
        let bytes = any(&mut rng).bytes();
        for length in 4..bytes.len().min(600) {
            assert!(Frame::read(&bytes[4..length]).is_err());
        }
        let longer = [&bytes[4..], &[0]].concat();
        assert!(Frame::read(&longer).is_err());
    }
}

#[test]
fn changed_bytes_are_another_frame_or_refused() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..2_000 {
        let mut bytes = any(&mut rng).bytes().to_vec();
        for _ in 0..rng.usize(1..8) {
            let at = rng.usize(4..bytes.len());
            bytes[at] = rng.u8(..);
        }
        if let Ok(frame) = Frame::read(&bytes[4..]) {
            // A reason may have lost characters that mislead.
            let again = Frame::read(&frame.bytes()[4..]);
            assert_eq!(again, Ok(frame));
        }
    }
}

#[test]
fn what_is_no_frame_is_told_apart() {
    assert_eq!(Frame::length(&[0, 0, 0]), Ok(None));
    let huge = Frame::length(&u32::MAX.to_be_bytes());
    assert_eq!(huge, Err(FrameError::TooLong(u32::MAX as usize)));
    assert_eq!(Frame::read(&[]), Err(FrameError::Malformed));
    assert_eq!(Frame::read(&[9, BEAT]), Err(FrameError::Version(9)));
    let unknown = [&[VERSION, 99][..], &[0; 8]].concat();
    assert_eq!(Frame::read(&unknown), Err(FrameError::Malformed));
    // A count without its entries.
    let empty = [&[VERSION, BANS][..], &[0; 8], &[255, 255]].concat();
    assert_eq!(Frame::read(&empty), Err(FrameError::Malformed));
}
