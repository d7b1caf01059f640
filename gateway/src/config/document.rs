//! The settings for people: the commented template and what is in force.

use super::{
    Config,
    load::SECTIONS,
    section::{Form, Section, Setting},
};
use std::fmt::Write as _;

const TEMPLATE_HEAD: &str = "\
# The configuration of a Carillon node. Every setting stands here with its default; remove the `#`
# before those you change. CARILLON_* variables and flags go before this file.
";

const TEMPLATE_NAMESPACE: &str = r##"
# What clients may do. A namespace is a name or a pattern with `*`; without any, clients can connect
# to `/` and every event is refused. docs/rules.md explains each key.
#[[namespace]]
#path = "/"
#auth = "none"
#on_connect = [{ join = "lobby" }]
#
#[[namespace.on]]
#event = "chat message"
#emit = { event = "chat message", to = "everyone", args = "$*" }
"##;

/// Section by section what is in force.
pub fn in_force(config: &Config) -> Vec<(&'static str, Vec<(&'static Setting, String)>)> {
    fn of<S: Section>(section: &S) -> (&'static str, Vec<(&'static Setting, String)>) {
        (S::NAME, section.show())
    }
    vec![
        of(&config.server),
        of(&config.engine),
        of(&config.socket),
        of(&config.cluster),
        of(&config.drain),
        of(&config.log),
    ]
}

/// A value as TOML.
pub fn toml_text(form: Form, text: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match form {
        Form::Bool | Form::Number => text.to_owned(),
        Form::Text | Form::Secret => quoted(text),
        Form::List => {
            let items: Vec<String> = super::value::items(text).map(quoted).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// A commented file with every setting and its default.
pub fn template() -> String {
    let mut out = TEMPLATE_HEAD.to_owned();
    for (section, doc, settings) in SECTIONS {
        out.push('\n');
        doc.iter().for_each(|line| out.push_str(&format!("#{line}\n")));
        let _ = writeln!(out, "[{section}]");
        for setting in settings {
            setting.doc.iter().for_each(|line| out.push_str(&format!("#{line}\n")));
            let value = toml_text(setting.form, setting.default);
            let _ = writeln!(out, "#{} = {value}", setting.key);
        }
    }
    out.push_str(TEMPLATE_NAMESPACE);
    out
}
