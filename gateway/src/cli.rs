//! The command line. It reads arguments and the environment it is given, and nothing of the process.

mod acl;
mod print;
#[cfg(test)]
mod tests;

pub use print::{effective, template};

use crate::config::{self, Config, Loaded, Sources};
use clap::{Args, Parser, Subcommand, error::ErrorKind};
use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

/// The exit code for wrong usage and wrong configuration, before anything is bound (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  carillon                                  the built-in chat on http://127.0.0.1:3000/
  carillon --config gateway.toml            a node with your rules
  carillon --config gateway.toml --listen 0.0.0.0:3000
                                            the same, reachable from other machines
  CARILLON_REDIS=redis://redis:6379 carillon --config gateway.toml
                                            one node of a cluster
  carillon check-config --config gateway.toml
                                            all that is wrong with a configuration, in one run
  carillon print-acl --config gateway.toml
                                            what Redis has to permit, for redis-cli
  carillon print-config --default > gateway.toml
                                            every setting with its default and the reason for it

Settings come from defaults, the file, CARILLON_* variables and flags; the later one wins.
Exit codes: 0 drained, 1 failed or cut off at the drain deadline, 64 wrong usage or configuration,
130 interrupted.";

/// What the process is to do.
#[derive(Debug)]
pub enum Command {
    /// Serve with this configuration.
    Serve {
        /// What is true.
        config: Box<Config>,
        /// What is to be logged as warnings once logging works.
        warnings: Vec<String>,
    },
    /// Print this on stdout and exit with 0.
    Print(String),
}

/// Wrong usage or configuration: what to print on stderr and how to exit.
#[derive(Debug)]
pub struct CliError {
    /// For people; ends with a line break.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

/// A standalone, horizontally scalable Socket.IO gateway.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    subcommand: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve clients; also what runs without a subcommand
    Serve,
    /// Say what is wrong with the configuration and bind nothing
    CheckConfig,
    /// Print the configuration in force, secrets as ***
    PrintConfig {
        /// Print a commented file with every setting and its default instead
        #[arg(long)]
        default: bool,
    },
    /// Print the `ACL SETUSER` line for Redis that permits what this configuration needs
    PrintAcl,
}

/// Values are text here: settings are read in one place, whichever layer they come from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct Flags {
    /// The configuration file, TOML [env: CARILLON_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The public listener; port 0 takes a free one [env: CARILLON_LISTEN] [default: 127.0.0.1:3000]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The internal listener: metrics, probes [env: CARILLON_INTERNAL_LISTEN] [default: 127.0.0.1:3001]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    internal_listen: Option<String>,
    /// The Redis between the nodes; may hold a password, so prefer [env: CARILLON_REDIS] or [env: CARILLON_REDIS_FILE]
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
    /// memory, redis or redis-sharded; redis where one is named [env: CARILLON_ADAPTER]
    #[arg(long, global = true, value_name = "NAME")]
    adapter: Option<String>,
    /// Where other nodes reach this one [env: CARILLON_ADVERTISE]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Threads and fan-out lanes, 1 to 64; one for each core [env: CARILLON_WORKERS]
    #[arg(long, global = true, value_name = "N")]
    workers: Option<String>,
    /// The first four characters of every id; random at each start [env: CARILLON_NODE_TAG]
    #[arg(long, global = true, value_name = "TAG", allow_hyphen_values = true)]
    node_tag: Option<String>,
    /// error, warn, info, debug or trace [env: CARILLON_LOG_LEVEL] [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Run the built-in chat; on by itself without a file on a loopback listener [env: CARILLON_DEMO]
    #[arg(long, global = true)]
    demo: bool,
}

/// Reads arguments (the first is the name of the program) and environment.
pub fn parse<Variable: Into<OsString>>(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (Variable, Variable)>,
) -> Result<Command, CliError> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            return Ok(Command::Print(error.render().to_string()));
        }
        Err(error) => return Err(usage(error.render().to_string())),
    };
    if matches!(cli.subcommand, Some(Verb::PrintConfig { default: true })) {
        return Ok(Command::Print(template()));
    }
    let flag_for_secret = cli.flags.redis.is_some();
    let sources = sources(cli.flags, readable(environment)?)?;
    let mut loaded =
        config::load(&sources).map_err(|error| usage(format!("carillon: {error}\n")))?;
    if flag_for_secret {
        loaded.warnings.push(
            "--redis shows its password in the list of processes: use CARILLON_REDIS or CARILLON_REDIS_FILE"
                .to_owned(),
        );
    }
    Ok(match cli.subcommand {
        None | Some(Verb::Serve) => {
            Command::Serve { config: Box::new(loaded.config), warnings: loaded.warnings }
        }
        Some(Verb::CheckConfig) => Command::Print(checked(&loaded)),
        Some(Verb::PrintConfig { .. }) => Command::Print(effective(&loaded)),
        Some(Verb::PrintAcl) => Command::Print(acl::acl(&loaded.config)),
    })
}

fn usage(text: String) -> CliError {
    CliError { text, code: EXIT_USAGE }
}

/// What is not UTF-8 cannot be ours, unless its name says so.
fn readable<Variable: Into<OsString>>(
    environment: impl IntoIterator<Item = (Variable, Variable)>,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut readable = BTreeMap::new();
    for (name, value) in environment {
        let Ok(name) = name.into().into_string() else { continue };
        match value.into().into_string() {
            Ok(value) => drop(readable.insert(name, value)),
            Err(_) if name.starts_with("CARILLON_") => {
                return Err(usage(format!("carillon: {name} is not UTF-8\n")));
            }
            Err(_) => {}
        }
    }
    Ok(readable)
}

fn sources(flags: Flags, environment: BTreeMap<String, String>) -> Result<Sources, CliError> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let demo = match variable("CARILLON_DEMO").map(String::as_str) {
        _ if flags.demo => Some(true),
        None => None,
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(other) => {
            return Err(usage(format!(
                "carillon: CARILLON_DEMO: `{other}` is neither true nor false\n"
            )));
        }
    };
    let file = flags.config.or_else(|| variable("CARILLON_CONFIG").map(PathBuf::from));
    let settings = [
        ("server", "listen", flags.listen),
        ("server", "internal_listen", flags.internal_listen),
        ("server", "workers", flags.workers),
        ("server", "node_tag", flags.node_tag),
        ("cluster", "redis", flags.redis),
        ("cluster", "adapter", flags.adapter),
        ("cluster", "advertise", flags.advertise),
        ("log", "level", flags.log_level),
    ];
    let flags = settings
        .into_iter()
        .filter_map(|(section, key, value)| value.map(|value| (section, key, value)))
        .collect();
    Ok(Sources { file, environment, flags, demo })
}

fn checked(loaded: &Loaded) -> String {
    let warnings = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let namespaces: Vec<&str> =
        loaded.config.namespaces.iter().map(|namespace| namespace.path.as_str()).collect();
    warnings
        .chain([format!("the configuration is good; namespaces: {}\n", namespaces.join(" "))])
        .collect()
}
