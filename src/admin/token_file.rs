//! Tokens that the balancer makes itself, for a start without token files. A file that only its
//! user may read has them, for as long as the process runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::access::Tokens;

/// The file of the tokens that a process made. It is removed with this.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// Device and inode: another process may have replaced the file.
    identity: (u64, u64),
}

impl TokenFile {
    /// Where it is: beside the admin socket, with the number of the process in its name.
    #[must_use]
    pub fn beside(socket: &Path) -> PathBuf {
        socket.with_file_name(format!("mahoraga-{}.tokens", std::process::id()))
    }

    /// Makes a token for each role and the file with both: `read TOKEN` and `write TOKEN`, a line
    /// each. Each has 256 random bits.
    ///
    /// # Errors
    /// What the kernel says: such as that there is a file of this name, or a link.
    pub fn make(path: &Path) -> io::Result<(Self, Tokens)> {
        let (read, write) = (random()?, random()?);
        let mut file = create(path)?;
        let its = file.metadata()?;
        let made = Self {
            path: path.to_owned(),
            identity: (its.dev(), its.ino()),
        };
        write!(file, "read {read}\nwrite {write}\n")?;
        Ok((made, Tokens::of(&read, &write)))
    }

    /// The token of a role, in the text of such a file.
    #[must_use]
    pub fn token_in<'a>(text: &'a str, role: &str) -> Option<&'a str> {
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        words.find_map(|(word, token)| (word == role).then(|| token.trim()))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let its = fs::symlink_metadata(&self.path).ok();
        if its.is_some_and(|its| (its.dev(), its.ino()) == self.identity) {
            // Another one may have removed it first.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file: never one that is there, and not through a link (O_EXCL, open(2)).
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let why = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => error,
        outcome => return outcome,
    };
    // In a container each process may have the number of the one before, which was killed.
    let its = fs::symlink_metadata(path)?;
    if !its.is_file() || its.uid() != rustix::process::geteuid().as_raw() {
        return Err(why);
    }
    fs::remove_file(path)?;
    options.open(path)
}

/// 256 random bits, in hexadecimal digits.
fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    let source = rustls::crypto::ring::default_provider().secure_random;
    let filled = source.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::admin::Role;
    use crate::admin::tests::world::temporary;

    #[test]
    fn tokens_are_made_and_end_with_the_file() {
        let dir = temporary();
        let path = TokenFile::beside(&dir.join("admin.sock"));
        assert_eq!(path.parent(), Some(&*dir));
        let (file, tokens) = TokenFile::make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let [read, write] = ["read", "write"].map(|role| TokenFile::token_in(&text, role).unwrap());
        assert_ne!(read, write);
        for (token, role) in [(read, Role::Read), (write, Role::Write)] {
            assert_eq!(token.len(), 64);
            assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!(tokens.role_of(token), Some(role));
        }
        assert_eq!(TokenFile::token_in(&text, "root"), None);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn no_file_of_another_is_written_or_removed() {
        let dir = temporary();
        let path = dir.join("tokens");
        let other = dir.join("other");
        fs::write(&other, "kept").unwrap();
        symlink(&other, &path).unwrap();
        let refused = TokenFile::make(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        fs::remove_file(&path).unwrap();
        // What an earlier process of this number left behind is replaced, with mode 0600.
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (file, _) = TokenFile::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::rename(&other, &path).unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }
}
