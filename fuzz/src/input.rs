//! Bytes → the parts that a target reads. Whatever the bytes are, there are parts.

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub fn number(&mut self) -> u64 {
        self.bytes(8).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (part, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        part
    }

    /// As many bytes as the next two say.
    pub fn sized(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        self.bytes(length)
    }
}

/// Files in one input: each begins with a line of its own.
pub const MARK: &[u8] = b"\n==> ";

/// The files of an input, by name.
pub fn files(data: &[u8]) -> Vec<(&str, &[u8])> {
    let mut files = Vec::new();
    let mut rest = data;
    while let Some(at) = find(rest, MARK) {
        rest = &rest[at + MARK.len()..];
        let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { break };
        let end = find(&rest[line..], MARK).map_or(rest.len(), |end| line + end);
        if let Ok(name) = std::str::from_utf8(&rest[..line]) {
            files.push((name, &rest[line + 1..end.max(line + 1)]));
        }
        rest = &rest[end..];
    }
    files
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
