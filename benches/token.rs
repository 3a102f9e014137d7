//! Tokens: a worker makes one per operation, and parses one per completion.

use std::hint::black_box;

use divan::Bencher;
use mahoraga::token::{Purpose, Side, Token};

fn main() {
    divan::main();
}

#[divan::bench(min_time = MIN_SECONDS)]
fn make(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        let purpose = black_box(Purpose::Recv(Side::Backend));
        Token::new(purpose, black_box(0xab_cdef), black_box(4_711)).raw()
    });
}

/// Reads all parts, as a worker does with a completion.
#[divan::bench(min_time = MIN_SECONDS)]
fn parse(bencher: Bencher<'_, '_>) {
    let raw = Token::new(Purpose::Send(Side::Client), 0xab_cdef, 4_711).raw();
    bencher.bench(|| {
        let token = Token::from_raw(black_box(raw)).expect("a token");
        (token.purpose(), token.generation(), token.slot())
    });
}

/// Long enough to average out other work of the machine.
const MIN_SECONDS: u64 = 1;
