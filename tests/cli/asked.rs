//! The ways to name a configuration, and terms of other programs.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::{SMALLEST, directory, mahoraga, misused, run, stderr, stdout};

#[test]
fn a_file_is_named_with_or_without_the_flag() {
    let directory = directory("named");
    fs::write(directory.join("other.ron"), SMALLEST).unwrap();
    for arguments in [
        &["check", "-q", "other.ron"][..],
        &["check", "-q", "-c", "other.ron"],
        &["check", "-q", "--config", "other.ron"],
        &["validate", "--quiet", "other.ron"],
    ] {
        let output = mahoraga()
            .args(arguments)
            .current_dir(&directory)
            .output()
            .unwrap();
        let printed = (stdout(&output), stderr(&output));
        assert_eq!(printed, ("", ""), "{arguments:?}");
        assert_eq!(output.status.code(), Some(0));
    }
    misused(
        &["check", "a.ron", "--config", "b.ron"],
        "error: the argument '[FILE]' cannot be used with '--config <FILE>'",
    );
}

#[test]
fn a_configuration_comes_from_standard_input() {
    let judge = |subcommand: &[&str], text: &str| {
        let mut child = mahoraga()
            .args(subcommand)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    };
    for arguments in [&["check", "-q", "-"][..], &["check", "-q", "-c", "-"]] {
        let output = judge(arguments, SMALLEST);
        assert_eq!((stdout(&output), stderr(&output)), ("", ""));
        assert_eq!(output.status.code(), Some(0));
    }
    for subcommand in ["check", "run"] {
        let output = judge(&[subcommand, "-"], "(\n  workers: 0,\n)");
        assert!(stderr(&output).contains("standard input:2:12: invalid `workers` `0`: "));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn words_of_other_programs_are_understood() {
    let want = concat!("mahoraga ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout(&run(&["version"])), want);
    for (word, usage) in [
        ("validate", "Usage: mahoraga check"),
        ("enable", "Usage: mahoraga ready"),
        ("undrain", "Usage: mahoraga ready"),
        ("disable", "Usage: mahoraga maint"),
    ] {
        let output = run(&[word, "--help"]);
        assert!(stdout(&output).contains(usage), "{word}");
    }
    for (arguments, tip) in [
        (
            &["stop", "--force"][..],
            "systemctl stop mahoraga, or kill PID",
        ),
        (&["show", "stat"], "mahoraga status, listeners, pools"),
        (&["start"], "mahoraga run FILE, or systemctl start mahoraga"),
        (
            &["config.ron"],
            "mahoraga run config.ron, or mahoraga check config.ron",
        ),
        (&["-t"], "mahoraga check FILE"),
        (&["proxy", "--listen=:80"], "--from ADDR"),
        (
            &["set", "pool", "web", "--key", "sni"],
            "--strategy '(name: \"hash\", key: \"sni\")'",
        ),
    ] {
        let output = run(arguments);
        let text = stderr(&output);
        assert!(text.contains(tip), "{arguments:?}: {text}");
        assert_eq!(text.matches("tip:").count(), 1, "{text}");
        assert_eq!(output.status.code(), Some(2));
    }
    for stray in [&["proxy", "127.0.0.1:9001"][..], &["reload", "web/app-1"]] {
        let output = run(stray);
        let text = stderr(&output);
        assert!(!text.contains("mahoraga check"), "{text}");
    }
    let hidden = run(&["drain", "app-1", "--kep"]);
    assert!(!stderr(&hidden).contains("--keep"));
    let help = run(&["--help"]);
    for also in [
        "[also: validate]",
        "[also: enable, undrain]",
        "[also: disable]",
    ] {
        assert!(stdout(&help).contains(also), "{also}");
    }
    for hidden in ["  version", "  stop", "  show"] {
        assert!(!stdout(&help).contains(&format!("\n{hidden} ")), "{hidden}");
    }
}
