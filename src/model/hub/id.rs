//! Names on a hub: of models, of revisions, and of files in a repository.

/// The longest name and revision that are looked up.
const MAX_NAME: usize = 96;
const MAX_REVISION: usize = 250;

/// A model on the hub: `owner/name`, and the revision where one was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Id {
    pub name: String,
    pub revision: Option<String>,
}

impl Id {
    /// `None` for what cannot be an id. Only what the hub itself accepts is one: nothing that leaves the cache directory
    /// or the endpoint.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let (owner, model) = name.split_once('/')?;
        let plain = |part: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
            part.chars().all(inner)
                && part.starts_with(edge)
                && part.ends_with(edge)
                && !part.contains("--")
                && !part.contains("..")
        };
        let named = name.len() <= MAX_NAME && plain(owner) && plain(model) && !model.ends_with(".onnx");
        let revised = revision.is_none_or(is_revision);
        (named && revised).then(|| Self { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

/// Whether it may name a branch, a tag or a commit: parts of plain characters, none of which is hidden or leads upwards.
pub(super) fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains("..") && part.chars().all(plain);
    text.len() <= MAX_REVISION && text.split('/').all(part)
}

/// Whether it names a commit, which never changes.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file of a repository is a plain path inside it, on every platform.
pub(super) fn is_inside(file: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    file.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_the_hub_accepts() {
        for text in ["a/b", "sentence-transformers/all-MiniLM-L6-v2", "_a/b_", "a/b@v1.0", "a/b@refs/pr/1"] {
            assert!(Id::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "a",
            "/a/b",
            "a/b/c",
            "./a/b",
            "../a",
            "a/..",
            "a/b..c",
            "a/-b",
            "a/b.",
            "a--b/c",
            "a\\b/c",
            "a/b c",
            "а/b",
            "https://host/a",
            "a/b@",
            "a/b@..",
            "a/b@x/../y",
            "a/b@/x",
            "a/b@.x",
            "a/model.onnx",
            "C:/x",
            "a/b\0",
            "a/b%2f",
        ] {
            assert!(Id::parse(text).is_none(), "{text}");
        }
        assert!(Id::parse(&format!("a/{}", "b".repeat(95))).is_none());
    }

    #[test]
    fn files_stay_inside() {
        assert!(is_inside("onnx/model.onnx") && is_inside("1_Pooling/config.json"));
        for file in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\\b", "C:x", "./a", "a/"] {
            assert!(!is_inside(file), "{file}");
        }
    }
}
