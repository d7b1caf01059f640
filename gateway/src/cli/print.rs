//! The configuration as text: in force, and as a commented file with every default.

use crate::config::{Loaded, document};
use std::fmt::Write as _;

/// The configuration in force as a file that [`crate::config::load`] reads, but for its secrets.
pub fn effective(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::new();
    for (section, settings) in document::in_force(config) {
        let _ = writeln!(out, "[{section}]");
        for (setting, text) in settings {
            let _ = writeln!(out, "{} = {}", setting.key, document::toml_text(setting.form, &text));
        }
        out.push('\n');
    }
    for namespace in &loaded.namespaces {
        let mut table = toml::Table::new();
        table.insert("namespace".to_owned(), vec![namespace.clone()].into());
        out.push_str(&table.to_string());
        out.push('\n');
    }
    out
}

/// A commented file with every setting and its default.
pub fn template() -> String {
    document::template()
}
