//! What a test requires of the host: `requires(kvm, memory = "4G")`.

use proc_macro2::Span;
use syn::{
    Ident, LitInt, LitStr, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream},
};

use crate::{report::nearest, value};

const NAMES: [&str; 5] = ["kvm", "network", "memory", "cpus", "command"];

/// One thing that the host must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    Kvm,
    Network,
    /// In bytes.
    Memory(u64),
    Cpus(u32),
    Command(String),
}

impl Parse for Requirement {
    fn parse(input: ParseStream<'_>) -> syn::Result<Requirement> {
        let name = input.call(Ident::parse_any)?;
        let text = name.unraw().to_string();
        Ok(match text.as_str() {
            "kvm" => Requirement::Kvm,
            "network" => Requirement::Network,
            "memory" => {
                let amount: LitStr = value_of(input, &name, r#"memory = "4G""#)?;
                Requirement::Memory(
                    value::size(&amount.value()).map_err(|why| {
                        syn::Error::new(amount.span(), format!("`memory = {:?}` {why}", amount.value()))
                    })?,
                )
            }
            "cpus" => {
                let number: LitInt = value_of(input, &name, "cpus = 4")?;
                let cpus = number.base10_parse().ok().filter(|cpus| *cpus > 0);
                Requirement::Cpus(cpus.ok_or_else(|| wants(number.span(), &text, "cpus = 4"))?)
            }
            "command" => {
                let program: LitStr = value_of(input, &name, r#"command = "passt""#)?;
                if program.value().trim().is_empty() {
                    return Err(wants(program.span(), &text, r#"command = "passt""#));
                }
                Requirement::Command(program.value())
            }
            _ => {
                let near = nearest(&text, NAMES);
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let message = format!("a test can't require `{text}`{hint}");
                return Err(syn::Error::new(name.span(), message));
            }
        })
    }
}

fn value_of<L: Parse>(input: ParseStream<'_>, name: &Ident, usage: &str) -> syn::Result<L> {
    let wants = |span| wants(span, &name.to_string(), usage);
    if !input.peek(Token![=]) {
        return Err(wants(name.span()));
    }
    input.parse::<Token![=]>()?;
    let span = input.span();
    input.parse().map_err(|_| wants(span))
}

fn wants(span: Span, name: &str, usage: &str) -> syn::Error {
    syn::Error::new(span, format!("`{name}` takes another value: write `{usage}`"))
}
