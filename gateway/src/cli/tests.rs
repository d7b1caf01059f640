//! Arguments and environment become a command, or an error with exit code 64.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::{CliError, Command, EXIT_USAGE, parse};
use crate::config::{AdapterMode, Config, LogLevel};
use std::io::Write as _;

fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<Command, CliError> {
    parse(
        ["carillon"].iter().chain(args).map(Into::into),
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn printed(args: &[&str]) -> String {
    let Command::Print(text) = run(args, &[]).unwrap() else { panic!("something to print") };
    text
}

fn serving(args: &[&str], variables: &[(&str, &str)]) -> (Box<Config>, Vec<String>) {
    let Command::Serve { config, warnings } = run(args, variables).unwrap() else {
        panic!("something to serve")
    };
    (config, warnings)
}

#[test]
fn without_arguments_the_demo_is_served_on_loopback() {
    for args in [&[] as &[&str], &["serve"]] {
        let (config, warnings) = serving(args, &[]);
        assert!(config.demo && config.server.listen.ip().is_loopback());
        assert!(warnings.is_empty());
    }
}

#[test]
fn flags_stand_before_and_after_the_subcommand_and_win() {
    let variables = [("CARILLON_WORKERS", "3"), ("CARILLON_LOG_LEVEL", "warn")];
    for args in [["--workers", "2", "serve"], ["serve", "--workers", "2"]] {
        let (config, _) = serving(&args, &variables);
        assert_eq!(config.server.workers, 2);
        assert_eq!(config.log.level, LogLevel::Warn);
    }
    let (config, _) =
        serving(&["--node-tag", "-a_b", "--log-level=debug", "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(config.server.node_tag.unwrap().as_str(), "-a_b");
    assert_eq!(config.server.listen.port(), 0);
}

#[test]
fn the_file_is_named_by_flag_or_variable() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[server]\nlisten = \"127.0.0.1:9\"\n[[namespace]]\npath = \"/x\"").unwrap();
    let path = file.path().to_str().unwrap();
    for (args, variables) in
        [(vec!["--config", path], vec![]), (vec![], vec![("CARILLON_CONFIG", path)])]
    {
        let (config, _) = serving(&args, &variables);
        assert_eq!(config.server.listen.port(), 9);
        assert!(!config.demo);
        assert_eq!(config.namespaces[0].path.as_str(), "/x");
    }
    assert_eq!(
        printed(&["check-config", "--config", path]),
        "the configuration is good; namespaces: /x\n"
    );
}

#[test]
fn a_secret_in_a_flag_warns_and_is_never_printed() {
    let (config, warnings) = serving(&["--redis", "redis://:secret@host"], &[]);
    assert_eq!(config.cluster.adapter, AdapterMode::Redis);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("CARILLON_REDIS_FILE"));
    assert!(!printed(&["print-config", "--redis", "redis://:secret@host"]).contains("secret"));
}

#[test]
fn wrong_usage_exits_with_64_and_says_why() {
    for (args, variables, says) in [
        (vec!["--lisen", "x"], vec![], "--listen"),
        (vec!["sreve"], vec![], "serve"),
        (vec!["--listen"], vec![], "HOST:PORT"),
        (vec!["token"], vec![], "unrecognized subcommand"),
        (vec!["--workers", "0x"], vec![], "server.workers: `0x` is not a whole number"),
        (vec!["--adapter", "redis"], vec![], "CARILLON_REDIS"),
        (vec!["--adapter", "redis-streams"], vec![], "comes with a later release"),
        (vec!["--listen", "0.0.0.0:0"], vec![], "--demo"),
        (vec!["--config", "/none.toml"], vec![], "/none.toml: "),
        (vec![], vec![("CARILLON_DEMO", "maybe")], "CARILLON_DEMO"),
    ] {
        let error = run(&args, &variables).unwrap_err();
        assert_eq!(error.code, EXIT_USAGE);
        assert!(error.text.contains(says) && error.text.ends_with('\n'), "{}", error.text);
    }
}

#[test]
fn the_demo_on_a_public_listener_has_to_be_asked_for() {
    assert!(serving(&["--demo", "--listen", "0.0.0.0:0"], &[]).0.demo);
    assert!(serving(&["--listen", "0.0.0.0:0"], &[("CARILLON_DEMO", "true")]).0.demo);
    assert!(!serving(&[], &[("CARILLON_DEMO", "false")]).0.demo);
}

#[test]
fn help_teaches_by_examples() {
    let help = printed(&["--help"]);
    for part in ["Examples:", "check-config", "CARILLON_REDIS_FILE", "Exit codes"] {
        assert!(help.contains(part), "{help}");
    }
    assert!(printed(&["--version"]).starts_with("carillon "));
    assert!(printed(&["print-config", "--default"]).contains("#ping_interval = \"25s\""));
}

#[test]
fn only_our_own_variables_have_to_be_readable() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let unreadable = || OsString::from_vec(vec![0xff]);
    let run = |name: &str| parse(["carillon".into()], [(OsString::from(name), unreadable())]);
    assert!(run("OTHER").is_ok());
    assert_eq!(
        run("CARILLON_LISTEN").unwrap_err().text,
        "carillon: CARILLON_LISTEN is not UTF-8\n"
    );
}
