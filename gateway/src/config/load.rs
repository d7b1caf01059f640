//! Takes the layers together: file, environment, flags.

use super::{
    Config,
    fields::{Complaints, kind, nearest, unknown_key},
    section::{Form, Section, Setting},
    sections::{ClusterConfig, DrainConfig, EngineConfig, LogConfig, ServerConfig, SocketConfig},
    value::items,
};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// The configuration of the built-in demo.
pub const DEMO: &str = include_str!("../../demo.toml");

/// Where a configuration comes from. Nothing else is read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`, or `CARILLON_CONFIG`.
    pub file: Option<PathBuf>,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
    /// Flags that set a setting: section, key, value.
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// `--demo`, or `CARILLON_DEMO`; `None` leaves it to the listener.
    pub demo: Option<bool>,
}

/// A configuration that may be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is true.
    pub config: Config,
    /// What the operator should know about it; for the log.
    pub warnings: Vec<String>,
    /// The `[[namespace]]` tables as they were written.
    pub namespaces: Vec<Value>,
}

/// A configuration that may not be used, with all that is wrong with it.
#[derive(Debug)]
pub struct ConfigError {
    /// One line each.
    pub complaints: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.complaints.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))
    }
}

impl std::error::Error for ConfigError {}

/// Names and settings of all sections, in the order they are documented.
pub(super) const SECTIONS: [(&str, &[&str], &[Setting]); 6] = [
    (ServerConfig::NAME, ServerConfig::DOC, ServerConfig::SETTINGS),
    (EngineConfig::NAME, EngineConfig::DOC, EngineConfig::SETTINGS),
    (SocketConfig::NAME, SocketConfig::DOC, SocketConfig::SETTINGS),
    (ClusterConfig::NAME, ClusterConfig::DOC, ClusterConfig::SETTINGS),
    (DrainConfig::NAME, DrainConfig::DOC, DrainConfig::SETTINGS),
    (LogConfig::NAME, LogConfig::DOC, LogConfig::SETTINGS),
];

/// Variables that are not settings; the command line reads them.
const OTHER_VARIABLES: [&str; 2] = ["CARILLON_CONFIG", "CARILLON_DEMO"];
/// Kubernetes sets these for a service named `carillon`.
const FOREIGN_VARIABLES: [&str; 2] = ["CARILLON_PORT", "CARILLON_SERVICE_"];

/// What was written for one setting.
#[derive(Clone, Debug)]
enum Written {
    Text(String),
    /// It stands in this file.
    File(PathBuf),
}

/// What was written, by all layers together, and what is wrong with the writing itself.
#[derive(Debug, Default)]
pub struct RawConfig {
    written: BTreeMap<(&'static str, &'static str), Written>,
    /// The `[[namespace]]` tables.
    pub(super) namespaces: Vec<Value>,
    /// Whether there is a configuration file.
    pub(super) has_file: bool,
    /// Whether the demo was asked for.
    pub(super) demo: Option<bool>,
    pub(super) complaints: Complaints,
    pub(super) warnings: Vec<String>,
}

/// Reads and checks a configuration.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut raw = RawConfig { demo: sources.demo, ..RawConfig::default() };
    if let Some(path) = &sources.file {
        raw.has_file = true;
        match fs::read_to_string(path) {
            Ok(text) => raw.read_toml(&text, &path.display().to_string()),
            Err(error) => raw.complaints.add(&path.display().to_string(), error.to_string()),
        }
    }
    raw.read_environment(&sources.environment);
    for (section, key, value) in &sources.flags {
        raw.written.insert((section, key), Written::Text(value.clone()));
    }
    let (config, warnings, namespaces) = super::check::check(raw)?;
    Ok(Loaded { config, warnings, namespaces })
}

impl RawConfig {
    /// Takes a file over what is there.
    pub(super) fn read_toml(&mut self, text: &str, place: &str) {
        let table: Table = match text.parse() {
            Ok(table) => table,
            // The whole text of the error would repeat the line, and a line may hold a secret.
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
                let line = before.matches('\n').count() + 1;
                let wrong = error.message().trim_end();
                return self.complaints.add(place, format!("line {line}: {wrong}"));
            }
        };
        for (name, value) in table {
            if name == "namespace" {
                match value {
                    Value::Array(namespaces) => self.namespaces = namespaces,
                    other => self.complaints.add(
                        "namespace",
                        format!("is {}; write it as `[[namespace]]`", kind(&other)),
                    ),
                }
                continue;
            }
            match SECTIONS.iter().find(|(section, ..)| *section == name) {
                Some((section, _, settings)) => self.read_section(section, settings, &value),
                None => {
                    let known = SECTIONS.iter().map(|(section, ..)| *section).chain(["namespace"]);
                    self.complaints.add(&name, unknown_key(&name, known));
                }
            }
        }
    }

    fn read_section(&mut self, section: &'static str, settings: &'static [Setting], value: &Value) {
        let Some(table) = value.as_table() else {
            return self.complaints.add(section, format!("is {}, not a table", kind(value)));
        };
        for (key, value) in table {
            let place = format!("{section}.{key}");
            if let Some(setting) = settings.iter().find(|setting| setting.key == *key) {
                match text_of(setting.form, value) {
                    Ok(text) => self.write_once(section, setting.key, Written::Text(text), &place),
                    Err(wrong) => self.complaints.add(&place, wrong),
                }
            } else if let Some(setting) = secret_file(settings, key) {
                match value.as_str() {
                    Some(path) => {
                        self.write_once(section, setting.key, Written::File(path.into()), &place);
                    }
                    None => self.complaints.add(&place, "is not the path of a file"),
                }
            } else {
                self.complaints.add(&place, unknown_setting(section, settings, key));
            }
        }
    }

    /// Writes a value of a layer that nothing of the same layer may have written.
    fn write_once(
        &mut self,
        section: &'static str,
        key: &'static str,
        written: Written,
        place: &str,
    ) {
        if self.written.insert((section, key), written).is_some() {
            self.complaints.add(place, format!("`{key}` and `{key}_file` exclude each other"));
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        let mut layer = RawConfig::default();
        let ours = environment.iter().filter(|(name, _)| name.starts_with("CARILLON_"));
        for (name, value) in ours {
            if let Some((section, setting, from_file)) = setting_of_variable(name) {
                // An empty variable is how many tools say "not set".
                let empty_is_a_value = setting.default.is_empty() || setting.form == Form::List;
                if value.is_empty() && (from_file || !empty_is_a_value) {
                    continue;
                }
                let written = match from_file {
                    true => Written::File(value.into()),
                    false => Written::Text(value.clone()),
                };
                layer.write_once(section, setting.key, written, name);
            } else if !OTHER_VARIABLES.contains(&name.as_str())
                && !FOREIGN_VARIABLES.iter().any(|foreign| name.starts_with(foreign))
            {
                self.warnings.push(unknown_variable(name));
            }
        }
        self.written.append(&mut layer.written);
        self.complaints.0.append(&mut layer.complaints.0);
    }

    /// Makes a section of what was written for it.
    pub(super) fn section<S: Section>(&mut self) -> S {
        let mut texts: BTreeMap<&'static str, String> = BTreeMap::new();
        for setting in S::SETTINGS {
            match self.written.get(&(S::NAME, setting.key)) {
                Some(Written::Text(text)) => {
                    texts.insert(setting.key, text.clone());
                }
                Some(Written::File(path)) => match read_secret(path) {
                    Ok(secret) => {
                        texts.insert(setting.key, secret);
                    }
                    Err(wrong) => {
                        self.complaints.add(&format!("{}.{}_file", S::NAME, setting.key), wrong);
                    }
                },
                None => {}
            }
        }
        let complaints = &mut self.complaints;
        S::read(&|key| texts.get(key).map(String::as_str), &mut |key, wrong| {
            complaints.add(&format!("{}.{key}", S::NAME), wrong);
        })
    }

    /// Whether something, and not the empty string, was written for a setting.
    pub(super) fn is_written(&self, section: &'static str, key: &'static str) -> bool {
        match self.written.get(&(section, key)) {
            Some(Written::Text(text)) => !text.is_empty(),
            Some(Written::File(_)) => true,
            None => false,
        }
    }
}

/// Editors and `echo` end files with a line break, which is no part of the secret.
fn read_secret(path: &Path) -> Result<String, String> {
    fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// A TOML value as the text that environment and flags would hold.
fn text_of(form: Form, value: &Value) -> Result<String, String> {
    match (form, value) {
        (Form::Bool, Value::Boolean(value)) => Ok(value.to_string()),
        (Form::Number, Value::Integer(value)) => Ok(value.to_string()),
        (Form::Text | Form::Secret, Value::String(text)) => Ok(text.clone()),
        (Form::Text, Value::Integer(value)) => Ok(value.to_string()),
        (Form::List, Value::Array(values)) => values
            .iter()
            .map(|value| match value.as_str() {
                Some(text) if items(text).eq([text]) => Ok(text),
                Some(text) => Err(format!("`{text}` is no entry of this list")),
                None => Err(format!("holds {}, not only strings", kind(value))),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|texts| texts.join(",")),
        (form, value) => {
            let expected = match form {
                Form::Bool => "true or false",
                Form::Number => "an integer",
                Form::Text | Form::Secret => "a string",
                Form::List => "a list of strings",
            };
            Err(format!("is {}, not {expected}", kind(value)))
        }
    }
}

fn secret_file(settings: &'static [Setting], key: &str) -> Option<&'static Setting> {
    let key = key.strip_suffix("_file")?;
    settings.iter().find(|setting| setting.form == Form::Secret && setting.key == key)
}

/// A known key of another section is more likely misplaced than misspelt.
fn unknown_setting(section: &str, settings: &[Setting], key: &str) -> String {
    let elsewhere =
        SECTIONS.iter().find(|(_, _, settings)| settings.iter().any(|setting| setting.key == key));
    match elsewhere {
        Some((other, ..)) if *other != section => format!("unknown key; it belongs to `[{other}]`"),
        _ => unknown_key(key, settings.iter().map(|setting| setting.key)),
    }
}

/// The environment variable of a setting.
pub(super) fn variable(section: &str, setting: &Setting) -> String {
    setting.env.map_or_else(
        || format!("CARILLON_{}_{}", section.to_uppercase(), setting.key.to_uppercase()),
        str::to_owned,
    )
}

/// The setting that a variable sets, and whether it names a file that holds the value.
fn setting_of_variable(name: &str) -> Option<(&'static str, &'static Setting, bool)> {
    SECTIONS.iter().find_map(|(section, _, settings)| {
        settings.iter().find_map(|setting| {
            let variable = variable(section, setting);
            let rest = name.strip_prefix(&variable)?;
            match rest {
                "" => Some((*section, setting, false)),
                "_FILE" if setting.form == Form::Secret => Some((*section, setting, true)),
                _ => None,
            }
        })
    })
}

fn unknown_variable(name: &str) -> String {
    let variables: Vec<String> = SECTIONS
        .iter()
        .flat_map(|(section, _, settings)| {
            settings.iter().map(|setting| variable(section, setting))
        })
        .chain(OTHER_VARIABLES.map(str::to_owned))
        .collect();
    match nearest(name, variables.iter().map(String::as_str)) {
        Some(nearest) => {
            format!("unknown variable {name} is ignored; the nearest known one is {nearest}")
        }
        None => format!("unknown variable {name} is ignored"),
    }
}
