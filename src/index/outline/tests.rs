//! What is found in sources of every language.

use tree_sitter::Parser;

use super::*;
use crate::host;

fn read(extension: &str, source: &str) -> Result<Vec<Declaration>, Unreadable> {
    outline(source, &format!("src/a.{extension}"), reader(extension).unwrap(), &Cancel::default())
}

pub fn of(extension: &str, source: &str) -> Vec<Declaration> {
    read(extension, source).unwrap()
}

fn names(extension: &str, source: &str) -> Vec<(Kind, String)> {
    of(extension, source).into_iter().map(|found| (found.kind, found.name)).collect()
}

fn is(kind: Kind, name: &str) -> (Kind, String) {
    (kind, name.to_owned())
}

#[test]
fn every_grammar_fits_the_library() {
    for (extension, _) in syntax::extensions() {
        let mut parser = Parser::new();
        parser.set_language(&(syntax::grammar(extension).unwrap().language)().unwrap()).unwrap();
    }
}

#[test]
fn typescript() {
    let source = r#"
/** Adds two numbers.
 * @param a the first */
export function add(a: number, b: number): number {
  return a + b;
}

// Keeps things.
@injectable()
export abstract class Store<T> extends Base<T> {
  #items = 1;
  /** Puts one in. */
  put(item: T): void { this.items.push(item); }
  abstract take(): T;
  handler = async (event: Event) => { await event; };
}

export interface Shape { area(): number }
type Id = string | number;
enum Color { Red }
export const double = (x: number) => x * 2;
const limit = 3;
module.exports.run = function () { return 1; };
const routes = { home: () => 1, away() { return 2; } };
function outer() {
  const little = () => 1;
  function large() {
    return 1;
  }
}
"#;
    let found = of("ts", source);
    let add = &found[0];
    assert_eq!(add.signature, "export function add(a: number, b: number): number");
    assert_eq!(add.summary, "Adds two numbers.");
    assert_eq!(add.lines, 4..6);
    assert!(add.code.starts_with("export function add") && add.code.ends_with('}'));
    assert_eq!(found[1].summary, "Keeps things.");
    assert!(found[1].signature.ends_with("class Store<T> extends Base<T>"), "{}", found[1].signature);
    let expected = [
        is(Kind::Function, "add"),
        is(Kind::Class, "Store"),
        is(Kind::Method, "Store.put"),
        is(Kind::Method, "Store.take"),
        is(Kind::Method, "Store.handler"),
        is(Kind::Type, "Shape"),
        is(Kind::Type, "Id"),
        is(Kind::Type, "Color"),
        is(Kind::Function, "double"),
        is(Kind::Function, "module.exports.run"),
        is(Kind::Function, "routes.home"),
        is(Kind::Method, "routes.away"),
        is(Kind::Function, "outer"),
        is(Kind::Function, "outer.large"),
    ];
    assert_eq!(names("ts", source), expected);
    assert_eq!(found[8].signature, "export const double = (x: number)");
}

#[test]
fn javascript_and_jsx() {
    let source = "function* walk() { yield 1; }\nconst View = () => <div>{1}</div>;\nclass A { static b() {} }";
    let expected =
        [is(Kind::Function, "walk"), is(Kind::Function, "View"), is(Kind::Class, "A"), is(Kind::Method, "A.b")];
    assert_eq!(names("jsx", source), expected);
    assert_eq!(names("tsx", source), expected);
}

#[test]
fn what_a_commonjs_module_exports_has_its_own_name() {
    let expected = [is(Kind::Class, "Store"), is(Kind::Method, "Store.put")];
    assert_eq!(names("js", "module.exports = class Store { put() {} };"), expected);
    assert_eq!(names("cjs", "module.exports = function filter() {};"), [is(Kind::Function, "filter")]);
    assert_eq!(names("js", "module.exports = () => {};"), [is(Kind::Function, "module.exports")]);
    assert_eq!(names("js", "A.B = class C { d() {} };"), [is(Kind::Class, "A.B"), is(Kind::Method, "A.B.d")]);
}

#[test]
fn python() {
    let source = r#"
@cache
def area(width, height):
    """Gives the area.

    Args:
        width: in metres
    """
    return width * height

# A stack of things.
class Stack(list):
    async def push(self, item):
        r'''Puts it on top.'''
        self.append(item)
"#;
    let found = of("py", source);
    let expected = [is(Kind::Function, "area"), is(Kind::Class, "Stack"), is(Kind::Method, "Stack.push")];
    assert_eq!(names("py", source), expected);
    assert_eq!(found[0].signature, "@cache def area(width, height)");
    let summaries: Vec<&str> = found.iter().map(|found| found.summary.as_str()).collect();
    assert_eq!(summaries, ["Gives the area.", "A stack of things.", "Puts it on top."]);
    assert_eq!(found[0].lines, 2..9);
}

#[test]
fn rust() {
    let source = r#"
/// A point in the plane.
///
/// # Errors
/// None.
#[derive(Debug)]
pub struct Point<T> { x: T, y: T }
struct Pair<T>(T, T);
impl<T: Copy> Point<T> {
    /// Its distance from the origin.
    pub fn norm(&self) -> f64 where T: Into<f64> { 0.0 }
}
pub trait Draw { fn draw(&self); }
pub enum Way { In, Out }
type Alias = Vec<u8>;
fn free() {}
"#;
    let found = of("rs", source);
    let expected = [
        is(Kind::Type, "Point"),
        is(Kind::Type, "Pair"),
        is(Kind::Method, "Point<T>.norm"),
        is(Kind::Type, "Draw"),
        is(Kind::Method, "Draw.draw"),
        is(Kind::Type, "Way"),
        is(Kind::Type, "Alias"),
        is(Kind::Function, "free"),
    ];
    assert_eq!(names("rs", source), expected);
    assert_eq!(found[0].summary, "A point in the plane.");
    assert_eq!(found[0].signature, "pub struct Point<T>");
    assert_eq!(found[2].signature, "pub fn norm(&self) -> f64 where T: Into<f64>");
}

#[test]
fn go_and_java() {
    let go = "package a\n\n// Push puts x on top.\nfunc (s *Stack) Push(x int) {}\n// Stack is a stack.\ntype Stack struct{ items []int }\nfunc New() *Stack { return nil }\n";
    let found = of("go", go);
    assert_eq!(names("go", go), [is(Kind::Method, "Stack.Push"), is(Kind::Type, "Stack"), is(Kind::Function, "New")]);
    assert_eq!(found[0].summary, "Push puts x on top.");
    assert_eq!(found[1].summary, "Stack is a stack.");
    assert_eq!(found[1].signature, "type Stack struct");
    let java = "/** A list. */\npublic class A<T> extends B {\n  /** Makes it. */\n  public A() {}\n  @Override\n  public int size() { return 1; }\n  interface C { void d(); }\n}\nrecord P(int x) {}\nenum E { X }\n@interface F { /** How many. */ int most() default 1; }";
    let expected = [
        is(Kind::Class, "A"),
        is(Kind::Method, "A.A"),
        is(Kind::Method, "A.size"),
        is(Kind::Type, "A.C"),
        is(Kind::Method, "A.C.d"),
        is(Kind::Class, "P"),
        is(Kind::Type, "E"),
        is(Kind::Type, "F"),
        is(Kind::Method, "F.most"),
    ];
    assert_eq!(names("java", java), expected);
    assert_eq!(of("java", java)[0].signature, "public class A<T> extends B");
}

#[test]
fn comments_belong_to_what_follows_them() {
    let summary = |extension, source: &str| of(extension, source)[0].summary.clone();
    assert_eq!(summary("rs", "/// Doc.\n#[cfg_attr(\n  a,\n  b\n)]\nfn f() {}"), "Doc.");
    assert_eq!(of("rs", "//! The whole file.\nfn f() {}")[1].summary, "");
    assert_eq!(summary("rs", "/// Far away.\n\n\nfn f() {}"), "");
    assert_eq!(summary("rs", "let x = 1; // trailing\nfn f() {}"), "");
    assert_eq!(
        summary("ts", "/** Expands `src/*.js`,\n * and more. */\nfunction f() {}"),
        "Expands `src/*.js`, and more."
    );
    assert_eq!(summary("ts", "/* eslint-disable no-console */\nfunction f() {}"), "");
    assert_eq!(summary("ts", "// @ts-ignore\n// Runs it.\nfunction f() {}"), "Runs it.");
    assert_eq!(summary("py", "# =====\n# Parses.\n# =====\ndef f(): pass"), "Parses.");
    assert_eq!(summary("py", "def f():\n    \"\"\":class:`X` keeps.\"\"\""), ":class:`X` keeps.");
    let long = format!("/** First.\n{} */\nfunction f() {{}}", " * more\n".repeat(500));
    assert!(summary("ts", &long).starts_with("First. more"));
    let class = "class A {\n  /** Doc. */\n  @Input({\n    a: 1,\n  })\n  set b(x) {}\n}";
    assert_eq!(of("ts", class)[1].summary, "Doc.");
    assert_eq!(of("py", "def m(self):  # a comment first\n    pass\n    pass")[0].signature, "def m(self)");
}

#[test]
fn functions_are_found_in_what_wraps_them() {
    assert_eq!(names("ts", "export default function () { return 1; }"), [is(Kind::Function, "default")]);
    let class = "export default class extends Foo { run() {} }";
    assert_eq!(names("ts", class), [is(Kind::Class, "default"), is(Kind::Method, "default.run")]);
    assert_eq!(names("js", "const View = React.memo(function inner(p) { return p; });")[0], is(Kind::Function, "View"));
    assert_eq!(names("ts", "const f = ((a) => a) as Fn;"), [is(Kind::Function, "f")]);
    assert!(names("js", "const sum = list.reduce((a, b) => a + b);").is_empty());
    assert_eq!(names("js", "const o = { 'a-b': () => 1 };"), [is(Kind::Function, "o.a-b")]);
    let group = "package a\ntype (\n\tA struct{ x int }\n\tB interface{ C() }\n)";
    let signatures: Vec<String> = of("go", group).into_iter().map(|found| found.signature).collect();
    assert_eq!(signatures, ["type A struct", "type B interface"]);
    assert_eq!(names("go", "package a\nfunc (s *Stack[T]) Pop() T { return 1 }"), [is(Kind::Method, "Stack.Pop")]);
}

#[test]
fn nesting_does_not_make_names_grow() {
    let nested: String = (0..300).map(|i| format!("function {}{i}() {{\n\n\n", "a".repeat(300))).collect();
    let found = of("js", &format!("{nested}{}", "}".repeat(300)));
    assert!(found.len() > 200);
    assert!(found.iter().all(|found| found.name.len() <= MAX_SIGNATURE));
}

#[test]
fn what_is_whole_beside_syntax_errors_is_read() {
    assert_eq!(names("js", "function a() {}\nlet x = = 1;\nfunction b() {}")[0], is(Kind::Function, "a"));
    let noise = "}}}} ((( %%% \u{1F600} ]]]";
    assert_eq!(read("ts", noise), Err(Unreadable::Syntax));
    assert_eq!(read("ts", ""), Ok(Vec::new()));
}

#[test]
fn deep_nesting_and_long_lists_end() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    drop(read("js", &deep));
    let nested = "function a() {".repeat(5_000);
    drop(read("js", &nested));
    let long = "// x\nfunction a() {}\n".repeat(MAX_DECLARATIONS + 5);
    assert_eq!(of("js", &long).len(), MAX_DECLARATIONS);
}

#[test]
fn never_cuts_inside_a_character() {
    for (extension, _) in extensions() {
        for filler in [399, 400, 401, 1998, 1999, 2000] {
            let source = format!("function a{}(ä) {{ '{}' }}", "ö".repeat(filler), "ü".repeat(3000));
            drop(read(extension, &source));
        }
    }
}

/// Sources that are as long as `n` says, and as unpleasant as they can be.
fn hostile(n: usize) -> Vec<(&'static str, &'static str, String)> {
    let repeated = |text: &str| text.repeat(n);
    let numbered = |make: &dyn Fn(usize) -> String| (0..n).map(make).collect::<String>();
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(n), close.repeat(n));
    vec![
        (
            "blanks, then comments on one line",
            "ts",
            format!("{}{}\nfunction f() {{}}\n", " ".repeat(n * 3), repeated("/**/")),
        ),
        ("declarations on one line", "ts", numbered(&|i| format!("/** {i} */ function f{i}() {{}} "))),
        ("comments between declarations", "ts", numbered(&|i| format!("// {i}\nconst a{i} = () => 1;\n"))),
        ("one statement of many", "ts", format!("const a = 1{};", numbered(&|i| format!(", a{i} = () => 1")))),
        ("nested functions", "js", nested("function f(){\n\n", "}")),
        ("nested classes without names", "js", nested("(class{a(){", "}})")),
        ("nested objects", "js", format!("x = {}", nested("{a:{b(){}, c:", "1}}"))),
        ("nested assignments", "js", nested("x[function(){", "}]=function(){};")),
        ("names of one piece", "js", format!("{}=function(){{}}", repeated("a.b."))),
        ("nested namespaces", "ts", nested("namespace a{/** x */ function f(){}\n", "}")),
        ("a long comment", "ts", format!("/** {} */ function f() {{}}", repeated("word\n * "))),
        ("decorators", "ts", format!("class A {{ {} m() {{}} }}", repeated("@a() "))),
        (
            "a group below a comment",
            "go",
            format!("package a\ntype (\n{}{})\n", repeated("//\n"), numbered(&|i| format!("A{i} int\n"))),
        ),
        (
            "a group of constants",
            "go",
            format!("package a\nconst (\n{})\n", numbered(&|i| format!("// x\nA{i} = {i}\n"))),
        ),
        ("functions in functions", "go", format!("package a\nvar x = {}", nested("func() { ", "}"))),
        ("comments in a signature", "go", format!("package a\nfunc f({}) {{}}\n", repeated("/**/"))),
        ("attributes", "rs", format!("{}fn f() {{}}\n", repeated("#[doc = \"x\"]\n"))),
        ("nested modules", "rs", nested("mod a { /// x\nfn f() {}\n", "}")),
        ("comments about the file", "rs", format!("{}fn f() {{}}\n", repeated("//! x\n"))),
        ("constants", "rs", numbered(&|i| format!("/// x\nconst A{i}: u8 = 1; "))),
        (
            "nested functions",
            "py",
            (0..n.min(900)).map(|i| format!("{}def f():\n", " ".repeat(i))).collect::<String>()
                + &" ".repeat(n.min(900))
                + "pass\n",
        ),
        ("decorators", "py", format!("{}def f(): pass\n", repeated("@a\n"))),
        ("comments", "py", format!("{}def f(): pass\n", repeated("# x\n"))),
        ("assignments", "py", numbered(&|i| format!("# x\nA{i} = 1\n"))),
        ("a docstring", "py", format!("def f():\n    \"\"\"{}\"\"\"\n", repeated("x\n"))),
        ("nested classes", "java", nested("class A { /** x */ static final int B = 1; ", "}")),
        ("annotations", "java", format!("class A {{ {} void f() {{}} }}", repeated("@B "))),
        ("comments in a class", "java", format!("class A {{ {} void f() {{}} }}", repeated("/** x */ "))),
        ("functions on one line", "c", numbered(&|i| format!("/* {i} */ int f{i}(void) {{ return 1; }} "))),
        ("nested pointers", "c", format!("int {}f{} {{}}\n", repeated("(*"), repeated(")(int)"))),
        ("macros", "c", numbered(&|i| format!("/* x */\n#define A{i}(x) x\n"))),
        ("one declaration of many", "c", format!("/* x */ int a{};", numbered(&|i| format!(", *a{i}")))),
        ("nested namespaces", "cpp", nested("namespace a { /// x\nint f() { return 1; }\n", "}")),
        ("a long qualified name", "cpp", format!("int {}f() {{ return 1; }}", repeated("a::"))),
        ("methods", "cpp", format!("class A {{ {} }};", numbered(&|i| format!("/// x\nvoid f{i}();\n")))),
        ("properties", "cs", format!("class A {{ {} }}", numbered(&|i| format!("/// x\nint P{i} {{ get; set; }}\n")))),
        ("nested classes", "cs", nested("class A { /// <summary>x</summary>\nvoid F() {} ", "}")),
        ("a long summary", "cs", format!("/// <summary>{}</summary>\nclass A {{}}", repeated("<see cref=\"x\"/> "))),
        (
            "methods",
            "php",
            format!("<?php class A {{ {} }}", numbered(&|i| format!("/** x */ function f{i}() {{}}\n"))),
        ),
        ("tags", "php", repeated("<?php function f() {} ?>\n")),
        ("calls", "rb", repeated("define_method(:a) { |x| x }\n")),
        ("nested modules", "rb", format!("{}{}", repeated("module A\n# x\ndef f; end\n"), repeated("end\n"))),
        ("functions", "sh", numbered(&|i| format!("# x\nf{i}() {{ :; }}\n"))),
        ("functions", "kt", numbered(&|i| format!("/** x */\nfun String.f{i}() = 1\n"))),
        ("functions", "swift", numbered(&|i| format!("/// x\nfunc f{i}() {{ }}\n"))),
        ("functions", "scala", numbered(&|i| format!("/** x */\ndef f{i}() = 1\n"))),
        ("statements on one line", "sql", numbered(&|i| format!("CREATE TABLE a{i} (x int); "))),
        ("comments before a statement", "sql", format!("{}CREATE TABLE a (x int);", repeated("-- x\n"))),
        ("beginnings", "sql", repeated("CREATE FUNCTION a() BEGIN ")),
        ("quotes that end nowhere", "sql", repeated("$a CREATE ")),
        ("headings below a long one", "md", format!("# {}\n{}", repeated("a long title "), repeated("## x\ny\n"))),
        ("scripts", "vue", repeated("<script>function f() {}</script>")),
        ("tags that never end", "vue", repeated("<a b=\"")),
    ]
}

#[test]
fn time_is_in_proportion_to_the_source() {
    const DOUBLINGS: u32 = 3;
    let took = |extension: &str, source: &str| {
        let run = || {
            let started = host::thread_seconds();
            drop(read(extension, source));
            host::thread_seconds() - started
        };
        (0..3).map(|_| run()).fold(f64::INFINITY, f64::min)
    };
    let (small, large) = (hostile(750), hostile(750 << DOUBLINGS));
    for ((what, extension, source), (_, _, longer)) in small.iter().zip(&large) {
        let first = took(extension, source).max(0.0025);
        let most = first * 3f64.powi(DOUBLINGS as i32) + 0.1;
        // The best of three again, but only where once is too long.
        let started = host::thread_seconds();
        drop(read(extension, longer));
        let second = host::thread_seconds() - started;
        let second = if second <= most { second } else { took(extension, longer) };
        assert!(second <= most, "{what} in {extension}: {first} s, then {second} s for eight times as much");
    }
}

#[test]
fn a_run_that_is_stopped_reads_no_further() {
    let cancel = Cancel::default();
    cancel.cancel(Error::Aborted);
    let source = "function f() {}\n".repeat(50_000);
    let stopped = outline(&source, "a.js", reader("js").unwrap(), &cancel);
    assert_eq!(stopped, Err(Unreadable::Stopped(Error::Aborted)));
}

#[test]
fn the_comment_before_a_declaration_is_its_summary_on_the_same_line_too() {
    let summaries = |extension: &str, source: &str| -> Vec<(String, String)> {
        of(extension, source).into_iter().map(|found| (found.name, found.summary)).collect()
    };
    let is = |name: &str, summary: &str| (name.to_owned(), summary.to_owned());
    let class = "class Meter { /** Since the start. */ elapsed() { return 1 } /** Forget all. */ reset = () => {}; }";
    assert_eq!(
        summaries("ts", class),
        [is("Meter", ""), is("Meter.elapsed", "Since the start."), is("Meter.reset", "Forget all.")]
    );
    let object = "const api = { /** Every user. */ list() { return [] }, /** By id. */ get: async (id) => id };";
    assert_eq!(summaries("ts", object), [is("api.list", "Every user."), is("api.get", "By id.")]);
    let java = "class A { /** First. */ void a() {} /** Second. */ void b() {} // behind b\n void c() {} }";
    assert_eq!(summaries("java", java), [is("A", ""), is("A.a", "First."), is("A.b", "Second."), is("A.c", "")]);
    let rust = "/** One. */ fn one() {} /** Two. */ fn two() {} // behind two\nfn three() {}";
    assert_eq!(summaries("rs", rust), [is("one", "One."), is("two", "Two."), is("three", "")]);
    let go = "package a\n/* One. */ func One() {}; /* Two. */ func Two() {} // behind\nfunc Three() {}";
    assert_eq!(summaries("go", go), [is("One", "One."), is("Two", "Two."), is("Three", "")]);
    let python = "def one(): \"\"\"One.\"\"\"\ndef two(): return 2  # behind\ndef three(): pass\nclass A:\n    # Four.\n    def four(self): pass";
    assert_eq!(
        summaries("py", python),
        [is("one", "One."), is("two", ""), is("three", ""), is("A", ""), is("A.four", "Four.")]
    );
}

#[test]
fn python_functions_types_and_files() {
    let source = "\"\"\"Converts temperatures.\"\"\"\n\nto_kelvin = lambda celsius: celsius + 273.15\n\ntype Celsius = float\nKelvin: TypeAlias = float\nUserId = NewType('UserId', int)\n\n# In degrees.\nABSOLUTE_ZERO = -273.15\nLIMIT = 3\nlocal = 1\n";
    let expected = [
        is(Kind::File, "a.py"),
        is(Kind::Function, "to_kelvin"),
        is(Kind::Type, "Celsius"),
        is(Kind::Type, "Kelvin"),
        is(Kind::Type, "UserId"),
        is(Kind::Constant, "ABSOLUTE_ZERO"),
    ];
    assert_eq!(names("py", source), expected);
    let found = of("py", source);
    assert_eq!((found[0].summary.as_str(), found[0].lines.clone()), ("Converts temperatures.", 1..1));
    assert_eq!(found[1].signature, "to_kelvin = lambda celsius");
    assert_eq!(found[5].summary, "In degrees.");
}

#[test]
fn go_functions_and_constants() {
    let source = "// Package temperature converts.\npackage temperature\n\n// ToKelvin converts.\nvar ToKelvin = func(c float64) float64 { return c }\n\n// AbsoluteZero in degrees.\nconst AbsoluteZero = -273.15\n\nconst (\n\t// Low is low.\n\tLow = 1\n\tplain = 2\n)\nvar other = 3\n";
    let expected = [
        is(Kind::File, "a.go"),
        is(Kind::Function, "ToKelvin"),
        is(Kind::Constant, "AbsoluteZero"),
        is(Kind::Constant, "Low"),
    ];
    assert_eq!(names("go", source), expected);
    let found = of("go", source);
    assert_eq!(found[0].summary, "Package temperature converts.");
    assert_eq!(
        (found[1].summary.as_str(), found[1].signature.as_str()),
        ("ToKelvin converts.", "var ToKelvin = func(c float64) float64")
    );
    assert_eq!(found[3].signature, "const Low = 1");
}

#[test]
fn rust_documents_modules_and_constants() {
    let source = "//! Converts temperatures.\n\n#[doc = \"Degrees Celsius to Kelvin.\"]\npub fn to_kelvin() {}\n\n/// In degrees.\npub const ABSOLUTE_ZERO: f64 = -273.15;\nconst PLAIN: u8 = 1;\n// No documentation.\nstatic OTHER: u8 = 2;\n\npub mod scale {\n    /// To Celsius.\n    #[inline]\n    pub fn to_celsius() {}\n    pub mod deep { impl A { fn b() {} } }\n}\n";
    let expected = [
        is(Kind::File, "a.rs"),
        is(Kind::Function, "to_kelvin"),
        is(Kind::Constant, "ABSOLUTE_ZERO"),
        is(Kind::Function, "scale.to_celsius"),
        is(Kind::Method, "scale.deep.A.b"),
    ];
    assert_eq!(names("rs", source), expected);
    let summaries: Vec<String> = of("rs", source).into_iter().map(|found| found.summary).collect();
    assert_eq!(summaries, ["Converts temperatures.", "Degrees Celsius to Kelvin.", "In degrees.", "To Celsius.", ""]);
}

#[test]
fn typescript_and_java_constants_namespaces_and_files() {
    let source = "/**\n * @file Reads settings.\n */\nimport a from 'a';\n\n/** In seconds. */\nexport const LIMIT = 3;\n// Not documented.\nconst other = 4;\nnamespace A.B { export function f() { return 1; } }\n";
    assert_eq!(names("ts", source), [is(Kind::File, "a.ts"), is(Kind::Constant, "LIMIT"), is(Kind::Function, "A.B.f")]);
    assert_eq!(of("ts", source)[0].summary, "Reads settings.");
    let java = "class A {\n  /** In degrees. */\n  public static final double ZERO = -273.15;\n  /** A field. */\n  private int x;\n}\ninterface B {\n  /** Ten. */\n  int TEN = 10;\n}\n";
    assert_eq!(
        names("java", java),
        [is(Kind::Class, "A"), is(Kind::Constant, "A.ZERO"), is(Kind::Type, "B"), is(Kind::Constant, "B.TEN")]
    );
}

#[test]
fn comments_for_tools_are_whole_words() {
    let summary = |extension, source: &str| of(extension, source)[0].summary.clone();
    for kept in [
        "regional price list",
        "regions that touch",
        "v8 isolates are made here",
        "nolinting is refused",
        "eslinted files",
        "types: all of them",
        "go: the game",
        "c8r numbers",
        "fmtlib-like output",
    ] {
        assert_eq!(summary("py", &format!("def f():\n    \"\"\"{kept}\"\"\"\n    return 1\n")), kept);
        assert_eq!(summary("ts", &format!("// {kept}\nfunction f() {{ return 1; }}\n")), kept);
    }
    assert_eq!(summary("py", "def f():\n    '''region of a map'''\n"), "region of a map");
    for dropped in [
        "eslint-disable-next-line no-console",
        "region Helpers",
        "#region Helpers",
        "endregion",
        "v8 ignore next 3",
        "c8 ignore start",
        "istanbul ignore next",
        "@ts-expect-error it is",
        "prettier-ignore",
        "biome-ignore lint: x",
        "nolint:errcheck",
        "noqa",
        "noqa: E501",
        "pylint: disable=x",
        "type: ignore[x]",
        "go:generate x",
    ] {
        assert_eq!(summary("ts", &format!("// {dropped}\nfunction f() {{ return 1; }}\n")), "", "{dropped}");
    }
}

#[test]
fn what_a_grammar_cannot_read_does_not_take_the_rest_along() {
    let names = |extension: &str, source: &str| -> Vec<String> {
        of(extension, source).into_iter().map(|found| format!("{}:{}", found.lines.start, found.name)).collect()
    };
    let c_sharp = "namespace Shop\n{\n    public class Cart\n    {\n        public void Fill(bool async)\n        {\n            if (async) {\n                return;\n            }\n            var sql = \"\"\"\nSELECT (\n\"\"\";\n        }\n\n        /// <summary>How many there are.</summary>\n        public int Count(\n            bool all)\n            => all ? 1 : 2;\n\n        public void Empty() { }\n    }\n\n    public interface IShelf\n    {\n        int Size();\n    }\n}\n";
    let found = of("cs", c_sharp);
    let named = |name: &str| found.iter().find(|found| found.name.ends_with(name)).unwrap();
    assert_eq!(named("Cart.Count").summary, "How many there are.");
    assert!(named("Cart.Fill").code.contains("SELECT ("), "the code is that of the file");
    assert!(["Cart.Empty", "IShelf", "IShelf.Size"].iter().all(|name| named(name).code.len() > 1));

    let typescript = "export interface Options {\n  a?: (import('x').A & { b: string })[];\n  c?: number;\n}\nexport type Name =\n  | (import('x').A & { b: string })[]\n  | string;\nexport interface Plugin {\n  d: string;\n}\nexport function apply(e: Plugin): void {\n  e.d;\n}\n";
    assert_eq!(names("ts", typescript), ["1:Options", "5:Name", "8:Plugin", "11:apply"]);

    let cpp = "LIB_NAMESPACE_BEGIN\nclass LIB_EXPORT Reader {\n public:\n  LIB_NODISCARD int read(\n      int size) {\n    FOR_EACH(byte, bytes_) { if (byte) { }\n    return 1;\n  }\n  void close() { open_ = false; }\n};\nLIB_NAMESPACE_END\nint LIB_CALL run() {\n  return 0;\n}\n";
    assert_eq!(names("cpp", cpp), ["2:Reader", "4:Reader.read", "9:Reader.close", "12:run"]);

    // What was read among errors stays, where nothing better was found on its line.
    let nested = "function outer() {\n  const inner = function () {\n    return 1;\n  };\n  let = = {;\n}\nclass Other {\n  method() {}\n}\n";
    let found = names("ts", nested);
    assert!(
        ["1:outer", "2:outer.inner", "7:Other", "8:Other.method"]
            .iter()
            .all(|name| found.contains(&(*name).to_owned())),
        "{found:?}"
    );
}
