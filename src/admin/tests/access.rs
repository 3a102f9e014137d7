//! Token files.

use super::*;
use crate::admin::tests::world::{file, temporary};

fn admin(read: &Path, write: Option<&Path>) -> TokenFiles {
    TokenFiles {
        read: Some(read.to_owned()),
        write: write.map(Path::to_owned),
    }
}

fn refusal(read: &Path) -> String {
    Tokens::read(&admin(read, None)).unwrap_err().to_string()
}

#[test]
fn roles_are_those_of_the_files() {
    let dir = temporary();
    let read = file(&dir, "read", "0123456789abcdef\n", 0o600);
    let write = file(&dir, "write", "  fedcba9876543210  ", 0o640);
    let tokens = Tokens::read(&admin(&read, Some(&write))).unwrap();
    assert_eq!(tokens.role_of("0123456789abcdef"), Some(Role::Read));
    assert_eq!(tokens.role_of("fedcba9876543210"), Some(Role::Write));
    // White space around a token is ignored.
    for wrong in [
        "",
        "0123456789abcde",
        "0123456789abcdef\0",
        "0123456789abcdefg",
    ] {
        assert_eq!(tokens.role_of(wrong), None, "{wrong}");
    }
    assert_eq!(format!("{tokens:?}"), "Tokens");
}

#[test]
fn a_file_that_says_none_closes_its_role() {
    let dir = temporary();
    let read = file(&dir, "read", "none", 0o400);
    let write = file(&dir, "write", "none\n", 0o440);
    let tokens = Tokens::read(&admin(&read, Some(&write))).unwrap();
    assert_eq!(tokens.role_of("none"), None);
    file(&dir, "token", "fedcba9876543210", 0o600);
    let tokens = Tokens::read(&admin(&read, Some(&dir.join("token")))).unwrap();
    assert_eq!(tokens.role_of("fedcba9876543210"), Some(Role::Write));
}

#[test]
fn tokens_change_while_the_server_runs() {
    let dir = temporary();
    let read = file(&dir, "read", "0123456789abcdef", 0o600);
    let tokens = Tokens::read(&admin(&read, None)).unwrap();
    file(&dir, "read", "fedcba9876543210", 0o600);
    tokens.replace(&Tokens::read(&admin(&read, None)).unwrap());
    assert_eq!(tokens.role_of("0123456789abcdef"), None);
    assert_eq!(tokens.role_of("fedcba9876543210"), Some(Role::Read));
    file(&dir, "read", "short", 0o600);
    Tokens::read(&admin(&read, None)).unwrap_err();
    assert_eq!(tokens.role_of("fedcba9876543210"), Some(Role::Read));
}

#[test]
fn files_that_hold_no_secret_are_refused() {
    let dir = temporary();
    for mode in [0o604, 0o602, 0o666] {
        let path = file(&dir, &format!("{mode:o}"), "0123456789abcdef", 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let path = path.display().to_string();
        let want = format!("token file {path} is open to every user: `chmod o= {path}` closes it");
        assert_eq!(refusal(Path::new(&path)), want);
    }
    let long = "x".repeat(TOKEN_MAX + 1);
    for text in [
        "",
        "\n",
        "0123456789abcde",
        "0123456789 abcdef",
        "0123456789abcdéf",
        &long,
    ] {
        let path = file(&dir, "malformed", text, 0o600);
        assert!(refusal(&path).contains("invalid token in"), "{text}");
    }
    let one = file(&dir, "one", "0123456789abcdef", 0o600);
    let two = file(&dir, "two", "0123456789abcdef\n", 0o600);
    let same = Tokens::read(&admin(&one, Some(&two))).unwrap_err();
    assert!(matches!(same, TokenError::Same(..)));
    let open = file(&dir, "open", "0123456789abcdef", 0o644);
    let short = file(&dir, "short", "0", 0o600);
    let both = Tokens::mistakes(&admin(&open, Some(&short)));
    assert!(
        matches!(&both[..], [TokenError::Open(_), TokenError::Malformed(_)]),
        "{both:?}"
    );
    assert!(Tokens::mistakes(&admin(&one, None)).is_empty());
}

#[test]
fn a_path_that_is_not_a_file_does_not_block() {
    let dir = temporary();
    assert!(refusal(&dir).contains("directory"));
    assert!(refusal(&dir.join("none")).contains("No such file"));
    let pipe = dir.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert!(refusal(&pipe).contains("expected a regular file"));
}
