//! Reads options one by one; what is wrong with one is an error that names it.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::Secret;

/// Reads options one by one.
pub(super) struct Reader<'a> {
    options: &'a Map<String, Value>,
    pub prefix: &'a str,
}

impl<'a> Reader<'a> {
    pub fn new(prefix: &'a str, options: &'a Map<String, Value>) -> Self {
        Self { options, prefix }
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.options.get(name)
    }

    pub fn wrong<T>(&self, name: &str, value: &Value, expected: &str) -> Result<T> {
        // What JSON does not know crosses as what it looks like: see `crossing` in `lib/call/options.ts`.
        let shown = value.get("unlike").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned);
        Err(Error::config(format!("{}{name}", self.prefix), format!("{shown} is not {expected}")))
    }

    pub fn string(&self, name: &'static str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(other) => self.wrong(name, other, "a non-empty string"),
        }
    }

    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => self.wrong(name, other, "true or false"),
        }
    }

    /// A whole number of at least 1.
    pub fn count(&self, name: &'static str, most: u64) -> Result<Option<u64>> {
        self.whole(name, 1, most)
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| {
            value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64)
        });
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => self.wrong(name, value, &format!("a whole number from {least} to {most}")),
        }
    }

    /// A string that is never shown. What it has to be, whoever sent it has checked.
    pub fn secret(&self, name: &'static str) -> Result<Option<Secret>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(Secret::new(text.clone()))),
            Some(_) => Err(Error::config(format!("{}{name}", self.prefix), "it is not a non-empty string")),
        }
    }

    /// A number from `least` to `most`, fractions allowed.
    pub fn number(&self, name: &'static str, least: f64, most: f64) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => self.wrong(name, value, &format!("a number from {least} to {most}")),
        }
    }

    /// An amount of memory, in MB of 1024 × 1024 bytes, as bytes.
    pub fn megabytes(&self, name: &'static str) -> Result<Option<u64>> {
        Ok(self.count(name, 1 << 40)?.map(|mb| mb << 20))
    }

    /// One setting in two spellings, of which only one may be used.
    pub fn either<T>(&self, one: (&str, Option<T>), other: (&str, Option<T>)) -> Result<Option<T>> {
        match (one.1, other.1) {
            (Some(_), Some(_)) => Err(Error::config(
                format!("{}{}", self.prefix, other.0),
                format!("it says the same as `{}`: give only one of the two", one.0),
            )),
            (one, other) => Ok(one.or(other)),
        }
    }

    pub fn one_of<T>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<Option<T>>
    where
        T: Copy,
    {
        let Some(value) = self.get(name) else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| value.as_str() == Some(choice));
        let names: Vec<String> = choices.iter().map(|(choice, _)| format!("'{choice}'")).collect();
        found.map_or_else(|| self.wrong(name, value, &names.join(" or ")), |(_, choice)| Ok(Some(*choice)))
    }
}
