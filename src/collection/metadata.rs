//! Metadata and filters, as JavaScript writes them: its strings may hold halves of characters, which no string of ours can.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

/// How deep metadata may be nested: every parser of JSON reads that.
pub const MOST_DEPTH: usize = 100;

/// Begins what stands for half of a character: three hexadecimal digits follow. Twice, it stands for itself.
const MARK: char = '\u{10ffff}';

/// The value that metadata is, or what is wrong with it.
pub fn read(json: &str) -> Result<Value, String> {
    let depth = depth(json);
    if depth > MOST_DEPTH {
        return Err(format!("is nested {depth} levels deep, of {MOST_DEPTH} at most"));
    }
    match serde_json::from_str(&whole(json)) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("is no JSON object".to_owned()),
        Err(error) => Err(format!("cannot be read as JSON ({error})")),
    }
}

/// JSON whose strings are strings here as well: different ones stay different.
pub fn whole(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") && !json.contains(MARK) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['\\', MARK]) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
            (Some(0xdbff), Some(0xdfff)) => {
                text.extend([MARK, MARK]);
                12
            }
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => {
                text.push_str(&rest[..12]);
                12
            }
            (Some(unit @ 0xd800..0xe000), _) => {
                text.push(MARK);
                text.push_str(&format!("{:03x}", unit & 0xfff));
                6
            }
            _ if rest.starts_with(MARK) => {
                text.extend([MARK, MARK]);
                MARK.len_utf8()
            }
            // Whatever is escaped is ASCII, in JSON.
            _ => {
                let length = rest.chars().take(2).map(char::len_utf8).sum();
                text.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The unit that `\uXXXX` is, if `text` begins with that.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
}

/// By UTF-16 units, as JavaScript compares strings.
pub fn compare(a: &str, b: &str) -> Ordering {
    if a.contains(MARK) || b.contains(MARK) {
        return units(a).cmp(&units(b));
    }
    a.encode_utf16().cmp(b.encode_utf16())
}

/// The units that a string of [`whole`] has stood for.
fn units(text: &str) -> Vec<u16> {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK) {
        units.extend(before.encode_utf16());
        let half = after.get(..3).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        rest = match (half, after.strip_prefix(MARK)) {
            (Some(half), _) => {
                units.push(0xd000 | half);
                &after[3..]
            }
            (None, after_mark) => {
                units.extend(MARK.encode_utf16(&mut [0; 2]).iter());
                after_mark.unwrap_or(after)
            }
        };
    }
    units.extend(rest.encode_utf16());
    units
}

fn depth(json: &str) -> usize {
    let (mut depth, mut most, mut within, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if within => escaped = true,
            b'"' => within = !within,
            b'{' | b'[' if !within => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !within => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_characters_are_read_and_stay_what_they_are() {
        let of = |json: &str| read(&format!("{{\"a\":{json}}}")).map(|value| value["a"].clone());
        let written = [
            r#""\ud800""#,
            r#""\ud801""#,
            r#""x\udfff""#,
            r#""\ud83d\ude00""#,
            "\"\u{10ffff}800\"",
            r#""\\ud800""#,
            r#""\n\"""#,
        ];
        let read: Vec<Value> = written.iter().map(|json| of(json).unwrap()).collect();
        for (at, one) in read.iter().enumerate() {
            assert!(read[..at].iter().all(|other| other != one), "{}", written[at]);
        }
        assert_eq!(read[3], "😀");
        assert_eq!(of(r#""\uDBFF\uDFFF""#), of("\"\u{10ffff}\""));
        let text = |at: usize| read[at].as_str().unwrap();
        assert_eq!(compare(text(0), text(1)), Ordering::Less);
        assert_eq!(compare(text(3), text(2)), Ordering::Greater);
        assert_eq!(compare(text(0), text(3)), Ordering::Less, "0xd800 is before 0xd83d");
        assert_eq!(compare(text(4), "\u{10ffff}\u{10ffff}800"), Ordering::Equal);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(read(&nested(MOST_DEPTH)).is_ok());
        assert!(read(&nested(MOST_DEPTH + 1)).unwrap_err().contains("101 levels"));
        assert!(read(r#"{"a":"[[[[{{{{\"[["}"#).is_ok());
        assert!(read("[1]").is_err() && read("").is_err() && read("{\"a\":1e400}").is_err());
    }
}
