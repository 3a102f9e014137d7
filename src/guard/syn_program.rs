//! Programs that drop the first segment (SYN) of banned clients. The kernel runs them on listening
//! sockets, before there is a connection.
//!
//! Invariant: they pass everything but SYN without ACK. Accepted sockets inherit the filter of
//! their listener for as long as they live: a later ban would freeze their sessions silently.
//!
//! A filter sees a segment from its TCP header on. The address is read from the network header, as
//! a listener on `[::]` also gets segments of IPv4.

use std::net::IpAddr;

use crate::prefix::Prefix;

/// An instruction of classic BPF (`sock_filter` of linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicInstruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip where it does not.
    pub jump_false: u8,
    /// Its number.
    pub operand: u32,
}

/// An instruction of extended BPF (`bpf_insn` of linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExtendedInstruction {
    code: u8,
    registers: u8,
    offset: i16,
    operand: i32,
}

/// A classic program with these prefixes in it, which are tried one after the other. Each takes 2
/// to 10 instructions.
#[must_use]
pub fn classic_syn_program(prefixes: &[Prefix]) -> Vec<ClassicInstruction> {
    let (v4, v6): (Vec<Prefix>, Vec<Prefix>) = prefixes.iter().partition(|its| its.ip().is_ipv4());
    let v4_part = classic_part(&v4, NET + V4_SOURCE, 1);
    let v6_part = classic_part(&v6, NET + V6_SOURCE, 4);
    let pass = verdict(PASS);
    let mut program = vec![
        with(LOAD_BYTE, TCP_FLAGS),
        with(AND, SYN | ACK),
        jump(SYN, 1, 0),
        pass,
        with(LOAD_BYTE, NET),
        with(SHIFT_RIGHT, 4),
        jump(4, 3, 0),
        jump(6, 1, 0),
        pass,
        // Comparisons can skip 255 instructions only.
        with(
            JUMP_ALWAYS,
            u32::try_from(v4_part.len() + 1).unwrap_or(u32::MAX),
        ),
    ];
    program.extend(v4_part);
    program.push(pass);
    program.extend(v6_part);
    program.push(pass);
    program
}

/// Compares an address of so many words with each prefix.
fn classic_part(prefixes: &[Prefix], address: u32, words: u32) -> Vec<ClassicInstruction> {
    let mut part = Vec::new();
    // In scratch memory they cost the kernel less than in the segment.
    for word in 0..words {
        part.push(with(LOAD_WORD, address + 4 * word));
        part.push(with(STORE, word));
    }
    for prefix in prefixes {
        let words = words_of(*prefix);
        let lengths = words.iter().map(|(_, bits)| if *bits < 32 { 3 } else { 2 });
        let mut rest: u8 = lengths.sum();
        for ((word, bits), number) in words.into_iter().zip(0..) {
            part.push(with(LOAD_SCRATCH, number));
            rest -= 1;
            if bits < 32 {
                part.push(with(AND, u32::MAX << (32 - bits)));
                rest -= 1;
            }
            rest -= 1;
            // Over the other words, and the verdict.
            part.push(jump(word, 0, rest + 1));
        }
        part.push(verdict(DROP));
    }
    part
}

/// The 32-bit words of a prefix of which bits count, each with their number.
fn words_of(prefix: Prefix) -> Vec<(u32, u32)> {
    let (bits, all) = match prefix.ip() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let length = u32::from(prefix.length()).min(all);
    let words = (0..length.div_ceil(32)).map(|number| {
        let word = u32::try_from(bits << (32 * number) >> 96).unwrap_or(u32::MAX);
        (word, (length - 32 * number).min(32))
    });
    words.collect()
}

fn with(code: u32, operand: u32) -> ClassicInstruction {
    ClassicInstruction {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jump_true: 0,
        jump_false: 0,
        operand,
    }
}

fn jump(operand: u32, jump_true: u8, jump_false: u8) -> ClassicInstruction {
    ClassicInstruction {
        jump_true,
        jump_false,
        ..with(JUMP_IF_EQUAL, operand)
    }
}

fn verdict(bytes: u32) -> ClassicInstruction {
    with(RETURN, bytes)
}

/// An extended program that looks for the address in two maps of prefixes, given by their
/// descriptors: that of IPv4, and that of IPv6. Their keys are a length and an address, as those of
/// BPF_MAP_TYPE_LPM_TRIE are. It counts what it drops in the value of the prefix, 8 bytes.
#[must_use]
pub fn extended_syn_program([v4, v6]: [i32; 2]) -> Vec<ExtendedInstruction> {
    let mut program = Assembler::default();
    program.push(MOVE, R6, R1, 0);
    program.push(LOAD_ABSOLUTE_BYTE, R0, R0, TCP_FLAGS.cast_signed());
    program.push(AND_NUMBER, R0, R0, (SYN | ACK).cast_signed());
    program.jump(JUMP_UNLESS_EQUAL, SYN.cast_signed(), Label::Pass);
    program.load_from_network(0, -1, 1);
    program.code.push(ExtendedInstruction {
        offset: -1,
        ..instruction(LOAD_BYTE_AT, R0, STACK, 0)
    });
    program.push(SHIFT_RIGHT_NUMBER, R0, R0, 4);
    program.jump(JUMP_IF_SAME, 6, Label::V6);
    program.jump(JUMP_UNLESS_EQUAL, 4, Label::Pass);
    program.find(v4, V4_SOURCE.cast_signed(), 4);
    program.jump(JUMP_ALWAYS_EXTENDED, 0, Label::Verdict);
    program.label(Label::V6);
    program.find(v6, V6_SOURCE.cast_signed(), 16);
    program.label(Label::Verdict);
    // No value: the prefix is not in the map.
    program.jump(JUMP_IF_SAME, 0, Label::Pass);
    program.push(MOVE_NUMBER, R1, R0, 1);
    program.push(ATOMIC_ADD, R0, R1, 0);
    program.push(MOVE_NUMBER, R0, R0, DROP.cast_signed());
    program.push(EXIT, R0, R0, 0);
    program.label(Label::Pass);
    program.push(MOVE_NUMBER, R0, R0, PASS.cast_signed());
    program.push(EXIT, R0, R0, 0);
    program.finish()
}

/// Where jumps of the extended program go.
#[derive(Clone, Copy)]
enum Label {
    V6,
    Verdict,
    Pass,
}

/// An extended program that is being written.
#[derive(Default)]
struct Assembler {
    code: Vec<ExtendedInstruction>,
    /// The indices of jumps.
    jumps: Vec<(usize, Label)>,
    /// The indices of labels.
    labels: [usize; 3],
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, operand: i32) {
        self.code.push(instruction(code, to, from, operand));
    }

    /// Jumps by a comparison of R0.
    fn jump(&mut self, code: u8, operand: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(code, R0, R0, operand);
    }

    /// The next instruction is at a label.
    fn label(&mut self, label: Label) {
        self.labels[label as usize] = self.code.len();
    }

    /// Copies bytes from the network header to the stack.
    fn load_from_network(&mut self, offset: i32, to: i32, bytes: i32) {
        self.push(MOVE, R1, R6, 0);
        self.push(MOVE_NUMBER, R2, R0, offset);
        self.push(MOVE, R3, STACK, 0);
        self.push(ADD_NUMBER, R3, R0, to);
        self.push(MOVE_NUMBER, R4, R0, bytes);
        self.push(MOVE_NUMBER, R5, R0, FROM_NETWORK_HEADER);
        self.push(CALL, R0, R0, SKB_LOAD_BYTES_RELATIVE);
        self.jump(JUMP_UNLESS_EQUAL, 0, Label::Pass);
    }

    /// Looks in a map for the address of so many bytes at `offset` of the network header. The value
    /// is in R0 then, or null.
    fn find(&mut self, map: i32, offset: i32, bytes: i32) {
        let key = -24;
        let length = ExtendedInstruction {
            offset: -24,
            ..instruction(STORE_NUMBER, STACK, R0, 8 * bytes)
        };
        self.code.push(length);
        self.load_from_network(offset, key + 4, bytes);
        self.push(LOAD_WIDE_NUMBER, R1, NUMBER_IS_MAP, map);
        self.push(0, R0, R0, 0);
        self.push(MOVE, R2, STACK, 0);
        self.push(ADD_NUMBER, R2, R0, key);
        self.push(CALL, R0, R0, MAP_LOOKUP);
    }

    fn finish(mut self) -> Vec<ExtendedInstruction> {
        for (at, label) in self.jumps {
            let skipped = self.labels[label as usize] - at - 1;
            self.code[at].offset = i16::try_from(skipped).expect("a program of 60 instructions");
        }
        self.code
    }
}

fn instruction(code: u8, to: u8, from: u8, operand: i32) -> ExtendedInstruction {
    let registers = match cfg!(target_endian = "little") {
        true => from << 4 | to,
        false => to << 4 | from,
    };
    ExtendedInstruction {
        code,
        registers,
        offset: 0,
        operand,
    }
}

/// The flags in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 2;
const ACK: u32 = 16;
/// The sources in headers of IPv4 (RFC 791) and IPv6 (RFC 8200). Both begin with the version.
const V4_SOURCE: u32 = 12;
const V6_SOURCE: u32 = 8;
/// How many bytes of the segment are left.
const DROP: u32 = 0;
const PASS: u32 = u32::MAX;

/// Offsets from here on are of the network header.
const NET: u32 = libc::SKF_NET_OFF.cast_unsigned();
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_SCRATCH: u32 = libc::BPF_LD | libc::BPF_MEM;
const STORE: u32 = libc::BPF_ST;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Registers, and instructions of linux/bpf.h and linux/bpf_common.h: class, size or operation, and
/// mode or source.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const STACK: u8 = 10;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const AND_NUMBER: u8 = 0x57;
const SHIFT_RIGHT_NUMBER: u8 = 0x77;
const LOAD_ABSOLUTE_BYTE: u8 = 0x30;
const LOAD_BYTE_AT: u8 = 0x71;
const LOAD_WIDE_NUMBER: u8 = 0x18;
/// BPF_PSEUDO_MAP_FD
const NUMBER_IS_MAP: u8 = 1;
const STORE_NUMBER: u8 = 0x62;
const ATOMIC_ADD: u8 = 0xdb;
const JUMP_IF_SAME: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_ALWAYS_EXTENDED: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Functions of bpf-helpers(7).
const MAP_LOOKUP: i32 = 1;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
/// BPF_HDR_START_NET
const FROM_NETWORK_HEADER: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a classic program over a TCP header and a network header.
    fn run(program: &[ClassicInstruction], tcp: &[u8], net: &[u8]) -> u32 {
        let (mut at, mut a, mut scratch) = (0, 0u32, [0; 16]);
        let byte = |offset: u32| match offset.checked_sub(NET) {
            Some(offset) => u32::from(net[offset as usize]),
            None => u32::from(tcp[offset as usize]),
        };
        loop {
            let its = program[at];
            at += 1;
            let operand = its.operand;
            match u32::from(its.code) {
                LOAD_BYTE => a = byte(operand),
                LOAD_WORD => a = (0..4).fold(0, |word, more| word << 8 | byte(operand + more)),
                LOAD_SCRATCH => a = scratch[operand as usize],
                STORE => scratch[operand as usize] = a,
                AND => a &= operand,
                SHIFT_RIGHT => a >>= operand,
                JUMP_IF_EQUAL => {
                    let skip = if a == operand {
                        its.jump_true
                    } else {
                        its.jump_false
                    };
                    at += usize::from(skip);
                }
                JUMP_ALWAYS => at += operand as usize,
                RETURN => return operand,
                code => panic!("unknown code {code}"),
            }
        }
    }

    fn segment(from: IpAddr, flags: u8) -> (Vec<u8>, Vec<u8>) {
        let mut tcp = vec![0; 20];
        tcp[13] = flags;
        let net = match from {
            IpAddr::V4(ip) => [&[0x45; 12][..], &ip.octets(), &[9; 4]].concat(),
            IpAddr::V6(ip) => [&[0x60; 8][..], &ip.octets(), &[9; 16]].concat(),
        };
        (tcp, net)
    }

    fn passes(program: &[ClassicInstruction], from: &str, flags: u32) -> bool {
        let flags = u8::try_from(flags).unwrap();
        let (tcp, net) = segment(from.parse().unwrap(), flags);
        run(program, &tcp, &net) == PASS
    }

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_banned_client_loses_its_first_segment_only() {
        let banned = ["10.1.2.3", "192.0.2.0/24", "2001:db8::/48", "2001:db8:1::7"];
        let program = classic_syn_program(&prefixes(&banned));
        let (fin, rst, psh) = (1, 4, 8);
        // Also with the flags of RFC 3168.
        for flags in [SYN, SYN | 0xc0] {
            for ip in ["10.1.2.3", "192.0.2.255", "2001:db8::1", "2001:db8:1::7"] {
                assert!(!passes(&program, ip, flags), "{ip}");
            }
            for ip in ["10.1.2.4", "192.0.3.0", "2001:db8:1::1", "2001:db9::1"] {
                assert!(passes(&program, ip, flags), "{ip}");
            }
        }
        for flags in [ACK, SYN | ACK, ACK | psh, ACK | fin, rst, rst | ACK, 0] {
            assert!(banned.iter().all(|_| passes(&program, "10.1.2.3", flags)));
            assert!(passes(&program, "2001:db8::1", flags));
        }
    }

    #[test]
    fn a_program_drops_what_its_prefixes_contain() {
        let mut rng = fastrand::Rng::with_seed(9);
        for round in 0..200 {
            let ip = |rng: &mut fastrand::Rng| -> IpAddr {
                let few = |rng: &mut fastrand::Rng| [0, 1, 128, 255][rng.usize(..4)];
                match rng.bool() {
                    true => [10, 0, few(rng), few(rng)].into(),
                    false => {
                        let mut ip: [u8; 16] = std::array::from_fn(|_| few(rng));
                        ip[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
                        ip.into()
                    }
                }
            };
            let all: Vec<_> = (0..rng.usize(..200))
                .map(|_| {
                    let ip = ip(&mut rng);
                    let longest = if ip.is_ipv4() { 32 } else { 128 };
                    let shortest = if rng.u8(..20) == 0 { 0 } else { longest / 2 };
                    Prefix::new(ip, rng.u8(shortest..=longest)).unwrap()
                })
                .collect();
            let program = classic_syn_program(&all);
            for _ in 0..100 {
                let ip = ip(&mut rng);
                let (tcp, net) = segment(ip, 2);
                let is_in = all.iter().any(|prefix| prefix.contains(ip));
                let passed = run(&program, &tcp, &net) == PASS;
                assert_eq!(passed, !is_in, "{ip} in round {round}");
            }
        }
    }

    #[test]
    fn jumps_of_the_extended_program_stay_in_it() {
        let program = extended_syn_program([3, 4]);
        assert_eq!(size_of::<ExtendedInstruction>(), 8);
        let jumps = program.iter().enumerate().filter(|(_, its)| {
            [JUMP_IF_SAME, JUMP_UNLESS_EQUAL, JUMP_ALWAYS_EXTENDED].contains(&its.code)
        });
        let targets = jumps.map(|(at, its)| at + 1 + usize::try_from(its.offset).unwrap());
        assert!(targets.clone().all(|target| target < program.len()));
        assert_eq!(targets.count(), 8);
    }
}
