//! What each target begins with: files of `fixtures/`, and what we write ourselves.

use std::fs;
use std::path::{Path, PathBuf};

use embedcore::batch::optimizer::{BatchOptimizer, OptimizerOptions};
use embedcore::index::fuzzing::{extension, extensions};

use crate::damage;
use crate::input::MARK;
use crate::targets::TARGETS;

/// Writes the seeds of all targets, each into a directory of its own, and `targets.json`: their names and most bytes.
pub fn write(directory: &Path) {
    let list: Vec<_> =
        TARGETS.iter().map(|target| serde_json::json!({ "name": target.name, "most": target.most })).collect();
    for target in &TARGETS {
        let place = directory.join(target.name);
        fs::create_dir_all(&place).expect("a directory");
        for (nth, seed) in of(target.name).into_iter().filter(|seed| seed.len() <= target.most).enumerate() {
            fs::write(place.join(format!("seed-{nth}")), seed).expect("a file");
        }
    }
    fs::write(directory.join("targets.json"), serde_json::Value::from(list).to_string()).expect("a file");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn all(directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut open = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if entry.metadata().is_ok_and(|metadata| metadata.len() < 200_000) {
                found.push((path.clone(), fs::read(path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}

fn named(end: &str) -> Vec<Vec<u8>> {
    let models = all("fixtures/models").into_iter();
    models.filter(|(path, _)| path.to_string_lossy().ends_with(end)).map(|(_, bytes)| bytes).collect()
}

/// With these bytes in front.
fn after(front: &[u8], seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    seeds.into_iter().map(|seed| [front, &seed].concat()).collect()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

fn text(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "cache-file" | "collection-file" | "index-file" => damage::seeds(),
        "row" => (0..16)
            .map(|flags| [vec![flags], vec![1; 66], sized(b"kind"), sized(b"note"), vec![0; 16]].concat())
            .collect(),
        "payload" => vec![[sized(b"kind,tag"), vec![1, 4, 0, 0, 0], b"{}  {\"a\":1}".to_vec()].concat()],
        "note" => vec![[vec![1; 17], b"name".to_vec()].concat(), vec![0; 17 + 24]],
        "shared-value" => {
            vec![[b"ecv1".to_vec(), vec![0; 33], vec![1], vec![9; 32], vec![4, 0, 0, 0], vec![0; 40]].concat()]
        }
        "shared-change" => {
            vec![[b"somebodyk".to_vec(), vec![0; 80]].concat(), [b"anybody!c".to_vec(), vec![1; 40]].concat()]
        }
        "filter" => filters(),
        "safetensors" => named(".safetensors"),
        "tokenizer" => after(&[16, 5, 0, b'h', b'e', b'l', b'l', b'o'], named("tokenizer.json"))
            .into_iter()
            .chain(tokenizers())
            .collect(),
        "model" => models(),
        "template" => templates(),
        "graph" => named(".onnx"),
        "library" => vec![b"\x7fELF\x02\x01\x01".to_vec(), elf()],
        "image" => images(),
        "hub" => hub(),
        "hub-listing" => text(&[
            r#"{"sha":"0123456789012345678901234567890123456789","siblings":[{"rfilename":"config.json"},{"rfilename":"onnx/model.onnx"}]}"#,
            "owner/name@refs/pr/1",
            "openai:text-embedding-3-small",
            "tei:http://host:8080/v1?a=b",
        ]),
        "remote" => after(
            &[0x10],
            text(&["[[0.5,1e-3]]", r#"{"model_id":"a","max_input_length":512,"max_client_batch_size":32}"#]),
        )
        .into_iter()
        .chain(after(
            &[0x11],
            text(&[r#"{"embeddings":[[1,2]],"load_duration":5}"#, r#"{"model_info":{"bert.context_length":5}}"#]),
        ))
        .chain(after(
            &[0x22],
            text(&[r#"{"data":[{"index":0,"embedding":[1,2]},{"index":1,"embedding":"AACAPwAAAEA="}]}"#]),
        ))
        .collect(),
        "request" => text(&[
            r#"{"input":["a","b"],"model":"m","encoding_format":"base64","dimensions":4,"user":"u"}"#,
            r#"{"input":"\u00e9\ud83e\udd80"}"#,
            r#"{"input":[[1,2],[3]]}"#,
            r#"{"inputs":["a"],"truncate":true,"normalize":false,"prompt_name":"query"}"#,
            r#"{"query":"q","texts":["a","b"],"raw_scores":true,"return_text":false}"#,
        ]),
        "git" => vec![
            b"[core]\n\texcludesFile = ~/x\n[include]\npath = \"a\\tb\"\n".to_vec(),
            fs::read(root().join(".git/index"))
                .map(|index| index[..index.len().min(4000)].to_vec())
                .unwrap_or_default(),
            git_index(),
        ],
        "ignore" => after(
            &sized(b"a/bc/d.rs"),
            text(&["*.rs\n!/a/**/d.rs\n", "[!a-c[:alpha:]]*/\n\\#x\\ \n", "**/b*\na/**\n?*[^]]\n"]),
        ),
        "tree" => trees(),
        "source" => sources(),
        "snapshot" => snapshots(),
        "cycles" => cycles(),
        "learned" => {
            let optimizer = BatchOptimizer::new(8, OptimizerOptions::default()).expect("an optimizer");
            vec![optimizer.state().to_string().into_bytes(), learned()]
        }
        "trajectories" => (0..4).map(|n| [vec![n, 5, 4, 3, 2, 6, 6, 2], vec![0x3f; 200]].concat()).collect(),
        other => panic!("{other} has no seeds"),
    }
}

fn tokenizers() -> Vec<Vec<u8>> {
    let front = [64, 5, 0, b'h', b'e', b'l', b'l', b'o'];
    let vocabulary = r###"{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"a":4,"##b":5,"the":6}"###;
    let wordpiece = format!(
        r###"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{{"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],"normalizer":{{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}},"pre_tokenizer":{{"type":"BertPreTokenizer"}},"post_processor":{{"type":"TemplateProcessing","single":[{{"SpecialToken":{{"id":"[CLS]","type_id":0}}}},{{"Sequence":{{"id":"A","type_id":0}}}},{{"SpecialToken":{{"id":"[SEP]","type_id":0}}}}],"pair":[{{"Sequence":{{"id":"A","type_id":0}}}},{{"Sequence":{{"id":"B","type_id":1}}}}],"special_tokens":{{"[CLS]":{{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]}},"[SEP]":{{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}}}}},"decoder":{{"type":"WordPiece","prefix":"##","cleanup":true}},"model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{vocabulary}}}}}"###
    );
    let bpe = r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true},"post_processor":{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",0],"trim_offsets":true,"add_prefix_space":false},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","dropout":null,"unk_token":"<unk>","fuse_unk":false,"vocab":{"<s>":0,"<unk>":1,"</s>":2,"a":3,"b":4,"ab":5},"merges":["a b"]}}"#;
    let unigram = r#"{"version":"1.0","truncation":{"direction":"Left","max_length":8,"strategy":"LongestFirst","stride":0},"added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},{"type":"Strip","strip_left":true,"strip_right":false}]},"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["▁",-1.0],["a",-2.5],["▁a",-2.0]],"byte_fallback":false}}"#;
    let level = r#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|(?=[A-Z])"},"behavior":"Isolated","invert":false},"model":{"type":"WordLevel","vocab":{"<unk>":0,"a":1},"unk_token":"<unk>"}}"#;
    [wordpiece.as_str(), bpe, unigram, level].iter().map(|json| [&front, json.as_bytes()].concat()).collect()
}

/// The files of each model, but for what is long.
fn models() -> Vec<Vec<u8>> {
    let models = fs::read_dir(root().join("fixtures/models")).expect("models").flatten();
    let mut seeds: Vec<Vec<u8>> = models.map(|model| join(&model.path())).collect();
    seeds.sort();
    let table = r#"{"embeddings":{"dtype":"F32","shape":[7,2],"data_offsets":[0,56]}}"#;
    let header = [&(table.len() as u64).to_le_bytes()[..], table.as_bytes(), &[0; 56]].concat();
    let tokenizer = &tokenizers()[0][8..];
    seeds.push(
        [
            &[0],
            MARK,
            b"model.safetensors\n",
            &header,
            MARK,
            b"tokenizer.json\n",
            tokenizer,
            MARK,
            b"config.json\n{\"normalize\":true}",
        ]
        .concat(),
    );
    let vocabulary = b"vocab.txt\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b";
    let config = br#"tokenizer_config.json
{"tokenizer_class":"BertTokenizer","do_lower_case":true,"model_max_length":128,"truncation_side":"left"}"#;
    seeds.push(
        [
            &[0],
            MARK,
            b"onnx/model.onnx\n",
            MARK,
            vocabulary,
            MARK,
            config,
            MARK,
            b"config.json\n{\"model_type\":\"bert\"}",
        ]
        .concat(),
    );
    seeds
}

fn join(model: &Path) -> Vec<u8> {
    let mut seed = vec![0];
    let mut open = vec![model.to_owned()];
    while let Some(place) = open.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(place).expect("a directory").flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(model).expect("a file of it").to_string_lossy().into_owned();
            let bytes = if name.ends_with(".onnx") { Vec::new() } else { fs::read(&path).expect("a file") };
            let bytes = if bytes.len() > 6000 && name.ends_with("tokenizer.json") {
                tokenizers()[0][8..].to_vec()
            } else {
                bytes
            };
            if bytes.len() <= 6000 {
                seed = [&seed, MARK, name.as_bytes(), b"\n", &bytes].concat();
            }
        }
    }
    seed
}

/// The smallest library.
fn elf() -> Vec<u8> {
    let mut elf = vec![0; 64 + 56];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (elf[16], elf[18], elf[20]) = (3, 62, 1);
    (elf[32], elf[52], elf[54], elf[56], elf[58]) = (64, 64, 56, 1, 64);
    (elf[64], elf[96]) = (1, 120);
    elf
}

fn images() -> Vec<Vec<u8>> {
    let config = br#"{"do_resize":true,"size":{"height":8,"width":8},"do_center_crop":true,"crop_size":{"height":6,"width":6},"do_rescale":true,"rescale_factor":0.00392,"do_normalize":true,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":3}"#;
    let shortest = br#"{"do_resize":true,"size":{"shortest_edge":7},"do_center_crop":true,"crop_size":6,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":2}"#;
    let all = all("fixtures/images").into_iter().map(|(_, bytes)| bytes).collect();
    let others =
        named("preprocessor_config.json").iter().map(|config| [sized(config), elf()].concat()).collect::<Vec<_>>();
    after(&sized(config), all)
        .into_iter()
        .chain(others)
        .chain([[
            sized(shortest),
            b"GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x02\0\x02\0\0\x02\x03D\x02\x05\0;".to_vec(),
        ]
        .concat()])
        .collect()
}

fn hub() -> Vec<Vec<u8>> {
    let hash = "0123456789abcdef0123456789abcdef01234567";
    let answers = [
        format!("HTTP/1.1 200 OK\r\netag: \"{hash}\"\r\ncontent-length: 5\r\n\r\nhello"),
        format!("HTTP/1.1 302 Found\r\nx-linked-etag: W/\"{hash}\"\r\nx-linked-size: 5\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"),
        "HTTP/1.1 206 Partial\r\ncontent-range: bytes 5-9/10\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 429 Slow\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-error-message: wait\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 401 No\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\r\n{\"error\":\"nope\"}".to_owned(),
        "HTTP/1.0 307 Moved\r\nlocation: //other:80/a?b#c\r\n\r\n".to_owned(),
    ];
    answers.iter().flat_map(|answer| [0u8, 1].map(|whole| [&[whole], answer.as_bytes()].concat())).collect()
}

/// A small index of git: version 2, one file.
fn git_index() -> Vec<u8> {
    let mut index = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
    index.extend([0; 60]);
    index.extend([0, 3]);
    index.extend(b"a.c\0\0\0\0\0\0\0");
    index.extend([0; 20]);
    index
}

fn sources() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for directory in ["fixtures/outline", "toolchains", "examples"] {
        for (path, bytes) in all(directory) {
            let number = path.extension().and_then(|ending| extension(&ending.to_string_lossy()));
            if let (Some(number), true) = (number, bytes.len() < 4000) {
                seeds.push([&[number as u8], &bytes[..]].concat());
            }
        }
    }
    let any = "/** Adds. */\nexport async function add(a, b) { return a + b; }\nclass A extends B { get c() { return `x${1}`; } }\nfn f<T>(x: &str) -> T where T: B { }\ndef g(x):\n  \"\"\"doc\"\"\"\n  return 1\n";
    seeds.extend((0..extensions()).map(|number| [&[number as u8], any.as_bytes()].concat()));
    seeds
}

fn snapshots() -> Vec<Vec<u8>> {
    use embedcore::metrics::{Metrics, MetricsOptions};
    use std::{sync::Arc, time::Duration};
    let metrics = Arc::new(Metrics::new(MetricsOptions::default()));
    let recorder = metrics.recorder("embed");
    (1..9).for_each(|n| recorder.record(Duration::from_millis(n), n));
    recorder.fail(Duration::from_millis(3));
    metrics.looked_up("kind", 3, 4);
    metrics.failed("embed", "no");
    metrics.start_cycle("one").expect("a cycle");
    metrics.end_cycle("one", true).expect("its end");
    metrics.start_cycle("two").expect("a cycle");
    [(true, 5), (false, 0)]
        .map(|(histograms, cycles)| serde_json::to_vec(&metrics.snapshot(histograms, cycles)).expect("JSON"))
        .to_vec()
}

fn cycles() -> Vec<Vec<u8>> {
    use embedcore::metrics::{Metrics, MetricsOptions};
    let path = crate::places::empty("cycles").join("seed.json");
    let metrics = std::sync::Arc::new(Metrics::new(MetricsOptions { max_cycles: 5, persist_path: Some(path.clone()) }));
    for (id, success) in [("a", true), ("b", false), ("c", true)] {
        metrics.start_cycle(id).expect("a cycle");
        metrics.end_cycle(id, success).expect("its end");
    }
    metrics.start_cycle("d").expect("a cycle");
    metrics.save(&path).expect("a file");
    vec![fs::read(path).expect("a file"), br#"{"format":"embedcore-cycles","version":1,"cycles":{}}"#.to_vec()]
}

fn learned() -> Vec<u8> {
    let optimizer = BatchOptimizer::new(8, OptimizerOptions::default()).expect("an optimizer").state();
    let place = serde_json::json!({ "version": 1, "package": "", "runtime": "", "fingerprint": "", "machine": "", "workers": 1, "intraOpThreads": 1 });
    let overhead = serde_json::json!({ "prepareMs": 0.1, "tokenMs": 0.1, "commitMs": 0.1 });
    serde_json::json!({ "place": place, "overhead": overhead, "batches": { "5": optimizer } }).to_string().into_bytes()
}

fn filters() -> Vec<Vec<u8>> {
    let about = br#"{"year":2024,"tag":"a","deep":{"x":[1,2.0]},"none":null,"\ud800":"\udbff\udfff"}"#;
    [
        r#"{"op":"and","of":[{"op":"in","path":["year"],"values":["2024.0","\"a\""]},{"op":"not","of":{"op":"in","path":["none"],"values":["null"]}}]}"#,
        r#"{"op":"or","of":[{"op":"range","path":["tag"],"above":true,"equal":false,"bound":"\ud800"},{"op":"in","path":["deep","x"],"values":["[1,2]"]}]}"#,
    ]
    .iter()
    .map(|condition| [&sized(condition.as_bytes()), &about[..]].concat())
    .collect()
}

fn templates() -> Vec<Vec<u8>> {
    let texts = [sized(b"a query {{ 1 }}"), sized(b"<b>d</b>")].concat();
    [
        r#"{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Find it") -%}{{ bos_token }}<I>{{ instruction }}<Q>{{ messages[1].content }}<D>{{ (messages | selectattr("role", "eq", "document") | first).content }}"#,
        "{%- for message in messages %}{%- if message.role in ['user', 'system'] %}{{- '<' + message.role + '>' + message.content.strip() + '\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt and enable_thinking is defined %}{{- '<think>' }}{%- endif %}",
        "{% for message in messages %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text | trim | upper }}|{% endif %}{% endfor %}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% macro said(m, n=3) %}{{ '%-5d|%s' | format(n, m.content) }}{{ '{:>9}'.format(m.role) }}{% endmacro %}{% for n in range(2) %}{{ said(messages[n]) | indent(2) }}{% endfor %}{{ messages | tojson }}{{ 'ab' * 3 ~ messages[0]['content'][1:] | replace('a', 'b') }}",
        "{% set ns = namespace(a=0) %}{% for m in messages recursive %}{% set ns.a = ns.a + m.content.split(' ') | length %}{{ m.content }}{% endfor %}{% if ns.a > 9000 %}{{ raise_exception('long') }}{% endif %}",
    ]
    .iter()
    .enumerate()
    .map(|(nth, source)| [&[nth as u8][..], &texts, source.as_bytes()].concat())
    .collect()
}

fn trees() -> Vec<Vec<u8>> {
    let tree = |files: &[(&str, &[u8])]| {
        let files = files.iter().flat_map(|(name, bytes)| [MARK, name.as_bytes(), b"\n", bytes].concat());
        files.collect::<Vec<u8>>()
    };
    let config = b"[core]\n\texcludesFile = ex\n\tignoreCase = true\n[include]\n\tpath = more\n[includeIf \"gitdir:**/tree/\"]\n\tpath = more\n";
    vec![
        tree(&[
            (".gitignore", b"*.js\n!b.js\n/src/**/x/\n"),
            ("b.js", b"let a"),
            ("src/x/c.rs", b"fn c() {}"),
            ("a.js", b""),
        ]),
        tree(&[
            (".git/config", config),
            (".git/more", b"[core]\n\tignorecase\n"),
            ("ex", b"C.rs\n"),
            ("c.rs", b"fn c() {}"),
        ]),
        tree(&[
            (".git/index", &git_index()),
            (".git/info/exclude", b"a.c\n"),
            ("a.c", b"int a;"),
            (".gitmodules", b"[submodule \"x\"]\n\tpath = x\n"),
        ]),
        tree(&[
            (".git/config", b"[extensions]\n\tworktreeConfig = true\n"),
            (".git/config.worktree", b"[core]\nexcludesfile=~/x"),
            ("sub/.git", b"gitdir: ../.git"),
            ("sub/.ignore", b"*"),
            ("sub/a.py", b"def f(): pass"),
        ]),
    ]
}
