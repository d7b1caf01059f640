//! Reads TOML tables and remembers what is wrong with them.

use toml::{Table, Value};

/// What is wrong, each with the place where it stands.
#[derive(Debug, Default)]
pub struct Complaints(pub Vec<String>);

impl Complaints {
    /// Adds one.
    pub fn add(&mut self, place: &str, message: impl AsRef<str>) {
        self.0.push(format!("{place}: {}", message.as_ref()));
    }
}

/// The keys of one table, which are asked for one by one; what nobody asked for is unknown.
pub struct Fields<'a> {
    table: &'a Table,
    /// Where the table stands, for complaints.
    pub place: String,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Begins with a table.
    pub fn new(table: &'a Table, place: impl Into<String>) -> Self {
        Self { table, place: place.into(), known: Vec::new() }
    }

    /// Begins with a value, which has to be a table.
    pub fn of(value: &'a Value, place: String, complaints: &mut Complaints) -> Option<Self> {
        let table = value.as_table();
        if table.is_none() {
            complaints.add(&place, format!("is {}, not a table", kind(value)));
        }
        table.map(|table| Self::new(table, place))
    }

    /// The value of a key.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Where a key stands.
    pub fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    /// A string.
    pub fn text(&mut self, key: &'static str, complaints: &mut Complaints) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            complaints.add(&self.at(key), format!("is {}, not a string", kind(value)));
        }
        text
    }

    /// `true` or `false`; absent is `false`.
    pub fn flag(&mut self, key: &'static str, complaints: &mut Complaints) -> bool {
        match self.get(key) {
            None => false,
            Some(Value::Boolean(value)) => *value,
            Some(value) => {
                complaints.add(&self.at(key), format!("is {}, not true or false", kind(value)));
                false
            }
        }
    }

    /// One table, or several in an array; each with its place.
    pub fn one_or_more(&mut self, key: &'static str) -> Vec<(&'a Value, String)> {
        let place = self.at(key);
        match self.get(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values
                .iter()
                .enumerate()
                .map(|(index, value)| (value, format!("{place}[{index}]")))
                .collect(),
            Some(value) => vec![(value, place)],
        }
    }

    /// One string, or several in an array.
    pub fn texts(&mut self, key: &'static str, complaints: &mut Complaints) -> Vec<&'a str> {
        let mut texts = Vec::new();
        for (value, place) in self.one_or_more(key) {
            match value.as_str() {
                Some(text) => texts.push(text),
                None => complaints.add(&place, format!("is {}, not a string", kind(value))),
            }
        }
        texts
    }

    /// Complains about every key that was not asked for.
    pub fn finish(self, complaints: &mut Complaints) {
        for key in self.table.keys() {
            if !self.known.contains(&key.as_str()) {
                complaints.add(&self.at(key), unknown_key(key, self.known.iter().copied()));
            }
        }
    }
}

/// What to say about a key nobody knows.
pub fn unknown_key<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
    match nearest(key, known) {
        Some(nearest) => format!("unknown key; the nearest known one is `{nearest}`"),
        None => "unknown key".to_owned(),
    }
}

/// The known name that is most like `name`, if one is like it at all.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    /// Below this two names have little more than their length in common.
    const LIKENESS_MIN: f64 = 0.7;
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// What a value is, for people.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}
