//! What is found in the hard cases of each language: `fixtures/outline/`.

use super::tests::of;
use super::{Declaration, Kind};

/// What is found in a file of `fixtures/outline/`.
macro_rules! hard {
    ($extension:literal) => {
        of($extension, include_str!(concat!("../../../fixtures/outline/hard.", $extension)))
    };
}

/// Kinds and names.
fn listed(found: &[Declaration]) -> Vec<String> {
    found.iter().map(|found| format!("{} {}", found.kind.as_str(), found.name)).collect()
}

/// The first of this name.
fn named<'a>(found: &'a [Declaration], name: &str) -> &'a Declaration {
    found.iter().find(|found| found.name == name).unwrap()
}

#[test]
fn c() {
    let found = hard!("c");
    let expected = [
        "file a.c",
        "function SQUARE",
        "constant LIMIT",
        "type node_t",
        "type node",
        "type compare_fn",
        "type u32",
        "type point",
        "type color",
        "type word",
        "constant count",
        "function append",
        "function find",
        "function handler",
        "function exported",
        "function old_style",
        "function lock",
        "function lock",
        "function in_c",
        "function adds_up",
        "function die",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "find").summary, "Finds the first that `pred` likes.");
    assert_eq!(named(&found, "find").signature, "static inline struct node *find(struct node *list, int (*pred)(int))");
    assert_eq!(named(&found, "append").summary, "Adds a value at the end.");
    assert_eq!(named(&found, "a.c").summary, "A list of numbers.");
}

#[test]
fn cpp() {
    let found = hard!("cpp");
    let expected = [
        "class store.detail.Stack",
        "method store.detail.Stack.Stack",
        "method store.detail.Stack.~Stack",
        "method store.detail.Stack.push",
        "method store.detail.Stack.pop",
        "method store.detail.Stack.operator==",
        "method store.detail.Stack.operator bool",
        "method store.detail.Stack.drawn",
        "method store.detail.Stack.Stack",
        "method store.detail.Stack.each",
        "type store.detail.Stack.Inner",
        "method store.detail.Stack.Inner.in",
        "type store.detail.Stack.Mode",
        "type store.detail.Stack.value_type",
        "constant store.detail.Stack.kMost",
        "method store.detail.Stack.push",
        "class store.detail.Stack",
        "function store.detail.hidden",
        "method store.name",
        "method Foo.~Foo",
        "method Foo.operator bool",
        "function operator<<",
        "method Foo.find",
        "function trailing",
        "function doubled",
        "type Small",
        "type Map",
        "function larger",
        "function from_c",
        "function StackTest.PopsWhatWasPushed",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "store.detail.Stack").signature, "template <typename T> class Stack : public Base<T>");
    assert_eq!(named(&found, "store.detail.Stack").summary, "A stack of things.");
    assert_eq!(named(&found, "larger").signature, "template <typename T> T larger(T a, T b)");
    assert_eq!(named(&found, "store.detail.Stack").lines, 6..34);
}

#[test]
fn c_sharp() {
    let found = hard!("cs");
    let expected = [
        "class Invoice",
        "constant Invoice.MostLines",
        "method Invoice.Invoice",
        "method Invoice.~Invoice",
        "method Invoice.Full",
        "constant Invoice.Customer",
        "method Invoice.this",
        "method Invoice.SumAsync",
        "function Invoice.SumAsync.Inner",
        "method Invoice.operator +",
        "method Invoice.operator int",
        "type Invoice.Paid",
        "method Invoice.Total",
        "class Invoice",
        "method Invoice.Second",
        "class Person",
        "class Point",
        "method Point.Twice",
        "type ITotal",
        "method ITotal.Total",
        "type State",
        "class Extensions",
        "method Extensions.Twice",
        "type Small",
        "class OnlyWhenDebugging",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "Invoice").summary, "Adds up what was bought, see Person.");
    assert_eq!(named(&found, "Invoice.Full").signature, "public string Full => first + last;");
    assert_eq!(named(&found, "Extensions.Twice").signature, "public static int Twice(this int x)");
}

#[test]
fn php() {
    let found = hard!("php");
    let expected = [
        "class User",
        "constant User.MOST",
        "method User.__construct",
        "method User.find",
        "method User.run",
        "type HasName",
        "method HasName.name",
        "type Loud",
        "method Loud.shout",
        "type Suit",
        "method Suit.label",
        "function helper",
        "function double",
        "function triple",
        "function maybe",
        "method inside",
        "function late",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "User").summary, "A user of the shop.");
    assert_eq!(named(&found, "User.find").summary, "Finds one by its number.");
    assert_eq!(named(&found, "double").signature, "$double = function ($x)");
}

#[test]
fn ruby() {
    let found = hard!("rb");
    let expected = [
        "type Billing",
        "constant Billing.MOST",
        "class Billing.Invoice",
        "method Billing.Invoice.initialize",
        "method Billing.Invoice.build",
        "method Billing.Invoice.find",
        "method Billing.Invoice.==",
        "method Billing.Invoice.paid?",
        "method Billing.Invoice.secret",
        "method Billing.Invoice.dynamic",
        "class Billing.Invoice.Line",
        "method Billing.Invoice.Line.price",
        "type Billing.Point",
        "method Billing.Point.length",
        "function top",
        "function double",
        "class Foo.Bar",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "Billing").signature, "module Billing");
    assert_eq!(named(&found, "Billing.Invoice.secret").summary, "Kept from others.");
    assert_eq!(named(&found, "Billing.Invoice.build").signature, "def self.build(x)");
}

#[test]
fn bash() {
    let found = hard!("sh");
    let expected = [
        "function usage",
        "function build",
        "function deploy-all",
        "function deploy-all.inner",
        "constant MOST",
        "constant CACHE_DIR",
        "function in_a_subshell",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "usage").summary, "Says how this is used.");
    assert_eq!(named(&found, "CACHE_DIR").summary, "Where things are kept.");
    assert_eq!(named(&found, "usage").lines, 5..10);
}

#[test]
fn kotlin() {
    let found = hard!("kt");
    let expected = [
        "constant MOST",
        "class User",
        "method User.born",
        "method User.constructor",
        "method User.greet",
        "method User.create",
        "class User.Inner",
        "method User.Inner.deep",
        "method User.load",
        "method String.shout",
        "method Map.pick",
        "method List.second",
        "type Named",
        "method Named.greet",
        "type Color",
        "method Color.hex",
        "class Single",
        "method Single.one",
        "type Id",
        "function square",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(
        named(&found, "User").signature,
        "@Serializable data class User(val name: String, val age: Int = 0) : Base(), Named"
    );
    assert_eq!(named(&found, "Map.pick").signature, "fun <T> Map<String, T>.pick(): T?");
}

#[test]
fn swift() {
    let found = hard!("swift");
    let expected = [
        "type Point",
        "constant Point.zero",
        "method Point.length",
        "method Point.init",
        "method Point.deinit",
        "method Point.distance",
        "method Point.==",
        "method Point.subscript",
        "method String.shout",
        "method Array.total",
        "type Shape",
        "type Shape.Item",
        "method Shape.draw",
        "type Suit",
        "method Suit.label",
        "class Foo",
        "method Foo.make",
        "class Counter",
        "method Counter.count",
        "type Id",
        "function free",
        "function square",
        "function onlyWhenDebugging",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "Point").summary, "A point in the plane.");
    assert_eq!(named(&found, "Point").signature, "@frozen public struct Point<T>: Equatable where T: Numeric");
    assert_eq!(named(&found, "Point.length").signature, "var length: Int");
}

#[test]
fn scala() {
    let found = hard!("scala");
    let expected = [
        "class Stack",
        "method Stack.push",
        "method Stack.hidden",
        "type Stack.Id",
        "class Stack",
        "constant Stack.Most",
        "method Stack.empty",
        "class Stack.Ops",
        "method Stack.Ops.twice",
        "type Shape",
        "method Shape.area",
        "type Opt",
        "method Opt.get",
        "method String.shout",
        "method String.quiet",
        "class intOrd",
        "method intOrd.compare",
        "function square",
        "function util.helper",
        "function top",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "Stack").signature, "case class Stack[A](items: List[A]) extends Base with Ordered");
    assert_eq!(named(&found, "Stack.push").signature, "def push(a: A): Stack[A]");
}

#[test]
fn vue() {
    let found = hard!("vue");
    let expected = ["constant STORE", "function save"];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "save").summary, "Saves what was typed.");
    assert_eq!(named(&found, "save").lines, 13..15);
}

#[test]
fn svelte() {
    let found = hard!("svelte");
    let expected = ["function load", "function add"];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "add").summary, "Adds one.");
}

#[test]
fn markdown() {
    let found = hard!("md");
    let expected =
        ["section Guide", "section Guide.Install.From source", "section Guide.Usage", "section Guide.Install"];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "Guide").summary, "What it is for.");
    assert_eq!(named(&found, "Guide.Usage").summary, "Run it, twice if need be.");
    assert_eq!(named(&found, "Guide.Usage").lines, 19..26);
}

#[test]
fn sql() {
    let found = hard!("sql");
    let expected = [
        "type public.users",
        "function add",
        "type busy",
        "function told",
        "type mood",
        "function dbo.Do It",
        "function shop.pay",
        "type last_one",
    ];
    assert_eq!(listed(&found), expected);
    assert_eq!(named(&found, "public.users").summary, "Who buys here.");
    assert_eq!(named(&found, "add").signature, "CREATE OR REPLACE FUNCTION add(a int, b int) RETURNS int");
    assert_eq!(named(&found, "dbo.Do It").signature, "CREATE PROCEDURE dbo.[Do It] @x int");
    assert_eq!(named(&found, "add").lines, 8..13);
    assert_eq!(named(&found, "shop.pay").lines, 26..31);
    assert_eq!(named(&found, "dbo.Do It").lines, 19..23);
}

#[test]
fn sql_is_told_apart_in_every_dialect() {
    let names = |source: &str| of("sql", source).into_iter().map(|found| found.name).collect::<Vec<_>>();
    // A backslash is a character in standard SQL, and escapes a quote in MySQL.
    assert_eq!(
        names("SELECT 'C:\\';\nCREATE TABLE a (b int);\nSELECT 'C:\\' || ';';\nCREATE VIEW c AS SELECT 1;"),
        ["a", "c"]
    );
    assert_eq!(
        names(
            "INSERT INTO t VALUES ('it\\'s; ', 'x');\nCREATE TABLE a (b int DEFAULT 'don\\'t');\nCREATE VIEW c AS SELECT 'it''s';"
        ),
        ["a", "c"]
    );
    // What the file ends with needs no semicolon.
    for last in [
        "CREATE TABLE z",
        "CREATE TABLE z (b int)",
        "CREATE VIEW z AS SELECT 1",
        "CREATE FUNCTION z() RETURNS int AS $$ SELECT 1 $$",
        "CREATE TABLE IF NOT EXISTS z -- empty",
    ] {
        assert_eq!(names(&format!("CREATE TABLE a (b int);\n{last}")), ["a", "z"], "{last}");
    }
}

#[test]
fn parts_of_one_class_and_scripts_of_one_file_are_all_there() {
    let partial = hard!("cs");
    assert_eq!(partial.iter().filter(|found| found.name == "Invoice" && found.kind == Kind::Class).count(), 2);
    let typed = of("vue", "<script lang='ts'>function f(a: number): void {}</script>");
    assert_eq!(typed[0].signature, "function f(a: number): void");
    let names = |source: &str| of("svelte", source).into_iter().map(|found| found.name).collect::<Vec<_>>();
    for template in [
        "{#if a<b}it's{/if}",
        "{a <b ? '>' : \"<\"}",
        "<p class={a<b} title='x>y'>don't</p>",
        "<b",
        "<a b='",
        "{#if n<m && s == 'x}",
    ] {
        assert_eq!(
            names(&format!("{template}\n<script>\nfunction f() {{}}\n</script>\n{template}")),
            ["f"],
            "{template}"
        );
    }
    for broken in ["<script", "<script>", "<script lang=\"", "<!--", "</script>", "<", "<a href='"] {
        assert!(of("vue", broken).is_empty(), "{broken}");
    }
}
