//! Working with rstest: its cases and fixtures make arguments, our attribute gives each of its tests a machine.
//!
//! Ours stands above `#[rstest]`. It is handed down to rstest as the attribute of every test that comes of the function,
//! with the machine as the argument that rstest leaves alone.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, FnArg, ItemFn, Pat, parse_quote, parse_quote_spanned, spanned::Spanned};

use super::signature::is_machine;

/// Whether rstest makes tests of the function.
pub(super) fn is_on(test: &ItemFn) -> bool {
    test.attrs.iter().any(|attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "rstest"))
}

/// Whether an attribute is of rstest. They mean nothing without it.
pub(super) fn is_its(attribute: &Attribute) -> bool {
    let path = attribute.path();
    let first = path.segments.first().map(|first| first.ident.to_string()).unwrap_or_default();
    first == "rstest" || first == "case" || path.is_ident("test_attr")
}

/// The function with our attribute where rstest finds it.
pub(super) fn hand_over(arguments: &TokenStream, mut test: ItemFn) -> TokenStream {
    let mut bindings = Vec::new();
    for argument in test.sig.inputs.iter_mut().filter(|argument| is_machine(argument)) {
        let FnArg::Typed(argument) = argument else { continue };
        argument.attrs.push(parse_quote!(#[ignore]));
        // rstest hands the argument on by its name, so it needs one.
        if !matches!(&*argument.pat, Pat::Ident(name) if name.mutability.is_none() && name.by_ref.is_none()) {
            let name = Ident::new("sandbox", Span::mixed_site());
            let pattern = std::mem::replace(&mut argument.pat, parse_quote!(#name));
            bindings.push(quote_spanned!(pattern.span()=> let #pattern = #name;));
        }
    }
    let statements = &test.block.stmts;
    if !bindings.is_empty() {
        test.block = parse_quote!({ #(#bindings)* #(#statements)* });
    }
    let attribute: Attribute =
        parse_quote_spanned!(Span::call_site()=> #[test_attr(::quicksand::sandbox_test(#arguments))]);
    test.attrs.push(attribute);
    quote!(#test)
}
