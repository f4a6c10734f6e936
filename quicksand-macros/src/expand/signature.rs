//! The signatures that the attributes go on.

use proc_macro2::Span;
use syn::{Attribute, Expr, ExprLit, FnArg, Lit, Meta, Safety, Signature, Type, spanned::Spanned};

use crate::report::Errors;

/// What a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// The machine.
    Machine,
    /// A reference to the machine.
    Reference,
    /// The machine among others, which rstest gives.
    Cases,
}

/// Checks that a function is plain and takes what it should. Without `async` that is the sandbox that blocks.
pub(super) fn check(signature: &Signature, arguments: Arguments, errors: &mut Errors) {
    let Signature { ident, inputs, generics, .. } = signature;
    let argument = match arguments {
        Arguments::Machine => "sb: Sandbox",
        Arguments::Reference => "sb: &Sandbox",
        Arguments::Cases => "sb: Sandbox, ..",
    };
    let usage = format!("write `async fn {ident}({argument})`");
    let mut error = |span: Span, what: &str| errors.push(syn::Error::new(span, format!("{what}: {usage}")));
    let unsafety = match &signature.safety {
        Safety::Default => None,
        safety => Some(safety.span()),
    };
    let abi = signature.abi.as_ref().map(Spanned::span);
    let constness = signature.constness.as_ref().map(Spanned::span);
    for span in [constness, unsafety, abi].into_iter().flatten() {
        error(span, "the function must be a plain one");
    }
    if !generics.params.is_empty() {
        error(generics.span(), "the function can't be generic");
    } else if let Some(clause) = &generics.where_clause {
        error(clause.span(), "the function can't be generic");
    }
    let machines = inputs.iter().filter(|input| is_machine(input)).count();
    if inputs.is_empty() || (arguments == Arguments::Cases && machines == 0) {
        error(signature.paren_token.span.join(), "the function takes the machine as its argument");
    }
    let mut typed = 0;
    for input in inputs {
        match input {
            FnArg::Receiver(receiver) => error(receiver.span(), "the function can't be a method"),
            FnArg::Typed(_) if arguments == Arguments::Cases => typed += usize::from(is_machine(input)),
            FnArg::Typed(_) => typed += 1,
        }
        if typed > 1 {
            error(input.span(), "the function takes only the machine");
            typed = 1;
        }
    }
}

/// Whether an argument is the machine, by the name of its type.
pub(super) fn is_machine(argument: &FnArg) -> bool {
    match argument {
        FnArg::Typed(argument) => match &*argument.ty {
            Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Sandbox"),
            _ => false,
        },
        FnArg::Receiver(_) => false,
    }
}

/// Where a test is ignored: the reason, empty where none is given.
pub(super) fn ignored(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("ignore"))?;
    let reason = attribute.meta.require_name_value().ok().and_then(|pair| text(&pair.value));
    Some(reason.unwrap_or_default())
}

/// Where a test passes by a panic: what must be in its message, empty where that is nothing.
pub(super) fn expected_panic(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("should_panic"))?;
    let expected = match &attribute.meta {
        Meta::Path(_) => None,
        Meta::List(list) => list.parse_args::<syn::MetaNameValue>().ok().map(|pair| pair.value),
        Meta::NameValue(pair) => Some(pair.value.clone()),
    };
    Some(expected.as_ref().and_then(text).unwrap_or_default())
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}
