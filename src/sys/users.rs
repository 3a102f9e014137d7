//! Users of this machine, by name and by number (passwd(5)).

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::ptr;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
}

impl Account {
    /// The user of this name; `None`: there is none. May ask a directory service, and so block.
    ///
    /// # Errors
    /// What getpwnam_r(3) says.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let Ok(name) = CString::new(name) else {
            return Ok(None);
        };
        look_up(|entry, buffer, found| {
            // SAFETY: all four are written during the call only, `buffer` up to its length; `name`
            // ends with a zero.
            unsafe {
                libc::getpwnam_r(
                    name.as_ptr(),
                    entry,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    found,
                )
            }
        })
    }

    /// Makes this user, with its groups, that of the process. There is no way back.
    ///
    /// # Errors
    /// What initgroups(3), setresgid(2) and setresuid(2) say.
    pub(super) fn become_it(&self) -> io::Result<()> {
        let name = CString::new(self.name.as_str())?;
        let (uid, gid) = (self.uid, self.gid);
        // SAFETY: `name` is read during the call only.
        if unsafe { libc::initgroups(name.as_ptr(), gid) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The groups first: only root may change them.
        // SAFETY: no memory is handed over.
        if unsafe { libc::setresgid(gid, gid, gid) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no memory is handed over.
        if unsafe { libc::setresuid(uid, uid, uid) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The user that this process runs as; `None`: its number has no name.
    ///
    /// # Errors
    /// What getpwuid_r(3) says.
    pub fn own() -> io::Result<Option<Self>> {
        let uid = user_id();
        look_up(|entry, buffer, found| {
            // SAFETY: as above.
            unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        })
    }
}

/// The number of the user that this process runs as.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Asks by one of the calls of getpwnam_r(3), with a buffer that is large enough.
fn look_up(
    ask: impl Fn(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<Account>> {
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        // SAFETY: a `passwd` is plain data: null pointers and zeroes.
        let mut entry: libc::passwd = unsafe { mem::zeroed() };
        let mut found = ptr::null_mut();
        match ask(&raw mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: the call succeeded, so the name is a string in `buffer`, which lives.
                let name = unsafe { CStr::from_ptr(entry.pw_name) };
                return Ok(Some(Account {
                    name: name.to_string_lossy().into_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                }));
            }
            libc::ERANGE if buffer.len() < BUFFER_BYTES_MAX => buffer.resize(buffer.len() * 4, 0),
            // getpwnam(3): these too say that there is no such user.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// What an entry's texts take at first, and at most.
const BUFFER_BYTES: usize = 1_024;
const BUFFER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = Account::named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, &*root.name), (0, 0, "root"));
        assert_eq!(Account::named("no such user").unwrap(), None);
        assert_eq!(Account::named("a\0b").unwrap(), None);
        if let Some(own) = Account::own().unwrap() {
            assert_eq!(own.uid, user_id());
        }
    }
}
