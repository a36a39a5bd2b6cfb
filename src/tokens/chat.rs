//! A pair of texts as a conversation: what a model's own template makes of a query and a document.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value, json};

/// The name of the one template.
const NAME: &str = "chat";

/// What filling in may take: about as many steps, or 64 bytes for each. The templates of rerankers take hundreds, and more for
/// texts of a megabyte.
const FUEL: u64 = 1 << 20;

/// How Qwen3-Reranker is asked, where its template knows nothing but system, user and assistant.
const JUDGE: &str = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
                     Note that the answer can only be \"yes\" or \"no\".";
const SEARCH: &str = "Given a web search query, retrieve relevant passages that answer the query";

/// What tells that a template wants each content in parts.
const PARTS: [&str; 6] = ["content[0]", ".type", "'type'", "\"type\"", "item.type", "message.content["];

/// A template, with what it is filled in with beside the texts.
#[derive(Clone)]
pub struct Chat {
    engine: Environment<'static>,
    source: String,
    /// Names that it may use.
    variables: Map<String, Value>,
    roles: Roles,
    /// Whether contents are lists of parts.
    in_parts: bool,
    instruction: Option<String>,
}

/// Who says what in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roles {
    /// Somebody the query, somebody the document, and before them the system what they are judged by.
    Pair,
    /// The user all of it, in the words of Qwen3-Reranker.
    User,
}

impl Chat {
    /// Reads a template. `in_parts`: whether contents are lists of parts, where somebody says.
    ///
    /// # Errors
    /// A reason in plain words.
    pub fn new(source: String, variables: Map<String, Value>, in_parts: Option<bool>) -> Result<Self, String> {
        let mut engine = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        engine.set_syntax(syntax.map_err(|error| error.to_string())?);
        engine.set_fuel(Some(FUEL));
        engine.set_unknown_method_callback(unknown_method_callback);
        engine.add_function("raise_exception", |reason: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        });
        engine.add_template_owned(NAME, source.clone()).map_err(|error| format!("its chat template: {error}"))?;
        let in_parts = in_parts.unwrap_or_else(|| PARTS.iter().any(|sign| source.contains(sign)));
        let mut chat = Self { engine, source, variables, roles: Roles::Pair, in_parts, instruction: None };
        if !chat.has_both() {
            chat.roles = Roles::User;
            if !chat.has_both() {
                return Err("its chat template has no place for a query and a document".to_owned());
            }
        }
        Ok(chat)
    }

    /// Whether it was made for queries and documents, and not for people.
    pub fn is_for_pairs(&self) -> bool {
        self.roles == Roles::Pair
    }

    /// The same with what documents are judged by; `None` where it has no place for that.
    pub fn told(mut self, instruction: String) -> Option<Self> {
        let before = self.fill("a", "b").ok();
        self.instruction = Some(instruction);
        (self.fill("a", "b").ok() != before).then_some(self)
    }

    /// What documents are judged by, where it was told.
    pub fn instruction(&self) -> Option<&str> {
        self.instruction.as_deref()
    }

    /// What is said about a query and a document.
    pub fn fill(&self, query: &str, document: &str) -> Result<String, String> {
        let content = |text: &str| match self.in_parts {
            true => json!([{ "type": "text", "text": text }]),
            false => Value::from(text),
        };
        let message = |role: &str, text: &str| json!({ "role": role, "content": content(text) });
        let user = self.roles == Roles::User;
        let messages = if user {
            let instruction = self.instruction.as_deref().unwrap_or(SEARCH);
            let asked = format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}");
            vec![message("system", JUDGE), message("user", &asked)]
        } else {
            let system = self.instruction.as_deref().map(|instruction| message("system", instruction));
            system.into_iter().chain([message("query", query), message("document", document)]).collect()
        };
        let mut all = Map::from_iter([
            ("messages".to_owned(), Value::from(messages)),
            // Here the answer begins.
            ("add_generation_prompt".to_owned(), Value::from(user)),
        ]);
        if user {
            all.insert("enable_thinking".to_owned(), Value::from(false));
        }
        all.extend(self.variables.clone());
        let template = self.engine.get_template(NAME).map_err(|error| error.to_string())?;
        template.render(Serde(all)).map_err(|error| format!("its chat template cannot be filled in: {error}"))
    }

    /// Whether either text shows in what is said.
    fn has_both(&self) -> bool {
        let [one, query, document] =
            [("a", "a"), ("b", "a"), ("a", "b")].map(|(query, document)| self.fill(query, document).ok());
        one.is_some() && query.is_some() && document.is_some() && one != query && one != document
    }
}

impl PartialEq for Chat {
    fn eq(&self, other: &Self) -> bool {
        let parts = |chat: &Self| (chat.roles, chat.in_parts);
        self.source == other.source
            && parts(self) == parts(other)
            && (&self.variables, &self.instruction) == (&other.variables, &other.instruction)
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("source", &self.source)
            .field("instruction", &self.instruction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_PAIRS: &str = "{%- set instruction = messages | selectattr(\"role\", \"eq\", \"system\") | map(attribute=\"content\") | first | default(\"Find it\") -%}\n\
        {%- set query = messages | selectattr(\"role\", \"eq\", \"query\") | map(attribute=\"content\") | first -%}\n\
        {{ bos_token }}<I>{{ instruction }}\n<Q>{{ query }}\n<D>{{ (messages | selectattr(\"role\", \"eq\", \"document\") | first).content }}<end>\n";
    const OF_PEOPLE: &str = "{%- for message in messages %}\n    {%- if message.role in ['user', 'system'] %}\n\
        {{- '<' + message.role + '>' + message.content.strip() + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<assistant>' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think></think>' }}\n    {%- endif %}\n{%- endif %}";

    fn chat(source: &str) -> Result<Chat, String> {
        Chat::new(source.to_owned(), Map::from_iter([("bos_token".to_owned(), Value::from("<s>"))]), None)
    }

    #[test]
    fn templates_for_pairs_have_their_roles() {
        let chat = chat(OF_PAIRS).unwrap();
        assert!(chat.is_for_pairs());
        assert_eq!(chat.fill("q {{ 1 }}", "<b>d</b>").unwrap(), "<s><I>Find it\n<Q>q {{ 1 }}\n<D><b>d</b><end>");
        assert_eq!(chat.told("Judge".to_owned()).unwrap().fill("q", "d").unwrap(), "<s><I>Judge\n<Q>q\n<D>d<end>");
    }

    #[test]
    fn templates_for_people_are_asked_as_qwen_is() {
        let chat = chat(OF_PEOPLE).unwrap();
        assert!(!chat.is_for_pairs());
        let expected = |instruction: &str| {
            format!(
                "<system>{JUDGE}\n<user><Instruct>: {instruction}\n<Query>: q\n<Document>: d\n<assistant><think></think>"
            )
        };
        assert_eq!(chat.fill("q", "d").unwrap(), expected(SEARCH));
        assert_eq!(chat.told("Judge".to_owned()).unwrap().fill("q", "d").unwrap(), expected("Judge"));
    }

    #[test]
    fn contents_come_in_parts_where_that_is_wanted() {
        let source = "{% for message in messages %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}|{% endif %}{% endfor %}{% endfor %}";
        assert_eq!(chat(source).unwrap().fill("q", "d").unwrap(), "q|d|");
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        for source in [
            "{{ messages[0].content }}",
            "{{ raise_exception('no') }}",
            "{% if",
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ messages[0].content ~ messages[1].content }}{% endfor %}{% endfor %}",
        ] {
            assert!(chat(source).is_err(), "{source}");
        }
        let deaf = "{% for message in messages if message.role != 'system' %}{{ message.content }}|{% endfor %}";
        assert!(chat(deaf).unwrap().told("Judge".to_owned()).is_none());
    }
}
