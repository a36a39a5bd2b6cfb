//! What stands aside from what is looked for most: tests, fixtures, and what a program has written.

/// Directories, and modules in a file, of such.
const ROOMS: [&str; 19] = [
    "test",
    "tests",
    "__tests__",
    "testing",
    "testdata",
    "test_data",
    "spec",
    "specs",
    "e2e",
    "fixture",
    "fixtures",
    "__fixtures__",
    "mock",
    "mocks",
    "__mocks__",
    "generated",
    "__generated__",
    "vendor",
    "third_party",
];

/// Parts of the name of a file, between dots.
const PARTS: [&str; 8] = ["test", "tests", "spec", "stories", "generated", "gen", "min", "pb"];

/// How the stem of a file ends or begins that holds tests, or was written by a program.
const ENDS: [&str; 7] = ["_test", "_tests", "_spec", "-test", "-spec", "_pb2", "_generated"];
const JAVA_ENDS: [&str; 4] = ["Test", "Tests", "TestCase", "Spec"];

/// Whether a declaration stands aside, by the path of its file and the names around it.
pub fn is_aside(path: &str, name: &str) -> bool {
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or_default();
    let (stem, rest) = file.split_once('.').unwrap_or((file, ""));
    let is_room = |part: &str| ROOMS.iter().any(|room| part.eq_ignore_ascii_case(room));
    let by_file = rest.split('.').rev().skip(1).any(|part| PARTS.contains(&part))
        || ENDS.iter().any(|end| stem.ends_with(end))
        || stem.starts_with("test_")
        || stem == "conftest"
        || JAVA_ENDS
            .iter()
            .any(|end| stem.strip_suffix(end).is_some_and(|before| before.ends_with(char::is_lowercase)));
    by_file || parts.any(is_room) || name.split('.').rev().skip(1).any(is_room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_fixtures_and_generated_files_stand_aside() {
        for path in [
            "test/a.js",
            "src/__tests__/a.tsx",
            "src/a.test.ts",
            "pkg/server_test.go",
            "tests/test_a.py",
            "src/test/java/ATest.java",
            "lib/StringUtilsTest.java",
            "spec/models/user_spec.rb",
            "conftest.py",
            "api/user.pb.go",
            "api/user_pb2.py",
            "dist/jquery.min.js",
            "Tests/A.swift",
            "src/fixtures/deep/a.rs",
        ] {
            assert!(is_aside(path, "a"), "{path}");
        }
        assert!(is_aside("src/lib.rs", "tests.reads_a_file"));
        for path in [
            "src/attest.js",
            "src/latest.ts",
            "src/contest/a.py",
            "src/testify.go",
            "src/Latest.java",
            "src/a.d.ts",
            "protest.rb",
            "src/spectrum/a.c",
        ] {
            assert!(!is_aside(path, "a"), "{path}");
        }
        assert!(!is_aside("src/lib.rs", "test"));
    }
}
