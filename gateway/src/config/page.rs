//! Writes `docs/config.md`. Only tests do: the page is part of the repository.

use super::{
    document::{template, toml_text},
    load::{SECTIONS, variable},
    section::Form,
};
use std::{env, fmt::Write as _, fs, path::Path};

/// Settings that also have a flag.
const FLAGS: [(&str, &str, &str); 8] = [
    ("server", "listen", "--listen"),
    ("server", "internal_listen", "--internal-listen"),
    ("server", "workers", "--workers"),
    ("server", "node_tag", "--node-tag"),
    ("cluster", "redis", "--redis"),
    ("cluster", "adapter", "--adapter"),
    ("cluster", "advertise", "--advertise"),
    ("log", "level", "--log-level"),
];

const PAGE_HEAD: &str = "\
# Configuration

This page is generated from the program (`UPDATE_DOCS=1 cargo test -p carillon`); change it there.

Settings come from defaults, the TOML file (`--config FILE` or `CARILLON_CONFIG`), `CARILLON_*`
variables and flags; the later one wins. `carillon check-config` names all that is wrong in one run,
`carillon print-config` shows what is in force (secrets as `***`), and
`carillon print-config --default` writes a commented file with every default. `carillon print-acl` prints
what a Redis with access control has to permit for this configuration, as a line for `redis-cli`.

Unknown keys and flags are errors. Unknown `CARILLON_*` variables are warnings; `CARILLON_PORT*` and
`CARILLON_SERVICE_*`, which Kubernetes sets for a service named `carillon`, are ignored. An empty
variable counts as not set, unless empty is a value of its setting.

Durations are written `\"750ms\"`, `\"25s\"` or `\"1m 30s\"`, sizes `\"1MB\"` (1,000,000 bytes) or `\"1MiB\"`
(1,048,576 bytes); a size may also be a number of bytes. In variables and flags, lists are separated
by commas. A secret may also stand in a file, named by the key with `_file` or the variable with
`_FILE`.

| Not in the file | Flag | Variable |
|---|---|---|
| the configuration file | `--config` | `CARILLON_CONFIG` |
| the built-in chat; on by itself without a file on a loopback listener | `--demo` | `CARILLON_DEMO` |
";

const PAGE_TAIL: &str = "
## `[[namespace]]`

Which namespaces there are, and what the events of their clients do: see [rules](rules.md).
";

/// `docs/config.md`.
pub fn page() -> String {
    let mut out = PAGE_HEAD.to_owned();
    for (section, doc, settings) in SECTIONS {
        let _ = write!(out, "\n## `[{section}]`\n\n{}\n\n", prose(doc));
        out.push_str("| Key | Default | What it does | Flag, variable |\n|---|---|---|---|\n");
        for setting in settings {
            let flag = FLAGS
                .iter()
                .find(|(of, key, _)| *of == section && *key == setting.key)
                .map_or_else(String::new, |(_, _, flag)| format!("`{flag}`, "));
            let variable = variable(section, setting);
            let file = match setting.form {
                Form::Secret => format!(", `{variable}_FILE`"),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "| `{}` | `{}` | {} | {flag}`{variable}`{file} |",
                setting.key,
                toml_text(setting.form, setting.default),
                prose(setting.doc),
            );
        }
    }
    out.push_str(PAGE_TAIL);
    out
}

/// Lines of a doc comment as one line.
fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).expect("docs/ can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/config.md is not current: UPDATE_DOCS=1 cargo test -p carillon"
    );
}

#[test]
fn the_template_without_its_comment_signs_is_the_default_configuration() {
    let uncommented: String = template()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .collect();
    let loaded = super::tests::file(&uncommented).expect("the template is a configuration");
    let (config, template) = (super::Config::default(), loaded.config);
    for ((_, expected), (section, shown)) in
        super::document::in_force(&config).into_iter().zip(super::document::in_force(&template))
    {
        for ((setting, expected), (_, shown)) in expected.into_iter().zip(shown) {
            assert_eq!(expected, shown, "{section}.{}", setting.key);
        }
    }
    assert_eq!(template.namespaces.len(), 1);
}
