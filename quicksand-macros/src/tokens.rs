//! A stable hash of Rust code by its meaning to the compiler: comments, spaces and trailing commas don't count.

use std::{collections::BTreeSet, env, path::PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{LitStr, Token, punctuated::Punctuated};

/// FNV-1a with 64 bits. The standard hashers promise no stability between releases of Rust, and the result is kept on
/// disk.
#[derive(Debug, Clone)]
pub(crate) struct Hasher(u64);

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes and their number, so that no two sequences of additions come to the same.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}

/// What a fingerprint needs to know of some code. Plain data, fit to be kept from one macro call to the next.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) hash: u64,
    /// Every name in it, also those in format strings.
    pub(crate) mentions: BTreeSet<String>,
    /// Files that it includes, as written there.
    pub(crate) includes: Vec<PathBuf>,
}

impl Code {
    pub(crate) fn new(tokens: TokenStream) -> Code {
        let mut reader = Reader { hasher: Hasher::new(), mentions: BTreeSet::new(), includes: Vec::new() };
        reader.read(tokens);
        Code { hash: reader.hasher.finish(), mentions: reader.mentions, includes: reader.includes }
    }

    /// That of a path, which another name stands for.
    pub(crate) fn of_path(path: &[String]) -> Code {
        let mut hasher = Hasher::new();
        path.iter().for_each(|name| hasher.add(name.as_bytes()));
        Code { hash: hasher.finish(), mentions: path.iter().cloned().collect(), includes: Vec::new() }
    }
}

struct Reader {
    hasher: Hasher,
    mentions: BTreeSet<String>,
    includes: Vec<PathBuf>,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at..];
            at += documentation(rest).unwrap_or(1);
            if documentation(rest).is_some() || (rest.len() == 1 && is_punct(token, ',')) {
                continue;
            }
            self.includes.extend(included_file(rest));
            self.token(token);
        }
    }

    fn token(&mut self, token: &TokenTree) {
        match token {
            // Left by macros around what they were given; not in the source.
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => self.read(group.stream()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => (b"(", b")"),
                    Delimiter::Brace => (b"{", b"}"),
                    Delimiter::Bracket | Delimiter::None => (b"[", b"]"),
                };
                self.hasher.add(open);
                self.read(group.stream());
                self.hasher.add(close);
            }
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                self.hasher.add(name.as_bytes());
                self.mentions.insert(name);
            }
            // Whether another mark touches it is left out: that is spacing, and no sane edit changes nothing else.
            TokenTree::Punct(punct) => self.hasher.add(punct.as_char().to_string().as_bytes()),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                self.hasher.add(text.as_bytes());
                // `format!("{NAME}")` mentions the constant.
                let names = text
                    .split('{')
                    .skip(1)
                    .map(|after| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
                self.mentions.extend(names.filter(|name| !name.is_empty()));
            }
        }
    }
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// How many tokens at the start are one `#[doc = …]`, which is what a doc comment is to the compiler.
fn documentation(tokens: &[TokenTree]) -> Option<usize> {
    let (attribute, length) = match tokens {
        [hash, TokenTree::Group(group), ..] if is_punct(hash, '#') => (group, 2),
        [hash, inner, TokenTree::Group(group), ..] if is_punct(hash, '#') && is_punct(inner, '!') => (group, 3),
        _ => return None,
    };
    let mut inside = attribute.stream().into_iter();
    let is_doc = matches!(inside.next(), Some(TokenTree::Ident(name)) if name == "doc");
    (is_doc && inside.next().is_some_and(|token| is_punct(&token, '='))).then_some(length)
}

/// The file of an `include_str!("…")` or `include_bytes!("…")` at the start.
fn included_file(tokens: &[TokenTree]) -> Option<PathBuf> {
    match tokens {
        [TokenTree::Ident(name), mark, TokenTree::Group(arguments), ..]
            if (name == "include_str" || name == "include_bytes") && is_punct(mark, '!') =>
        {
            text_of(arguments.stream()).map(PathBuf::from)
        }
        _ => None,
    }
}

/// The text that an expression of literals, `concat!` and `env!` comes to.
fn text_of(expression: TokenStream) -> Option<String> {
    let parts = syn::parse::Parser::parse2(Punctuated::<syn::Expr, Token![,]>::parse_terminated, expression).ok()?;
    parts.iter().map(text_of_expression).collect()
}

fn text_of_expression(expression: &syn::Expr) -> Option<String> {
    match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        syn::Expr::Macro(call) if call.mac.path.is_ident("concat") => text_of(call.mac.tokens.clone()),
        // The compiler's environment, the same that the compiled code's `env!` reads.
        syn::Expr::Macro(call) if call.mac.path.is_ident("env") => {
            env::var(call.mac.parse_body::<LitStr>().ok()?.value()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Code {
        Code::new(text.parse().unwrap())
    }

    #[test]
    fn the_layout_does_not_count() {
        let plain = code("fn a(x: &u8) -> Vec<Vec<u8>> { call(x, 1); & * x }");
        for other in [
            "fn a(x: &u8)->Vec<Vec<u8> >{call(x,1);&*x}",
            "/// Says so.\nfn a(x: &u8) -> Vec<Vec<u8>> { //! Inside.\n call( x, /* one */ 1,\n); &*x }",
            "fn a(x: &u8,) -> Vec<Vec<u8>> { call(x, 1); &*x }",
        ] {
            assert_eq!(code(other).hash, plain.hash, "{other}");
        }
    }

    #[test]
    fn everything_else_counts() {
        let plain = code("fn a() { b(1, (2, 3)) }");
        for other in [
            "fn a() { b(1, (2, 4)) }",
            "fn a() { b(1, [2, 3]) }",
            "fn a() { b((1, 2), 3) }",
            "fn a() { b(1, (23)) }",
            "fn a() { b(1, (2, 3)); }",
            "fn a() { #[cfg(unix)] b(1, (2, 3)) }",
            "fn a() { b(1, (2, \"3\")) }",
        ] {
            assert_ne!(code(other).hash, plain.hash, "{other}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // Vectors of FNV-1a take no length; this one adds eight bytes of zero for an empty text.
        let mut hasher = Hasher::new();
        assert_eq!(hasher.finish(), 0xcbf29ce484222325);
        hasher.add(b"");
        assert_eq!(hasher.finish(), 0xa8c7f832281a39c5);
    }

    #[test]
    fn finds_names_and_files() {
        let found = code(
            "f!(\"{A} {b:?} {} {{c}}\", D, include_str!(\"x.sh\"), include_bytes![\"y\",], \
            include_str!(concat!(\"a/\", concat!(\"b\", \"/c\"))), include_str!(name), include_str!(concat!(1)))",
        );
        for name in ["A", "b", "D"] {
            assert!(found.mentions.contains(name), "{name}");
        }
        assert_eq!(found.includes, ["x.sh", "y", "a/b/c"].map(PathBuf::from));
        let below = code("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/x\"))");
        assert_eq!(below.includes, [PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/x"))]);
    }
}
