//! A namespace: its path, who may connect, and its rules.

use crate::rules::Rules;
use std::fmt;

/// One namespace, or all that a pattern matches.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Which namespaces these are.
    pub path: NamespacePath,
    /// Who may connect.
    pub auth: Auth,
    /// What client events do.
    pub rules: Rules,
}

/// The name of a namespace, or a pattern for names.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum NamespacePath {
    /// One namespace, which exists from the start.
    Exact(String),
    /// Namespaces that begin to exist when a client asks for them; `*` stands for any characters.
    Pattern(String),
}

impl NamespacePath {
    /// The path as it was written; also the value of the metric label `namespace`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Pattern(path) => path,
        }
    }

    /// Whether a client that asks for `namespace` means this one.
    pub fn matches(&self, namespace: &str) -> bool {
        match self {
            Self::Exact(path) => path == namespace,
            Self::Pattern(pattern) => crate::rules::glob(pattern, namespace),
        }
    }
}

impl Default for NamespaceConfig {
    /// The main namespace without a rule.
    fn default() -> Self {
        Self { path: NamespacePath::from("/"), auth: Auth::None, rules: Rules::default() }
    }
}

impl From<&str> for NamespacePath {
    fn from(path: &str) -> Self {
        if path.contains('*') {
            Self::Pattern(path.to_owned())
        } else {
            Self::Exact(path.to_owned())
        }
    }
}

impl fmt::Display for NamespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Auth {
    /// Everybody may connect.
    #[default]
    None,
}
