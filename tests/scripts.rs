//! Texts of forty scripts have the tokens that transformers' own BERT tokenizer gives them, which is written in Python and shares
//! nothing with the one that is used here. See `fixtures/scripts.py`, which makes the same texts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use embedcore::cancel::Cancel;
use embedcore::embedding::InputType;
use embedcore::model::{ModelOptions, Name, Source, Unloaded};
use embedcore::tokens::Tokenizer;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Facts {
    texts: u64,
    between: Vec<String>,
    ascii: Vec<String>,
    scripts: Vec<Script>,
    vocabulary: String,
}

#[derive(Deserialize)]
struct Script {
    name: String,
    ranges: Vec<(u32, u32)>,
    sha256: String,
}

/// The arithmetic that texts are made by.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn character(code: u32) -> char {
    char::from_u32(code).expect("no range holds surrogates")
}

fn text(facts: &Facts, script: usize, nth: u64) -> String {
    let mut numbers = Numbers(nth * 1000 + script as u64);
    let ranges = &facts.scripts[script].ranges;
    let mut text = String::new();
    for _ in 0..1 + numbers.below(8) {
        if numbers.below(6) == 0 {
            text.push_str(&facts.ascii[numbers.below(facts.ascii.len())]);
        } else {
            for _ in 0..1 + numbers.below(7) {
                let (first, last) = ranges[numbers.below(ranges.len())];
                text.push(character(first + numbers.below((last - first + 1) as usize) as u32));
            }
        }
        text.push_str(&facts.between[numbers.below(facts.between.len())]);
    }
    text
}

fn vocabulary(facts: &Facts) -> Vec<String> {
    let words =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "func", "##tion", "camel", "##case", "don", "mask"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend((33u8..127).map(char::from).filter(|c| !c.is_ascii_uppercase()).map(String::from));
    for (first, last) in facts.scripts.iter().flat_map(|script| &script.ranges) {
        let codes = *first..=(*last).min(first + 200);
        words.extend(codes.filter(|code| code % 3 > 0).map(|code| character(code).to_string()));
    }
    let after: Vec<String> =
        words.iter().filter(|word| word.chars().count() == 1).map(|word| format!("##{word}")).collect();
    let mut seen = std::collections::HashSet::new();
    words.into_iter().chain(after).filter(|word| word.trim() == word && seen.insert(word.clone())).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn texts_of_forty_scripts_have_the_tokens_of_another_implementation() {
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts.json");
    let facts: Facts = serde_json::from_str(&fs::read_to_string(facts).unwrap()).unwrap();
    assert!(facts.scripts.len() >= 40);
    let words = vocabulary(&facts).join("\n");
    assert_eq!(hexadecimal(&Sha256::digest(&words)), facts.vocabulary, "the vocabulary is another one");

    let model = tempfile::tempdir().unwrap();
    fs::write(model.path().join("vocab.txt"), words + "\n").unwrap();
    fs::write(model.path().join("model.onnx"), "").unwrap();
    fs::write(model.path().join("config.json"), r#"{"model_type": "bert", "max_position_embeddings": 512}"#).unwrap();
    let options = ModelOptions::default();
    let name = Name::new(model.path().to_str().unwrap());
    let source = Source::find(&name, &options, &Cancel::default(), None).unwrap();
    let unloaded = Unloaded::read(&source, &options).unwrap();
    let file = unloaded.tokenizer().unwrap();
    let tokenizer = Tokenizer::new(file.json, file.reading).unwrap();

    for (nth_script, script) in facts.scripts.iter().enumerate() {
        let mut hash = Sha256::new();
        for nth in 0..facts.texts {
            let tokens = tokenizer.encode(0, InputType::Document, &text(&facts, nth_script, nth)).unwrap();
            tokens.ids.iter().chain([&u32::MAX]).for_each(|id| hash.update(id.to_le_bytes()));
        }
        assert_eq!(hexadecimal(&hash.finalize()), script.sha256, "a text in {} has other tokens", script.name);
    }
}
