//! One section of the configuration: a struct whose fields know how they are written.

/// One setting as the loader, the template and the generated page see it.
#[derive(Debug)]
pub struct Setting {
    /// The key inside its section.
    pub key: &'static str,
    /// The value as it would be written into an environment variable.
    pub default: &'static str,
    /// How the value is written in TOML.
    pub form: Form,
    /// The environment variable, if it is not `CARILLON_<SECTION>_<KEY>`.
    pub env: Option<&'static str>,
    /// What the setting does and why its default is what it is.
    pub doc: &'static [&'static str],
}

/// How a value is written in TOML.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `true` or `false`.
    Bool,
    /// An integer.
    Number,
    /// A string; a size may also be a number of bytes.
    Text,
    /// A list of strings, comma separated in the environment.
    List,
    /// A string nobody may print; it may also stand in a file named by `<key>_file`.
    Secret,
}

/// Reads and shows one kind of value. Every layer hands over text.
pub trait Codec {
    /// What the rest of the node sees.
    type Value;
    /// How it is written in TOML.
    const FORM: Form;
    /// Reads a value; the error completes the sentence "server.listen: …".
    fn parse(text: &str) -> Result<Self::Value, String>;
    /// Writes a value so that [`Codec::parse`] reads it back.
    fn show(value: &Self::Value) -> String;
}

/// A section: its name, its settings, and how it is made from what was written.
pub trait Section: Default {
    /// The TOML table.
    const NAME: &'static str;
    /// What the section is about.
    const DOC: &'static [&'static str];
    /// Its settings in the order they are documented.
    const SETTINGS: &'static [Setting];
    /// Takes each value that `written` holds and keeps the default where there is none. A value
    /// that cannot be read becomes a complaint, and the default stands in for it.
    fn read<'a>(
        written: &dyn Fn(&'static str) -> Option<&'a str>,
        complain: &mut dyn FnMut(&'static str, String),
    ) -> Self;
    /// Key and text of each value as it is in force.
    fn show(&self) -> Vec<(&'static Setting, String)>;
}

/// Declares a section: `key: Type as Codec = "default", env "NAME";`. The doc comment of a field
/// is its text in the template and in the generated page.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        [$section:literal]
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty as $codec:ty = $default:literal $(, env $env:literal)?;
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $(
                        $field: <$codec as $crate::config::section::Codec>::parse($default)
                            .expect("a test reads every default"),
                    )*
                }
            }
        }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $section;
            const DOC: &'static [&'static str] = &[$($section_doc),*];
            const SETTINGS: &'static [$crate::config::section::Setting] = &[
                $(
                    $crate::config::section::Setting {
                        key: stringify!($field),
                        default: $default,
                        form: <$codec as $crate::config::section::Codec>::FORM,
                        env: $crate::config::section::section!(@env $($env)?),
                        doc: &[$($doc),*],
                    },
                )*
            ];

            fn read<'a>(
                written: &dyn Fn(&'static str) -> Option<&'a str>,
                complain: &mut dyn FnMut(&'static str, String),
            ) -> Self {
                let mut section = Self::default();
                $(
                    if let Some(text) = written(stringify!($field)) {
                        match <$codec as $crate::config::section::Codec>::parse(text) {
                            Ok(value) => section.$field = value,
                            Err(complaint) => complain(stringify!($field), complaint),
                        }
                    }
                )*
                section
            }

            fn show(&self) -> Vec<(&'static $crate::config::section::Setting, String)> {
                let shown = [
                    $( <$codec as $crate::config::section::Codec>::show(&self.$field), )*
                ];
                Self::SETTINGS.iter().zip(shown).collect()
            }
        }
    };
    (@env $env:literal) => { Some($env) };
    (@env) => { None };
}
pub(super) use section;
