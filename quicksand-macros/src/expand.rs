//! What the attributes become. The generated code says what the test wants and leaves the rest to
//! `quicksand::__private`.

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, FnArg, ItemFn, Safety, Signature, ext::IdentExt, spanned::Spanned};

use crate::{
    args::{self, Accel, Network, Save, TestArgs},
    fingerprint::{self, Fingerprint},
    report::Errors,
};

/// Expands `#[sandbox_test(arguments)]` on `item` of the source file `file`.
pub(crate) fn sandbox_test(arguments: TokenStream, item: TokenStream, file: Option<&Path>) -> TokenStream {
    let mut errors = Errors::default();
    let arguments = errors.take(args::parse(arguments));
    let test = errors.take(function(item.clone(), "#[sandbox_test]"));
    if let Some(test) = &test {
        check_test(test, &mut errors);
    }
    match errors.or(arguments.zip(test)) {
        Ok(Some((arguments, test))) => test_function(&arguments, &test, file),
        // Not without an error.
        Ok(None) => item,
        Err(error) => with_error(item, &error),
    }
}

/// Expands `#[sandbox_setup]` on `item` of the source file `file`.
pub(crate) fn sandbox_setup(arguments: TokenStream, item: TokenStream, file: Option<&Path>) -> TokenStream {
    let mut errors = Errors::default();
    if !arguments.is_empty() {
        errors.push(syn::Error::new_spanned(arguments, "arguments are not supported here: write #[sandbox_setup]"));
    }
    let setup = errors.take(function(item.clone(), "#[sandbox_setup]"));
    if let Some(setup) = &setup {
        check_signature(&setup.sig, "sb: &Sandbox", &mut errors);
    }
    match errors.or(setup) {
        Ok(Some(setup)) => setup_function(&setup, file),
        Ok(None) => item,
        Err(error) => with_error(item, &error),
    }
}

/// The error beside the item, from which an editor can still complete names.
fn with_error(item: TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    match syn::parse2::<ItemFn>(item.clone()) {
        // Other attributes that make tests would go on to complain about a function that isn't theirs.
        Ok(mut function) => {
            function.attrs.retain(|attribute| !makes_test(attribute));
            quote!(#error #function)
        }
        Err(_) => quote!(#error #item),
    }
}

fn function(item: TokenStream, attribute: &str) -> syn::Result<ItemFn> {
    let start = item.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
    match syn::parse2(item)? {
        syn::Item::Fn(function) => Ok(function),
        _ => Err(syn::Error::new(start, format!("{attribute} goes on an `async fn`"))),
    }
}

fn check_test(test: &ItemFn, errors: &mut Errors) {
    check_signature(&test.sig, "sb: Sandbox", errors);
    for attribute in test.attrs.iter().filter(|attribute| makes_test(attribute)) {
        let name = attribute.path().to_token_stream().to_string().replace(' ', "");
        let message = format!("#[sandbox_test] makes the function a test: remove #[{name}]");
        errors.push(syn::Error::new_spanned(attribute, message));
    }
}

/// Whether an attribute makes a test: `test`, `tokio::test`, `sandbox_test` once more. That of `test_log` only adds to
/// one.
fn makes_test(attribute: &Attribute) -> bool {
    let names: Vec<String> = attribute.path().segments.iter().map(|segment| segment.ident.to_string()).collect();
    let last = names.last().map(String::as_str);
    last == Some("sandbox_test") || (last == Some("test") && names[0] != "test_log")
}

/// Checks that a function is plain, `async` and takes one argument.
fn check_signature(signature: &Signature, argument: &str, errors: &mut Errors) {
    let Signature { ident, inputs, generics, .. } = signature;
    let usage = format!("write `async fn {ident}({argument})`");
    let mut error = |span: Span, what: &str| errors.push(syn::Error::new(span, format!("{what}: {usage}")));
    if signature.asyncness.is_none() {
        error(signature.fn_token.span(), "the function must be async");
    }
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
    if inputs.is_empty() {
        error(signature.paren_token.span.join(), "the function takes the machine as its argument");
    }
    let mut typed = 0;
    for input in inputs {
        match input {
            FnArg::Receiver(receiver) => error(receiver.span(), "the function can't be a method"),
            FnArg::Typed(_) if typed > 0 => error(input.span(), "the function takes only the machine"),
            FnArg::Typed(_) => typed += 1,
        }
    }
}

fn test_function(arguments: &TestArgs, test: &ItemFn, file: Option<&Path>) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = test;
    let (name, output) = (&sig.ident, &sig.output);
    let text = name.unraw().to_string();
    let TestArgs { image, memory, cpus, network, accel, timeout, .. } = arguments;
    let save = option(arguments.save.as_ref().map(|save| save_meta(save, test, file)));
    let memory = option(*memory);
    let cpus = option(cpus.map(u32::from));
    let network = option(*network);
    let accel = option(*accel);
    let timeout = option(timeout.map(|timeout| quote!(::core::time::Duration::from_millis(#timeout))));
    // The mark of a test comes last: attributes such as `test_log::test`, which run before it, then see that it is
    // there. The inner function keeps the name, after which insta names the test's snapshots.
    quote! {
        #(#attrs)*
        #[::core::prelude::v1::test]
        #vis fn #name() #output {
            #sig #block
            ::quicksand::__private::run(
                &::quicksand::__private::TestMeta {
                    name: ::core::concat!(::core::module_path!(), "::", #text),
                    manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                    image: #image,
                    save: #save,
                    memory: #memory,
                    cpus: #cpus,
                    network: #network,
                    accel: #accel,
                    timeout: #timeout,
                },
                #name,
            )
        }
    }
}

fn save_meta(save: &Save, test: &ItemFn, file: Option<&Path>) -> TokenStream {
    let Save { name, setup } = save;
    let fingerprint = match setup.as_ref().map(|path| (path, Fingerprint::of_path(path, test, file))) {
        None => quote!(""),
        Some((_, Fingerprint::Known(text))) => quote!(#text),
        // Without #[sandbox_setup] there is no such module, of which the compiler complains at the path.
        Some((path, Fingerprint::Elsewhere)) => quote_spanned!(path.span()=> #path::FINGERPRINT),
    };
    let setup = option(setup.as_ref().map(|path| {
        // Not even a function that is called `sb` may take this for itself.
        let sandbox = Ident::new("sb", Span::mixed_site());
        quote! {
            |#sandbox| ::std::boxed::Box::pin(async move {
                ::quicksand::__private::SetupOutcome::into_result(#path(#sandbox).await)
            })
        }
    }));
    quote! {
        ::quicksand::__private::SaveMeta {
            name: #name,
            fingerprint: #fingerprint,
            setup: #setup,
        }
    }
}

fn setup_function(setup: &ItemFn, file: Option<&Path>) -> TokenStream {
    let ItemFn { attrs, vis, sig, .. } = setup;
    let name = &sig.ident;
    let conditions = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let fingerprint = fingerprint::of_function(setup, file);
    // Functions and modules have separate name spaces: one `use` of the name brings both.
    quote! {
        #setup

        #(#conditions)*
        #[doc(hidden)]
        #[allow(dead_code, non_snake_case, unreachable_pub)]
        #vis mod #name {
            pub const FINGERPRINT: &str = #fingerprint;
        }
    }
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

impl ToTokens for Network {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Network::None => quote!(::quicksand::NetworkMode::None),
            Network::MountsOnly => quote!(::quicksand::NetworkMode::MountsOnly),
            Network::Full => quote!(::quicksand::NetworkMode::Full),
        });
    }
}

impl ToTokens for Accel {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Accel::Auto => quote!(::quicksand::Accel::Auto),
            Accel::Kvm => quote!(::quicksand::Accel::Kvm),
            Accel::Hvf => quote!(::quicksand::Accel::Hvf),
            Accel::Whpx => quote!(::quicksand::Accel::Whpx),
            Accel::Tcg => quote!(::quicksand::Accel::Tcg),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use insta::assert_snapshot;

    fn pretty(tokens: TokenStream) -> String {
        prettyplease::unparse(&syn::parse2(tokens).unwrap())
    }

    fn expanded(arguments: TokenStream, item: TokenStream) -> String {
        pretty(sandbox_test(arguments, item, None))
    }

    /// The messages of the errors that a macro came to.
    fn messages(tokens: TokenStream) -> Vec<String> {
        let file: syn::File = syn::parse2(tokens).unwrap();
        let message = |item: syn::Item| match item {
            syn::Item::Macro(call) => call.mac.parse_body::<syn::LitStr>().ok().map(|text| text.value()),
            _ => None,
        };
        file.items.into_iter().filter_map(message).collect()
    }

    #[track_caller]
    fn assert_refused(item: TokenStream, expected: &[&str]) {
        let found = messages(sandbox_test(quote!(image = "debian"), item, None));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_plain_test() {
        let code = expanded(
            quote!(image = "debian"),
            quote! {
                async fn boots(sb: Sandbox) {
                    sb.execute("true").await.unwrap();
                }
            },
        );
        assert_snapshot!(code);
    }

    #[test]
    fn a_test_with_everything() {
        let code = expanded(
            quote! {
                image = "debian", save = "base", setup = base, memory = "512M", cpus = 2, network = "full",
                accel = "tcg", timeout = "30s"
            },
            quote! {
                /// Says so.
                #[ignore = "slow"]
                #[should_panic]
                #[cfg(unix)]
                #[allow(unused)]
                pub(crate) async fn boots(#[allow(unused)] mut sb: Sandbox) -> Result<(), Box<dyn Error>> {
                    Ok(())
                }
            },
        );
        assert_snapshot!(code);
    }

    #[test]
    fn a_save_without_setup() {
        let code = expanded(
            quote!(image = "debian", save = "base"),
            quote!(
                async fn r#loop(_: Sandbox) {}
            ),
        );
        assert_snapshot!(code);
    }

    #[test]
    fn a_setup_in_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.rs");
        fs::write(&file, "mod common;").unwrap();
        let code = sandbox_test(
            quote!(image = "debian", save = "base", setup = common::base),
            quote!(
                async fn boots(sb: Sandbox) {}
            ),
            Some(&file),
        );
        assert_snapshot!(pretty(code));
    }

    #[test]
    fn a_marked_setup() {
        let setup = quote! {
            /// Prepares.
            #[cfg(unix)]
            pub async fn base(sb: &Sandbox) {}
        };
        let code = sandbox_setup(quote!(), setup, None);
        assert_snapshot!(pretty(code));
    }

    #[test]
    fn tests_are_plain_async_functions_of_a_machine() {
        assert_refused(
            quote!(
                fn a(sb: Sandbox) {}
            ),
            &["must be async: write `async fn a(sb: Sandbox)`"],
        );
        assert_refused(
            quote!(
                async fn a() {}
            ),
            &["takes the machine as its argument"],
        );
        assert_refused(
            quote!(
                async fn a(sb: Sandbox, x: u8, y: u8) {}
            ),
            &["takes only the machine"; 2],
        );
        assert_refused(
            quote!(
                async fn a(self, sb: Sandbox) {}
            ),
            &["can't be a method"],
        );
        assert_refused(
            quote!(
                async fn a<T>(sb: T) {}
            ),
            &["can't be generic"],
        );
        assert_refused(
            quote!(
                async fn a(sb: Sandbox)
                where
                    Sandbox: Sized,
                {
                }
            ),
            &["can't be generic"],
        );
        assert_refused(
            quote!(
                async unsafe extern "C" fn a(sb: Sandbox) {}
            ),
            &["must be a plain one"; 2],
        );
        assert_refused(
            quote!(
                struct A;
            ),
            &["#[sandbox_test] goes on an `async fn`"],
        );
    }

    #[test]
    fn tests_are_tests_once() {
        assert_refused(
            quote!(
                #[test]
                async fn a(sb: Sandbox) {}
            ),
            &["remove #[test]"],
        );
        assert_refused(
            quote!(
                #[tokio::test(flavor = "x")]
                async fn a(sb: Sandbox) {}
            ),
            &["remove #[tokio::test]"],
        );
        assert_refused(
            quote!(
                #[sandbox_test]
                async fn a(sb: Sandbox) {}
            ),
            &["remove #[sandbox_test]"],
        );
        let fine = sandbox_test(
            quote!(image = "a"),
            quote!(
                #[test_log::test]
                async fn a(sb: Sandbox) {}
            ),
            None,
        );
        assert!(messages(fine).is_empty());
    }

    #[test]
    fn all_errors_come_together() {
        let tokens = sandbox_test(
            quote!(cpus = 0),
            quote!(
                #[test]
                fn a() {}
            ),
            None,
        );
        assert_eq!(messages(tokens.clone()).len(), 5);
        assert!(tokens.to_string().ends_with("fn a () { }"), "the function stays: {tokens}");
    }

    #[test]
    fn a_setup_takes_no_arguments() {
        let setup = quote!(
            async fn base(sb: &Sandbox) {}
        );
        let found = messages(sandbox_setup(quote!(image = "debian"), setup, None));
        assert_eq!(found, ["arguments are not supported here: write #[sandbox_setup]"]);
        let found = messages(sandbox_setup(
            quote!(),
            quote!(
                fn base() {}
            ),
            None,
        ));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("must be async: write `async fn base(sb: &Sandbox)`"), "{found:#?}");
    }
}
