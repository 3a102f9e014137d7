//! Filters that drop the first segments of banned clients on listening sockets (socket(7)), and the
//! maps of prefixes that they look into (bpf(2)).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use socket2::{SockFilter, SockRef};

use crate::guard::{ClassicInstruction, ExtendedInstruction};
use crate::prefix::Prefix;

/// A filter whose prefixes are in maps of the kernel's: they change without another filter.
#[derive(Debug)]
pub struct SynMaps {
    v4: OwnedFd,
    v6: OwnedFd,
    program: OwnedFd,
}

impl SynMaps {
    /// Makes both maps, empty and for so many prefixes each, and the program that
    /// `program` writes for their descriptors, first that of IPv4.
    ///
    /// # Errors
    /// What bpf(2) says: EPERM without CAP_BPF.
    pub fn new(
        prefixes: u32,
        program: impl FnOnce([RawFd; 2]) -> Vec<ExtendedInstruction>,
    ) -> io::Result<Self> {
        let [v4, v6] = [4, 16].map(|address_bytes| make_map(address_bytes, prefixes));
        let (v4, v6) = (v4?, v6?);
        let program = load(&program([v4.as_raw_fd(), v6.as_raw_fd()]))?;
        Ok(Self { v4, v6, program })
    }

    /// Drops the first segments of a prefix from now on.
    ///
    /// # Errors
    /// What bpf(2) says: ENOSPC when the map is full.
    pub fn insert(&self, prefix: Prefix) -> io::Result<()> {
        self.element(MAP_UPDATE, prefix, Some(&mut 0)).map(drop)
    }

    /// Drops them no longer.
    ///
    /// # Errors
    /// What bpf(2) says: ENOENT when it is not there.
    pub fn remove(&self, prefix: Prefix) -> io::Result<()> {
        self.element(MAP_DELETE, prefix, None).map(drop)
    }

    /// How many segments of a prefix were dropped since it was inserted. Those of longer prefixes
    /// in it are counted there.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn dropped(&self, prefix: Prefix) -> io::Result<u64> {
        let mut count = 0;
        self.element(MAP_LOOKUP, prefix, Some(&mut count))?;
        Ok(count)
    }

    /// Attaches the filter to a listening socket in place of the one that it has.
    ///
    /// # Errors
    /// What setsockopt(2) says of SO_ATTACH_BPF.
    pub fn attach(&self, listener: &OwnedFd) -> io::Result<()> {
        let program = self.program.as_raw_fd();
        // SAFETY: `program` is read during the call only.
        let failed = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_BPF,
                (&raw const program).cast(),
                4,
            )
        };
        match failed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn element(
        &self,
        command: libc::c_long,
        prefix: Prefix,
        value: Option<&mut u64>,
    ) -> io::Result<RawFd> {
        let mut key = Key {
            length: prefix.length().into(),
            address: [0; 16],
        };
        let map = match prefix.ip() {
            IpAddr::V4(ip) => {
                key.address[..4].copy_from_slice(&ip.octets());
                &self.v4
            }
            IpAddr::V6(ip) => {
                key.address = ip.octets();
                &self.v6
            }
        };
        let element = Element {
            map: map.as_raw_fd(),
            _unused: 0,
            key: &raw const key,
            value: value.map_or_else(ptr::null_mut, ptr::from_mut),
            flags: 0,
        };
        // SAFETY: key and value are as large as those of the map, and used during the call only.
        unsafe { bpf(command, &element) }
    }
}

/// Attaches a classic program to a listening socket in place of the filter that it has.
///
/// # Errors
/// What setsockopt(2) says of SO_ATTACH_FILTER: ENOMEM where the program is larger than
/// net.core.optmem_max lets it be.
pub fn attach_classic(listener: &OwnedFd, program: &[ClassicInstruction]) -> io::Result<()> {
    let instruction = |its: &ClassicInstruction| {
        SockFilter::new(its.code, its.jump_true, its.jump_false, its.operand)
    };
    let program: Vec<SockFilter> = program.iter().map(instruction).collect();
    SockRef::from(listener).attach_filter(&program)
}

/// Takes the filter from a listening socket, if it has one.
pub fn detach_filter(listener: &OwnedFd) {
    // Fails where there is none.
    let _ = SockRef::from(listener).detach_filter();
}

/// A key of BPF_MAP_TYPE_LPM_TRIE. Maps of IPv4 use the first 4 bytes of the address only.
#[repr(C)]
struct Key {
    length: u32,
    address: [u8; 16],
}

/// The part of `union bpf_attr` for a map's elements.
#[repr(C)]
struct Element {
    map: RawFd,
    _unused: u32,
    key: *const Key,
    value: *mut u64,
    flags: u64,
}

/// That for a new map.
#[repr(C)]
struct NewMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

/// That for a program.
#[repr(C)]
struct NewProgram {
    kind: u32,
    length: u32,
    instructions: *const ExtendedInstruction,
    license: *const libc::c_char,
    log: [u64; 2],
    version: u32,
    flags: u32,
}

fn make_map(address_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    let map = NewMap {
        kind: LPM_TRIE,
        key_bytes: 4 + address_bytes,
        value_bytes: 8,
        entries,
        flags: NO_PREALLOC,
    };
    // SAFETY: it has no pointers.
    let fd = unsafe { bpf(MAP_CREATE, &map) }?;
    // SAFETY: the descriptor was made just now and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(instructions: &[ExtendedInstruction]) -> io::Result<OwnedFd> {
    let program = NewProgram {
        kind: SOCKET_FILTER,
        length: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr(),
        license: c"MIT".as_ptr(),
        log: [0; 2],
        version: 0,
        flags: 0,
    };
    // SAFETY: instructions and licence are read during the call only.
    let fd = unsafe { bpf(PROGRAM_LOAD, &program) }?;
    // SAFETY: the descriptor was made just now and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What bpf(2) returns. Descriptors that it makes are close-on-exec.
///
/// # Safety
/// The attributes are those of the command, and what they point to may be used during the call.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    let attributes = (&raw const *attributes, size_of::<T>());
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0, attributes.1) };
    match RawFd::try_from(result) {
        Ok(result @ 0..) => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Commands, kinds and flags of linux/bpf.h.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROGRAM_LOAD: libc::c_long = 5;
const LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
const SOCKET_FILTER: u32 = 1;

#[cfg(test)]
mod tests;
