//! The bytes of a source file → its text.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Share of a file's characters that must be Latin for NUL bytes to mean UTF-16 without a byte order mark, in percent.
const LATIN: usize = 75;

/// The text, and the name of its encoding, if that is not UTF-8. A byte order mark decides; else it is UTF-8 if it can
/// be; else the best guess. `None` for what is no text.
pub fn decode(bytes: Vec<u8>) -> Option<(String, Option<&'static str>)> {
    if let Some((little, rest)) = utf32(&bytes) {
        let text: Option<String> = rest
            .chunks(4)
            .map(|unit| {
                let unit = <[u8; 4]>::try_from(unit).ok()?;
                char::from_u32(if little { u32::from_le_bytes(unit) } else { u32::from_be_bytes(unit) })
            })
            .collect();
        return Some((text?, Some(if little { "UTF-32LE" } else { "UTF-32BE" })));
    }
    if let Some((encoding, length)) = Encoding::for_bom(&bytes) {
        return decoded(encoding, &bytes[length..]);
    }
    if bytes.contains(&0) {
        return decoded(utf16(&bytes)?, &bytes);
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Some((text, None)),
        Err(error) => error.into_bytes(),
    };
    // No editor writes these.
    if bytes.iter().any(|byte| matches!(byte, 1..=8 | 14..=25 | 28..=31)) {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(&bytes, true);
    let encoding = detector.guess(None, Utf8Detection::Deny);
    decoded(encoding, &bytes)
}

fn decoded(encoding: &'static Encoding, bytes: &[u8]) -> Option<(String, Option<&'static str>)> {
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    let named = encoding != UTF_8;
    (!text.contains('\0')).then(|| (text.into_owned(), named.then(|| encoding.name())))
}

/// What follows a mark of UTF-32, and whether its units begin with their last byte.
fn utf32(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let little = bytes.strip_prefix(b"\xff\xfe\0\0").map(|rest| (true, rest));
    little.or_else(|| bytes.strip_prefix(b"\0\0\xfe\xff").map(|rest| (false, rest)))
}

/// The order of the bytes of UTF-16 without a mark: source is Latin for the most part, and then every other byte is NUL.
fn utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count();
    let least = (bytes.len() / 2 * LATIN).div_ceil(100).max(1);
    match (zeros(0), zeros(1)) {
        (0, low) if low >= least => Some(UTF_16LE),
        (high, 0) if high >= least => Some(UTF_16BE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(String, Option<&'static str>)> {
        decode(bytes.to_vec())
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn a_byte_order_mark_decides() {
        assert_eq!(of("\u{feff}const größe = 1".as_bytes()), Some(("const größe = 1".to_owned(), None)));
        let text = "const größe = '€'";
        let marked = format!("\u{feff}{text}");
        assert_eq!(of(&utf16(&marked, true)), Some((text.to_owned(), Some("UTF-16LE"))));
        assert_eq!(of(&utf16(&marked, false)), Some((text.to_owned(), Some("UTF-16BE"))));
        let utf32: Vec<u8> = marked.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(of(&utf32), Some((text.to_owned(), Some("UTF-32LE"))));
        assert_eq!(of(b"\xff\xfea\0\0\0"), None);
    }

    #[test]
    fn without_a_mark_the_best_guess_is_taken() {
        let latin1 = b"/** Die gr\xf6\xdfte Zahl f\xfcr den Z\xe4hler. */\nexport function gr\xf6sse() { return 1; }\n";
        let (text, encoding) = of(latin1).unwrap();
        assert!(text.contains("gr\u{f6}\u{df}te") && encoding == Some("windows-1252"), "{text} {encoding:?}");
        let shift_jis = encoding_rs::SHIFT_JIS.encode("// \u{6587}\u{5b57}\u{30b3}\u{30fc}\u{30c9}\u{3092}\u{5909}\u{63db}\u{3059}\u{308b}\nfunction convert() {}").0;
        assert_eq!(of(&shift_jis).unwrap().1, Some("Shift_JIS"));
        let plain = "export function wide() { return '\u{e4}'; }";
        assert_eq!(of(&utf16(plain, true)), Some((plain.to_owned(), Some("UTF-16LE"))));
        assert_eq!(of(&utf16(plain, false)), Some((plain.to_owned(), Some("UTF-16BE"))));
    }

    #[test]
    fn what_is_no_text_is_told() {
        assert_eq!(of(b"function a() {}\0\0"), None);
        assert_eq!(of(b"\x7fELF\x02\x01\x01\xff"), None);
        assert_eq!(of(b""), Some((String::new(), None)));
    }
}
