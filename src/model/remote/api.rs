//! What is asked of servers, and what they answer.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Kind;
use crate::error::{Error, Fault};
use crate::model::Then;

/// Where texts become vectors, below the address of the API.
pub(super) fn embed_path(kind: Kind) -> &'static str {
    match kind {
        Kind::Ollama => "/api/embed",
        Kind::OpenAi => "/embeddings",
        Kind::Tei => "/embed",
    }
}

/// What is said with every batch.
pub(super) struct Manner<'a> {
    pub kind: Kind,
    pub model: Option<&'a str>,
    pub dimensions: Option<usize>,
    pub normalize: Option<bool>,
    /// Whether vectors shall come as bytes in Base64, a quarter as long as numbers. Servers that do not know it send numbers.
    pub base64: bool,
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'static str>,
    /// Longer texts are cut, as they are by models that run here.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<bool>,
}

impl Manner<'_> {
    /// The body of a request for the vectors of `texts`.
    pub fn body(&self, texts: &[&str]) -> Vec<u8> {
        let tei = self.kind == Kind::Tei;
        let request = Request {
            model: self.model.filter(|_| !tei),
            input: (!tei).then_some(texts),
            inputs: tei.then_some(texts),
            dimensions: self.dimensions,
            encoding_format: (self.kind == Kind::OpenAi).then_some(if self.base64 { "base64" } else { "float" }),
            truncate: (self.kind != Kind::OpenAi).then_some(true),
            normalize: self.normalize.filter(|_| tei),
        };
        // Strings and numbers alone cannot fail.
        serde_json::to_vec(&request).unwrap_or_default()
    }
}

/// Why an answer is of no use.
#[derive(Debug, PartialEq)]
pub(super) struct Unusable {
    pub reason: String,
    pub then: Then,
}

impl Unusable {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), then: Then::Nothing }
    }
}

#[derive(Deserialize)]
struct OllamaAnswer<'a> {
    #[serde(borrow)]
    embeddings: Option<Vec<&'a RawValue>>,
    /// Nanoseconds.
    load_duration: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAiAnswer<'a> {
    #[serde(borrow)]
    data: Option<Vec<OpenAiItem<'a>>>,
}

#[derive(Deserialize)]
struct OpenAiItem<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    embedding: Option<&'a RawValue>,
}

/// The vectors of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Vectors {
    /// One after the other.
    pub values: Vec<f32>,
    /// The length of each.
    pub width: usize,
    /// Whether the server had to load the model first.
    pub loaded: bool,
}

/// A model that is there already is ready sooner.
const LOADED: f64 = 30e6;

/// The vectors of an answer about so many texts.
pub(super) fn vectors(kind: Kind, answer: &[u8], texts: usize) -> Result<Vectors, Unusable> {
    let garbled = |error: serde_json::Error| Unusable::because(format!("its answer cannot be read ({error})"));
    let none = |field: &str| Unusable::because(format!("its answer has no {field}: check that it is such a server"));
    let mut loaded = false;
    let raw: Vec<&RawValue> = match kind {
        Kind::Tei => serde_json::from_slice(answer).map_err(garbled)?,
        Kind::Ollama => {
            let answer: OllamaAnswer = serde_json::from_slice(answer).map_err(garbled)?;
            loaded = answer.load_duration.and_then(|took| took.as_f64()).is_some_and(|took| took >= LOADED);
            answer.embeddings.ok_or_else(|| none("embeddings"))?
        }
        Kind::OpenAi => {
            let answer: OpenAiAnswer = serde_json::from_slice(answer).map_err(garbled)?;
            let items = answer.data.ok_or_else(|| none("data"))?;
            check_order(&items)?;
            items.iter().map(|item| item.embedding.ok_or_else(|| none("embedding"))).collect::<Result<_, _>>()?
        }
    };
    if raw.len() != texts {
        return Err(Unusable::because(format!("it gave {} vectors for {texts} texts", raw.len())));
    }
    let mut values: Vec<f32> = Vec::new();
    let mut width = 0;
    for (row, raw) in raw.iter().enumerate() {
        let before = values.len();
        read_vector(raw.get(), &mut values).map_err(|reason| Unusable::because(format!("vector {row} {reason}")))?;
        let vector = &values[before..];
        if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
            let reason = format!("vector {row} of its answer has {} at position {at}", vector[at]);
            return Err(Unusable { reason, then: Then::Alone });
        }
        match width {
            0 if vector.is_empty() => return Err(Unusable::because(format!("vector {row} of its answer is empty"))),
            0 => {
                width = vector.len();
                values.reserve(width * (texts - 1));
            }
            _ if vector.len() != width => {
                let reason = format!("vector {row} of its answer has {} values, others have {width}", vector.len());
                return Err(Unusable::because(reason));
            }
            _ => {}
        }
    }
    Ok(Vectors { values, width, loaded })
}

/// Which text a vector is of is said by the place in the list, and where there is an `index`, by that, too.
fn check_order(items: &[OpenAiItem]) -> Result<(), Unusable> {
    let wrong = items
        .iter()
        .enumerate()
        .find_map(|(at, item)| Some((at, item.index?)).filter(|(at, index)| *at as u64 != *index));
    match wrong {
        Some((at, index)) => Err(Unusable::because(format!("its answer has the index {index} in place {at}"))),
        None => Ok(()),
    }
}

/// Adds a vector: an array of numbers, or their bytes in Base64.
fn read_vector(raw: &str, all: &mut Vec<f32>) -> Result<(), String> {
    if let Some(text) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| "is a string that is not Base64".to_owned())?;
        let (values, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(format!("has {} bytes, which are no whole number of values", bytes.len()));
        }
        all.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
        return Ok(());
    }
    let inner = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim);
    let Some(inner) = inner else { return Err(format!("is {}, not an array of numbers", shown(raw))) };
    if inner.is_empty() {
        return Ok(());
    }
    for value in inner.split(',') {
        let value = value.trim();
        all.push(match value.parse() {
            Ok(value) => value,
            // What JSON has for a number that is none.
            Err(_) if value == "null" => f32::NAN,
            Err(_) => return Err(format!("has {} in it, which is no number", shown(value))),
        });
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// What a server says about a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    /// What it calls the model.
    pub model: Option<String>,
    /// A hash of the model's content, by the server.
    pub digest: Option<String>,
    /// Most tokens of a text.
    pub max_length: Option<usize>,
    pub max_items: Option<usize>,
    pub max_tokens: Option<usize>,
    pub max_concurrency: Option<usize>,
    pub version: Option<String>,
}

/// Of Ollama's `/api/show`.
pub(super) fn shown_by_ollama(answer: &Value) -> Told {
    let info = answer.get("model_info").and_then(Value::as_object);
    // The name begins with that of the architecture: `nomic-bert.context_length`.
    let length = info.and_then(|info| info.iter().find(|(name, _)| name.ends_with(".context_length")));
    Told { max_length: length.and_then(|(_, length)| whole(length)), ..Told::default() }
}

/// The digest of a model in Ollama's `/api/tags`.
pub(super) fn digest_by_ollama(answer: &Value, model: &str) -> Option<String> {
    let tagged = |name: &str| name == model || name.strip_suffix(":latest") == Some(model);
    let models = answer.get("models")?.as_array()?;
    let named = |entry: &&Value| {
        ["model", "name"].iter().any(|field| entry.get(field).and_then(Value::as_str).is_some_and(tagged))
    };
    text(models.iter().find(named)?, "digest")
}

/// Of text-embeddings-inference's `/info`.
pub(super) fn told_by_tei(answer: &Value) -> Told {
    let number = |name: &str| answer.get(name).and_then(whole);
    Told {
        model: text(answer, "model_id"),
        digest: text(answer, "model_sha").or_else(|| text(answer, "fingerprint")),
        max_length: number("max_input_length"),
        max_items: number("max_client_batch_size"),
        max_tokens: number("max_batch_tokens"),
        max_concurrency: number("max_concurrent_requests"),
        version: text(answer, "version"),
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0)
}

fn text(answer: &Value, name: &str) -> Option<String> {
    answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Whether a refusal says that vectors cannot be had in the form that was asked for.
pub(super) fn is_about_encoding(error: &Error) -> bool {
    let Error::Backend { status: Some(400 | 415 | 422 | 500 | 501), fault: Fault::Rejected, reason, .. } = error else {
        return false;
    };
    let reason = reason.to_lowercase();
    ["encoding", "base64", "float"].iter().any(|word| reason.contains(word))
}

/// Whether a refusal says that the texts are too many or too long, so that fewer of them may do.
pub(super) fn is_too_much(status: u16, said: &str) -> bool {
    if status == 413 {
        return true;
    }
    // Some say so with 500.
    if ![400, 422, 500].contains(&status) {
        return false;
    }
    let said = said.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    any(&["too many tokens", "too many input", "too large", "too long", "context length", "batch size", "array length"])
        || any(&["token"]) && any(&["maximum", "exceed", "limit", "less than", "max "])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manner(kind: Kind) -> Manner<'static> {
        Manner { kind, model: Some("m"), dimensions: Some(2), normalize: Some(true), base64: true }
    }

    #[test]
    fn asks_each_in_its_words() {
        for (kind, expected) in [
            (Kind::Ollama, json!({ "model": "m", "input": ["a", "b"], "dimensions": 2, "truncate": true })),
            (Kind::OpenAi, json!({ "model": "m", "input": ["a", "b"], "dimensions": 2, "encoding_format": "base64" })),
            (Kind::Tei, json!({ "inputs": ["a", "b"], "dimensions": 2, "truncate": true, "normalize": true })),
        ] {
            assert_eq!(serde_json::from_slice::<Value>(&manner(kind).body(&["a", "b"])).unwrap(), expected);
        }
        let numbers = Manner { base64: false, ..manner(Kind::OpenAi) }.body(&["a"]);
        assert_eq!(serde_json::from_slice::<Value>(&numbers).unwrap()["encoding_format"], "float");
    }

    fn read(kind: Kind, answer: &str) -> Result<(Vec<f32>, usize), Unusable> {
        vectors(kind, answer.as_bytes(), 2).map(|Vectors { values, width, .. }| (values, width))
    }

    #[test]
    fn reads_the_vectors_of_each() {
        let expected = Ok((vec![1.0, -2.5, 0.25, 1e-3], 2));
        assert_eq!(read(Kind::Tei, "[[1, -2.5],\n [0.25,1e-3] ]"), expected);
        assert_eq!(read(Kind::Ollama, r#"{"model":"m","embeddings":[[1,-2.5],[0.25,0.001]]}"#), expected);
        let openai = r#"{"data":[{"index":0,"embedding":[1,-2.5]},{"index":1,"embedding":"AACAPm8SgzA="}]}"#;
        assert_eq!(read(Kind::OpenAi, openai).unwrap().0[..3], [1.0, -2.5, 0.25]);
        let unnumbered = r#"{"data":[{"embedding":[1,-2.5]},{"embedding":[0.25,0.001]}],"usage":{}}"#;
        assert_eq!(read(Kind::OpenAi, unnumbered), expected);
    }

    #[test]
    fn knows_that_a_model_was_loaded_for_an_answer() {
        for (took, loaded) in [
            ("", false),
            (r#","load_duration":1019500"#, false),
            (r#","load_duration":4e8"#, true),
            (r#","load_duration":"x""#, false),
        ] {
            let answer = format!(r#"{{"embeddings":[[1]]{took}}}"#);
            assert_eq!(vectors(Kind::Ollama, answer.as_bytes(), 1).unwrap().loaded, loaded, "{took}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_vector_for_each_text() {
        let openai = |indices: &[u64]| {
            let items: Vec<Value> =
                indices.iter().map(|index| json!({ "index": index, "embedding": [1, 2] })).collect();
            read(Kind::OpenAi, &json!({ "data": items }).to_string())
        };
        assert!(openai(&[0, 1]).is_ok());
        for indices in [&[1, 0][..], &[0, 0], &[0, 2], &[0], &[0, 1, 2]] {
            assert_eq!(openai(indices).unwrap_err().then, Then::Nothing, "{indices:?}");
        }
        for answer in [
            "",
            "[",
            "[[1,2],[3",
            "{}",
            "[[1,2],[3]]",
            "[[],[]]",
            "[[1,2],[3,\"x\"]]",
            "[[1,2],[[3,4]]]",
            "[[1,2],7]",
            "[[1,NaN],[1,2]]",
            "[[1,2],\"x\"]",
            "[[1,2],\"AAA=\"]",
            "<html>",
        ] {
            assert_eq!(read(Kind::Tei, answer).unwrap_err().then, Then::Nothing, "{answer}");
        }
        for answer in ["[[1,2],[null,4]]", "[[1,1e99],[1,2]]"] {
            assert_eq!(read(Kind::Tei, answer).unwrap_err().then, Then::Alone, "{answer}");
        }
        for answer in ["{}", "{\"embeddings\":null}", "{\"embedding\":[1]}"] {
            assert!(read(Kind::Ollama, answer).is_err() && read(Kind::OpenAi, answer).is_err());
        }
    }

    #[test]
    fn knows_a_refusal_of_too_much() {
        for (status, said) in [
            (413, ""),
            (413, "Payload Too Large"),
            (422, "batch size 33 > maximum allowed batch size 32"),
            (400, "This model's maximum context length is 8192 tokens, however you requested 10000 tokens"),
            (400, "Requested 400000 tokens, max 300000 tokens per request"),
            (400, "too many tokens"),
            (400, "the input length exceeds the context length"),
            (500, "input is too large to process. increase the physical batch size"),
        ] {
            assert!(is_too_much(status, said), "{status} {said}");
        }
        for (status, said) in [
            (401, "too many tokens"),
            (400, "unknown model"),
            (404, "not found"),
            (503, "batch size"),
            (400, "Invalid token"),
        ] {
            assert!(!is_too_much(status, said), "{status} {said}");
        }
    }

    #[test]
    fn understands_what_servers_say_about_a_model() {
        let show = json!({ "model_info": { "general.architecture": "nomic-bert", "nomic-bert.context_length": 2048 } });
        assert_eq!(shown_by_ollama(&show).max_length, Some(2048));
        assert_eq!(shown_by_ollama(&json!([])), Told::default());
        let tags = json!({ "models": [{ "name": "a:latest", "digest": "1" }, { "name": "a:v2", "digest": "2" }, 5] });
        let digest = |model| digest_by_ollama(&tags, model);
        assert_eq!([digest("a"), digest("a:v2"), digest("b")], [Some("1".to_owned()), Some("2".to_owned()), None]);
        let info = json!({ "model_id": "x", "model_sha": "s", "max_client_batch_size": 4, "max_batch_tokens": 99,
            "max_input_length": 512, "max_concurrent_requests": 0, "version": "1.8" });
        let told = told_by_tei(&info);
        assert_eq!((told.max_items, told.max_tokens, told.max_concurrency), (Some(4), Some(99), None));
        assert_eq!((told.digest.as_deref(), told.version.as_deref()), (Some("s"), Some("1.8")));
    }
}
