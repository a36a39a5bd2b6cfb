//! Which entries are meant, by what is said about them.

use std::cmp::Ordering;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::metadata;

/// A condition on metadata, as `lib/collection/` writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum Filter {
    /// All of these.
    And {
        /// Of them.
        of: Vec<Filter>,
    },
    /// One of these at least.
    Or {
        /// Of them.
        of: Vec<Filter>,
    },
    /// Not this.
    Not {
        /// This.
        of: Box<Filter>,
    },
    /// One of these values. What is not there is `null`.
    In {
        /// Names, from the outside in.
        path: Vec<String>,
        /// The values: each as JSON of its own, which may be as deep as metadata is.
        #[serde(deserialize_with = "values")]
        values: Vec<Value>,
    },
    /// Above or below a number or a string. What is not there, or of another kind, is neither.
    Range {
        /// Names, from the outside in.
        path: Vec<String>,
        /// Above it.
        above: bool,
        /// Or equal.
        equal: bool,
        /// The number or the string.
        bound: Value,
    },
}

impl Filter {
    /// Reads one that `lib/collection/` has written.
    ///
    /// # Errors
    /// Of the parser.
    pub fn read(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(&metadata::whole(json))
    }

    /// Whether metadata is as it has to be.
    pub fn admits(&self, metadata: &Value) -> bool {
        match self {
            Self::And { of } => of.iter().all(|each| each.admits(metadata)),
            Self::Or { of } => of.iter().any(|each| each.admits(metadata)),
            Self::Not { of } => !of.admits(metadata),
            Self::In { path, values } => {
                let found = find(metadata, path).unwrap_or(&Value::Null);
                values.iter().any(|value| equal(value, found))
            }
            Self::Range { path, above, equal, bound } => {
                let order = find(metadata, path).and_then(|found| compare(found, bound));
                order.is_some_and(|order| match order {
                    Ordering::Equal => *equal,
                    Ordering::Greater => *above,
                    Ordering::Less => !*above,
                })
            }
        }
    }
}

fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let written = Vec::<String>::deserialize(deserializer)?;
    written.iter().map(|json| serde_json::from_str(&metadata::whole(json)).map_err(D::Error::custom)).collect()
}

fn find<'a>(metadata: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(metadata, |value, name| value.get(name))
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(metadata::compare(a, b)),
        _ => None,
    }
}

/// 1 is 1.0, also deep inside.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_mean_what_they_say() {
        let metadata = json!({ "year": 2024, "tag": "a", "deep": { "x": [1, 2.0] }, "none": null });
        let admits = |filter: Value| serde_json::from_value::<Filter>(filter).unwrap().admits(&metadata);
        let is = |path: &str, value: Value| json!({ "op": "in", "path": path.split('.').collect::<Vec<_>>(), "values": [value.to_string()] });
        let range = |path: &str, above: bool, equal: bool, bound: Value| json!({ "op": "range", "path": [path], "above": above, "equal": equal, "bound": bound });
        assert!(admits(is("year", json!(2024.0))) && !admits(is("year", json!("2024"))));
        assert!(admits(is("deep.x", json!([1.0, 2]))) && !admits(is("deep.x", json!([2, 1]))));
        assert!(
            admits(is("none", json!(null))) && admits(is("missing", json!(null))) && !admits(is("tag", json!(null)))
        );
        assert!(admits(range("year", true, true, json!(2024))) && !admits(range("year", true, false, json!(2024))));
        assert!(admits(range("year", false, false, json!(2025))) && !admits(range("tag", true, true, json!(1))));
        assert!(!admits(range("missing", false, true, json!(1))));
        assert!(admits(json!({ "op": "not", "of": is("missing", json!(1)) })));
        assert!(admits(json!({ "op": "or", "of": [is("tag", json!("b")), is("tag", json!("a"))] })));
        assert!(!admits(json!({ "op": "and", "of": [is("tag", json!("b")), is("tag", json!("a"))] })));
    }
}
