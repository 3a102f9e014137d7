//! Tests of [`super`].

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    digits
        .map(|two| u8::from_str_radix(two, 16).unwrap())
        .collect()
}

#[test]
fn an_answer_is_for_one_certificate_until_its_end() {
    let good = bytes(GOOD_ANSWER);
    assert_eq!(valid_until(&good, &[0x10, 0]), Ok(UNTIL));
    let other = Err("it is about another certificate");
    assert_eq!(valid_until(&good, &[0x10, 1]), other);
    let revoked = Err("it says that the certificate is revoked: use another one");
    assert_eq!(valid_until(&bytes(REVOKED_ANSWER), &[0x10, 1]), revoked);
    // Status 3: try again later.
    let error = Err("it is an error of the responder: ask again");
    assert_eq!(valid_until(&[0x30, 3, 10, 1, 3], &[0x10, 0]), error);
}

#[test]
fn what_is_cut_or_changed_is_no_answer_and_no_panic() {
    let good = bytes(GOOD_ANSWER);
    for length in 0..good.len() {
        assert_eq!(valid_until(&good[..length], &[0x10, 0]), Err(MALFORMED));
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            let _ = valid_until(&changed, &[0x10, 0]);
        }
    }
}

/// The end of [`GOOD_ANSWER`].
const UNTIL: i64 = 4_387_888_133;
/// As `openssl ocsp -respout` writes it, about the certificate 0x1000.
const GOOD_ANSWER: &str = "\
    3082012a0a0100a08201233082011f06092b0601050507300101048201103082010c3081b3a11430123110300e06\
    035504030c0754657374204341180f32303236313132383137343835335a30653063303b300906052b0e03021a05\
    000414bf7052c8b9c0f760c89123e099815eb2c03942260414ff2bfeda8c640bfda1448a125d9fbe34a173885d02\
    0210008000180f32303236313132383137343835335aa011180f32313039303131373137343835335aa123302130\
    1f06092b06010505073001020412041092758f267f208eecb70037d2e2fc5076300a06082a8648ce3d0403020348\
    003045022100d268a336eb5c118b763127ee152118471728ea9e132669927d7d0e567dbcd55f0220049f70511dad\
    d9a02bd67706123c57d454b483c316ad009fa6208ae4a1d819db\
";
/// The same about 0x1001, which is revoked.
const REVOKED_ANSWER: &str = "\
    3082013a0a0100a08201333082012f06092b0601050507300101048201203082011c3081c4a11430123110300e06\
    035504030c0754657374204341180f32303236313132383137343835335a30763074303b300906052b0e03021a05\
    000414bf7052c8b9c0f760c89123e099815eb2c03942260414ff2bfeda8c640bfda1448a125d9fbe34a173885d02\
    021001a111180f32303236313132383137303532395a180f32303236313132383137343835335aa011180f323032\
    36313230353137343835335aa1233021301f06092b0601050507300102041204108cf7fc9d8f689e4949d4a65e76\
    063299300a06082a8648ce3d040302034700304402201798abb83ea8ec3ce6482bc2d7fe83d1a42d00e7210829fd\
    b505053d4595fab2022054d540c60a48d4b30071eec984ae7cd2fc3273f6f792e26ee9bd00d7b77a3a3b\
";
