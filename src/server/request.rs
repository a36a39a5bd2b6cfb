//! The body of a request for embeddings, as clients of OpenAI's send it. JS class: `EmbeddingServer`.
//!
//! Read on a thread of its own, and no deeper than such a body goes: brackets, white space or one text of megabytes hold
//! up nobody else.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What a body may have.
const PARAMETERS: [&str; 6] = ["model", "input", "encoding_format", "dimensions", "user", "input_type"];

/// Longest name or value that an error repeats, in characters.
const LONGEST_SHOWN: usize = 40;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it calls the model.
    pub model: String,
    /// The texts: at least one, none of them blank. A lone surrogate is U+FFFD.
    pub texts: Vec<String>,
    /// Whether vectors are to be written in base64.
    pub base64: bool,
    /// How many values a vector is to have: a whole number from 1.
    pub dimensions: Option<f64>,
    /// Whether the texts are queries, and not documents.
    pub query: bool,
}

/// Why a body cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The parameter that it is about.
    pub param: Option<String>,
    /// What kind of mistake it is, for programs.
    pub code: Option<&'static str>,
    /// What is wrong, and what to do.
    pub message: String,
}

type Result<T> = std::result::Result<T, Wrong>;

/// Reads a body with at most `most_texts` texts.
///
/// # Errors
/// What is wrong with it, naming the parameter.
pub fn read(body: &[u8], most_texts: usize) -> Result<Request> {
    if body.is_empty() {
        return Err(wrong(None, None, "The body is empty: send JSON such as {\"model\": \"…\", \"input\": \"…\"}"));
    }
    let text = std::str::from_utf8(body).map_err(|error| malformed(format_args!("it is not UTF-8: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Members).and_then(|members| json.end().map(|()| members));
    let members = members.map_err(|error| {
        if !error.is_data() {
            return malformed(error);
        }
        let kind = Kind::of(text.trim_start());
        let message = format!("The body is {kind}, not a JSON object such as {{\"model\": \"…\", \"input\": \"…\"}}");
        wrong(None, None, message)
    })?;
    let mut values: [Option<&RawValue>; PARAMETERS.len()] = [None; PARAMETERS.len()];
    for (name, value) in members {
        let Some(at) = PARAMETERS.iter().position(|known| *known == name) else {
            let (name, known) = (shown(&name), PARAMETERS.join(", "));
            let message = format!("Unknown parameter: {name:?}. Known are {known}");
            return Err(wrong(Some(name.as_ref()), Some("unknown_parameter"), message));
        };
        if values[at].replace(value).is_some() {
            return Err(wrong(Some(&name), None, format!("{name} is there twice")));
        }
    }
    // Null is as good as nothing, but for the texts.
    let [model, input, format, dimensions, user, input_type] = values;
    let missing = Some("missing_required_parameter");
    let Some(model) = given(model) else {
        let message = "You must provide a model parameter: GET /v1/models lists what there is";
        return Err(wrong(Some("model"), missing, message));
    };
    let model = string(model).ok_or_else(|| unfit("model", model, "a string"))?;
    let Some(input) = input else {
        let message = "You must provide an input parameter: a string, or an array of strings";
        return Err(wrong(Some("input"), missing, message));
    };
    let texts = texts(input.get(), most_texts)?;
    let base64 = one_of("encoding_format", given(format), ["float", "base64"])?;
    let whole = |json: &str| serde_json::from_str(json).ok().filter(|n: &f64| n.fract() == 0.0 && *n >= 1.0);
    let dimensions = given(dimensions)
        .map(|json| whole(json).ok_or_else(|| unfit("dimensions", json, "a whole number from 1")))
        .transpose()?;
    if let Some(user) = given(user)
        && Kind::of(user) != Kind::String
    {
        return Err(unfit("user", user, "a string"));
    }
    let query = one_of("input_type", given(input_type), ["document", "query"])?;
    Ok(Request { model, texts, base64, dimensions, query })
}

/// The JSON of a value that says something.
fn given(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|json| Kind::of(json) != Kind::Null)
}

/// Whether a value is the second of two words, and not the first, which stands for nothing, too.
fn one_of(param: &str, given: Option<&str>, words: [&str; 2]) -> Result<bool> {
    let Some(json) = given else { return Ok(false) };
    let word = string(json).and_then(|word| words.iter().position(|known| *known == word));
    word.map(|at| at == 1).ok_or_else(|| unfit(param, json, &format!("\"{}\" or \"{}\"", words[0], words[1])))
}

fn texts(json: &str, most: usize) -> Result<Vec<String>> {
    let input = |code, message: String| wrong(Some("input"), code, message);
    let kind = Kind::of(json);
    if let Some(text) = string(json) {
        return checked(text, "input").map(|text| vec![text]);
    }
    if kind != Kind::Array {
        return Err(input(None, format!("input is {kind}, not a string or an array of strings")));
    }
    let elements = serde_json::Deserializer::from_str(json).deserialize_seq(Elements { most }).map_err(malformed)?;
    if elements.is_empty() {
        let message = "input is an empty array: send at least one text";
        return Err(input(Some("empty_array"), message.to_owned()));
    }
    let text = |(at, json): (usize, &RawValue)| match (Kind::of(json.get()), string(json.get())) {
        _ if at == most => {
            let message = format!("input has more than {most} texts, which is the limit of one request: send several");
            Err(input(Some("array_above_max_length"), message))
        }
        (_, Some(text)) => checked(text, &format!("input[{at}]")),
        (kind @ (Kind::Number | Kind::Array), None) => Err(input(
            None,
            format!(
                "input[{at}] is {kind}, as token ids are: send the text itself, the model has a tokenizer of its own \
                 (LangChain for Python: check_embedding_ctx_length=False)"
            ),
        )),
        (kind, None) => Err(input(None, format!("input[{at}] is {kind}, not a string"))),
    };
    elements.into_iter().enumerate().map(text).collect()
}

fn checked(text: String, place: &str) -> Result<String> {
    if !text.trim().is_empty() {
        return Ok(text);
    }
    let blank = if text.is_empty() { "" } else { " but for white space" };
    let message = format!("{place} is an empty string{blank}, which has no embedding: leave it out");
    Err(wrong(Some("input"), None, message))
}

/// The string that a value is, if it is one. It is JSON already.
fn string(json: &str) -> Option<String> {
    if Kind::of(json) != Kind::String {
        return None;
    }
    serde_json::from_str(json).or_else(|_| serde_json::Deserializer::from_str(json).deserialize_bytes(Lossy)).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
    /// No JSON at all.
    None,
}

impl Kind {
    /// By the first character, which says it.
    fn of(json: &str) -> Self {
        match json.bytes().next() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
            Self::None => "nothing",
        })
    }
}

/// The members of an object, one more than there may be at most. What they hold is checked, and not made.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() <= PARAMETERS.len()
            && let Some(member) = map.next_entry()?
        {
            members.push(member);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

/// The same of an array.
struct Elements {
    most: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.most
            && let Some(element) = seq.next_element()?
        {
            elements.push(element);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}

/// A string with lone surrogates, which only bytes can hold.
struct Lossy;

impl Visitor<'_> for Lossy {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<String, E> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            // The first of the three bytes of a surrogate stands for all of them.
            if chunk.invalid().first() == Some(&0xed) {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Ok(text)
    }
}

fn wrong(param: Option<&str>, code: Option<&'static str>, message: impl Into<String>) -> Wrong {
    Wrong { param: param.map(str::to_owned), code, message: message.into() }
}

fn malformed(why: impl fmt::Display) -> Wrong {
    wrong(None, Some("invalid_json"), format!("The body could not be read as JSON: {why}"))
}

fn unfit(param: &str, json: &str, wanted: &str) -> Wrong {
    let given: Cow<str> = match Kind::of(json) {
        kind @ (Kind::Object | Kind::Array) => kind.to_string().into(),
        _ => shown(json),
    };
    wrong(Some(param), None, format!("{param} is {given}, not {wanted}"))
}

fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts_of(body: &str) -> Vec<String> {
        read(body.as_bytes(), 3).unwrap().texts
    }

    #[test]
    fn a_request_is_read_however_it_is_written() {
        let request =
            read(b"\xef\xbb\xbf {\"\\u0069nput\" : [\"a\", \"\\u00e9\\n\"],\r\n\t\"model\":\"m\",\"user\":null}", 2);
        let texts = vec!["a".to_owned(), "é\n".to_owned()];
        let model = "m".to_owned();
        assert_eq!(request, Ok(Request { model, texts, base64: false, dimensions: None, query: false }));
        let all =
            br#"{"model":"m","input":"a","encoding_format":"base64","dimensions":1e1,"input_type":"query","user":"u"}"#;
        let Request { base64, dimensions, query, .. } = read(all, 2).unwrap();
        assert_eq!((base64, dimensions, query), (true, Some(10.0), true));
    }

    #[test]
    fn a_lone_surrogate_is_one_character_and_a_pair_is_its_own() {
        assert_eq!(
            texts_of(r#"{"model":"m","input":["a\ud800b\udc00","\ud83d\ude00\ud83d"]}"#),
            ["a\u{fffd}b\u{fffd}", "😀\u{fffd}"]
        );
    }

    #[test]
    fn nothing_is_kept_of_what_is_too_much() {
        let many = format!("{{\"model\":\"m\",\"input\":[{}1]}}", "1,".repeat(100_000));
        assert!(read(many.as_bytes(), 1 << 20).unwrap_err().message.contains("token ids"));
        let four = read(br#"{"model":"m","input":["a","a","a","a"]}"#, 3).unwrap_err();
        assert_eq!(four.code, Some("array_above_max_length"));
        let deep = format!("{{\"input\":{}", "[".repeat(1 << 20));
        assert_eq!(read(deep.as_bytes(), 3).unwrap_err().code, Some("invalid_json"));
        let members = format!("{{{}\"b\":1}}", "\"a\":1,".repeat(100_000));
        assert_eq!(read(members.as_bytes(), 3).unwrap_err().param.as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(texts in proptest::collection::vec("[a-z\\PC]{1,20}", 1..4), model: String) {
            prop_assume!(texts.iter().all(|text| !text.trim().is_empty()));
            let body = serde_json::json!({ "model": model, "input": texts }).to_string();
            let request = read(body.as_bytes(), 3).unwrap();
            prop_assert_eq!((request.model, request.texts), (model, texts));
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, at in 0usize..40, sign in ".") {
            let _ = read(&bytes, 3);
            let mut body = r#"{"model":"m","input":["a","\u0041"],"dimensions":8}"#.to_owned();
            body.insert_str(at, &sign);
            let ours = read(body.as_bytes(), 3);
            let json = serde_json::from_str::<serde_json::Value>(body.strip_prefix('\u{feff}').unwrap_or(&body));
            prop_assert!(json.is_ok() || ours.is_err(), "{:?}", ours);
            let called = ours.as_ref().is_err_and(|wrong| wrong.code == Some("invalid_json"));
            prop_assert!(json.is_err() || !called, "{:?}", ours);
        }
    }
}
