//! The images of `images = [..]`, and what the test of each is called.

use proc_macro2::{Ident, Span};
use syn::{
    LitStr, Token, bracketed, parenthesized,
    parse::{Parse, ParseStream},
};

use crate::report::Errors;

/// One image of several.
pub(crate) struct Image {
    pub(crate) name: String,
    /// What its test is called, and what the names of its saves end with.
    pub(crate) ident: Ident,
    /// Why its test is ignored, if it is.
    pub(crate) ignored: Option<String>,
}

/// A name, and why its test is ignored.
struct Entry(LitStr, Option<LitStr>);

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Entry> {
        if input.peek(LitStr) {
            return Ok(Entry(input.parse()?, None));
        }
        let word: Ident = input.parse()?;
        if word != "ignore" {
            return Err(syn::Error::new(word.span(), "no image"));
        }
        let content;
        parenthesized!(content in input);
        let name = content.parse()?;
        content.parse::<Token![,]>()?;
        let reason = content.parse()?;
        content.parse::<Option<Token![,]>>()?;
        if !content.is_empty() {
            return Err(content.error("one reason"));
        }
        Ok(Entry(name, Some(reason)))
    }
}

/// Reads `["image", ignore("image", "reason"), ..]`. `wrong` makes the error of what is no such list.
pub(super) fn list(input: ParseStream<'_>, wrong: impl Fn(Span) -> syn::Error) -> syn::Result<Vec<Image>> {
    let span = input.span();
    let entries = entries(input).map_err(|error| wrong(error.span()))?;
    if entries.is_empty() {
        return Err(wrong(span));
    }
    let mut errors = Errors::default();
    let mut images: Vec<Image> = Vec::new();
    for Entry(literal, reason) in entries {
        let name = literal.value();
        let mut refuse = |message: String| errors.push(syn::Error::new(literal.span(), message));
        let Some(ident) = ident(&name, literal.span()) else {
            refuse(format!("{name:?} has no letters or digits that a test could be named after"));
            continue;
        };
        match images.iter().find(|other| other.ident == ident).map(|other| &other.name) {
            Some(other) if *other == name => refuse(format!("{name:?} is given twice: keep one")),
            Some(other) => {
                refuse(format!("the tests of {other:?} and {name:?} would both be called `{ident}`: keep one"));
            }
            None => images.push(Image { name, ident, ignored: reason.map(|reason| reason.value()) }),
        }
    }
    errors.or(images)
}

fn entries(input: ParseStream<'_>) -> syn::Result<Vec<Entry>> {
    let content;
    bracketed!(content in input);
    Ok(content.parse_terminated(Entry::parse, Token![,])?.into_iter().collect())
}

/// What a test is called after an image: `debian:12` is `debian_12`, of a path only the last part counts.
fn ident(image: &str, span: Span) -> Option<Ident> {
    let last = image.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let words: Vec<&str> = last.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut text = words.join("_").to_ascii_lowercase();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '_');
    }
    // Words of the language, some of which can't be escaped.
    if !text.is_empty() && syn::parse_str::<Ident>(&text).is_err() {
        text.push('_');
    }
    (!text.is_empty()).then(|| Ident::new(&text, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        for (image, expected) in [
            ("debian", Some("debian")),
            ("debian:12", Some("debian_12")),
            ("alpine-3.20", Some("alpine_3_20")),
            ("Fedora", Some("fedora")),
            ("docker://library/alpine:3", Some("alpine_3")),
            ("/srv/my image.qcow2", Some("my_image_qcow2")),
            ("images/debian/", Some("debian")),
            ("9front", Some("_9front")),
            ("self", Some("self_")),
            ("match", Some("match_")),
            ("--", None),
            ("", None),
        ] {
            let found = ident(image, Span::call_site()).map(|ident| ident.to_string());
            assert_eq!(found.as_deref(), expected, "{image}");
        }
    }
}
