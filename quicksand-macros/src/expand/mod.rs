//! What the attributes become. The generated code says what the test wants and leaves the rest to
//! `quicksand::__private`.

mod meta;
mod registered;
mod rstest;
mod signature;

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, ItemFn, Signature, ext::IdentExt, parse::Parse};

use crate::{
    args::{self, Base, Image, SetupArgs, TestArgs},
    fingerprint,
    report::Errors,
};

/// Who runs tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The compiler's own, libtest.
    Libtest,
    /// That, or in targets with `harness = false` ours, with which each test registers.
    Either,
}

/// Expands `#[sandbox_test(arguments)]` on `item` of the source file `file`.
pub(crate) fn sandbox_test(
    arguments: TokenStream,
    item: TokenStream,
    file: Option<&Path>,
    runner: Runner,
) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = errors.take(args::parse_test(arguments.clone()));
    let test = errors.take(function(item.clone(), "#[sandbox_test]"));
    if let Some(test) = &test {
        check_test(test, &mut errors);
    }
    match errors.or(parsed.zip(test)) {
        Ok(Some((_, test))) if rstest::is_on(&test) => rstest::hand_over(&arguments, test),
        Ok(Some((parsed, test))) => test_function(&parsed, &test, file, runner),
        // Not without an error.
        Ok(None) => item,
        Err(error) => with_error(item, &error),
    }
}

/// Expands `#[sandbox_setup]` and `#[sandbox_setup(arguments)]` on `item` of the source file `file`.
pub(crate) fn sandbox_setup(arguments: TokenStream, item: TokenStream, file: Option<&Path>) -> TokenStream {
    let mut errors = Errors::default();
    // Without arguments it is only a mark, for tests that name the function.
    let parsed = if arguments.is_empty() { None } else { errors.take(args::parse_setup(arguments)) };
    let commands = parsed.as_ref().is_some_and(|parsed| parsed.commands.is_some());
    if let Ok(Bodiless { attrs, sig, .. }) = syn::parse2(item.clone()) {
        if !sig.inputs.is_empty() || sig.asyncness.is_some() {
            let message = format!("commands take no machine: write `fn {}();`", sig.ident);
            errors.push(syn::Error::new_spanned(&sig, message));
        }
        if !commands && errors.is_empty() {
            let message = format!("a setup without a body needs commands: {}", args::commands_usage());
            errors.push(syn::Error::new_spanned(&sig, message));
        }
        return match errors.or(parsed) {
            Ok(parsed) => {
                let parsed = parsed.map(|parsed| registration(&parsed, &attrs, &sig, None));
                quote!(#parsed)
            }
            Err(error) => error.to_compile_error(),
        };
    }
    let setup = errors.take(function(item.clone(), "#[sandbox_setup]"));
    if let Some(setup) = &setup {
        signature::check(&setup.sig, signature::Arguments::Reference, &mut errors);
        if commands {
            let message = format!("a setup has commands or a body: keep one, as in `fn {}();`", setup.sig.ident);
            errors.push(syn::Error::new_spanned(&setup.sig.ident, message));
        }
    }
    match errors.or(setup) {
        Ok(Some(setup)) => setup_function(&setup, parsed.as_ref(), file),
        Ok(None) => item,
        Err(error) => with_error(item, &error),
    }
}

/// A function that ends with its signature.
struct Bodiless {
    attrs: Vec<Attribute>,
    sig: Signature,
}

impl Parse for Bodiless {
    fn parse(input: syn::parse::ParseStream<'_>) -> syn::Result<Bodiless> {
        let attrs = input.call(Attribute::parse_outer)?;
        input.parse::<syn::Visibility>()?;
        let sig = input.parse()?;
        input.parse::<syn::Token![;]>()?;
        Ok(Bodiless { attrs, sig })
    }
}

/// The error beside the item, from which an editor can still complete names.
fn with_error(item: TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    match syn::parse2::<ItemFn>(item.clone()) {
        // Other attributes that make tests would go on to complain about a function that isn't theirs.
        Ok(mut function) => {
            function.attrs.retain(|attribute| !makes_test(attribute) && !rstest::is_its(attribute));
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
    let arguments = if rstest::is_on(test) { signature::Arguments::Cases } else { signature::Arguments::Machine };
    signature::check(&test.sig, arguments, errors);
    for attribute in test.attrs.iter().filter(|attribute| makes_test(attribute)) {
        let name = attribute.path().to_token_stream().to_string().replace(' ', "");
        let message = format!("#[sandbox_test] makes the function a test: remove #[{name}]");
        errors.push(syn::Error::new_spanned(attribute, message));
    }
}

/// Whether an attribute makes a test: `test`, `tokio::test`, `sandbox_test` once more. That of `test_log` only adds to
/// one, and that of `rstest` is worked with.
fn makes_test(attribute: &Attribute) -> bool {
    let names: Vec<String> = attribute.path().segments.iter().map(|segment| segment.ident.to_string()).collect();
    let last = names.last().map(String::as_str);
    last == Some("sandbox_test") || (last == Some("test") && names[0] != "test_log")
}

fn test_function(arguments: &TestArgs, test: &ItemFn, file: Option<&Path>, runner: Runner) -> TokenStream {
    match &arguments.base {
        Some(Base::Images(images)) => tests_of_images(arguments, images, test, file, runner),
        _ => one_test(arguments, test, file, runner),
    }
}

fn one_test(arguments: &TestArgs, test: &ItemFn, file: Option<&Path>, runner: Runner) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = test;
    let name = &sig.ident;
    let text = name.unraw().to_string();
    let path = quote!(::core::concat!(::core::module_path!(), "::", #text));
    let run = run(arguments, test, &path, None, file);
    if runner == Runner::Either {
        return registered::one_test(arguments, test, &path, &run);
    }
    // The mark of a test comes last: attributes such as `test_log::test`, which run before it, then see that it is
    // there. The inner function keeps the name, after which insta names the test's snapshots.
    quote! {
        #(#attrs)*
        #[::core::prelude::v1::test]
        #vis fn #name() {
            #sig #block
            #run
        }
    }
}

/// A test for each image, in a module of the function's name. What the author wrote stays outside of that module, so that
/// every path means what it meant.
fn tests_of_images(
    arguments: &TestArgs,
    images: &[Image],
    test: &ItemFn,
    file: Option<&Path>,
    runner: Runner,
) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = test;
    let name = &sig.ident;
    let text = name.unraw().to_string();
    let variant = Ident::new("variant", Span::mixed_site());
    let run = run(arguments, test, &quote!(#variant.0), Some(&quote!(#variant.1)), file);
    let (on_both, on_body, on_tests) = sorted(attrs);
    let (on_tests, wrappers) = match runner {
        Runner::Libtest => (on_tests, Vec::new()),
        Runner::Either => registered::of_tests_alone(on_tests),
    };
    let tests = images.iter().map(|image| {
        let Image { name: image_name, ident, ignored } = image;
        let ident_text = ident.to_string();
        let variant = meta::image_variant(image_name, Some(ident_text.clone()));
        // Its own reason says more than one for all.
        let on_test = on_tests.iter().filter(|attribute| ignored.is_none() || !attribute.path().is_ident("ignore"));
        let registration = (runner == Runner::Either).then(|| {
            let path = quote!(::core::concat!(::core::module_path!(), "::", #ident_text));
            let run = quote!(|| super::#name((#path, #variant)));
            let reason = ignored.clone().or_else(|| signature::ignored(attrs));
            registered::registration(arguments, test, &path, reason, &run)
        });
        let ignored = ignored.as_ref().map(|reason| quote!(#[ignore = #reason]));
        quote! {
            #(#on_both)*
            #(#on_test)*
            #ignored
            #[::core::prelude::v1::test]
            fn #ident() {
                super::#name((
                    ::core::concat!(::core::module_path!(), "::", #ident_text),
                    #variant,
                ))
            }
            #registration
        }
    });
    let doc = format!("The tests of `{text}`, one for each image.");
    quote! {
        #(#on_both)*
        #(#on_body)*
        #(#wrappers)*
        #[cfg(test)]
        #vis fn #name(#variant: (&'static str, ::quicksand::__private::Variant)) {
            #sig #block
            #run
        }

        #(#on_both)*
        #[cfg(test)]
        #[doc = #doc]
        #[allow(unused_imports, non_snake_case)]
        #vis mod #name {
            use super::*;
            #(#tests)*
        }
    }
}

/// Attributes by where they belong: on the function and its tests, on the function alone, on the tests alone.
fn sorted(attributes: &[Attribute]) -> (Vec<&Attribute>, Vec<&Attribute>, Vec<&Attribute>) {
    let (mut both, mut body, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    for attribute in attributes {
        let is = |names: &[&str]| names.iter().any(|name| attribute.path().is_ident(name));
        let kind = if is(&["cfg"]) {
            &mut both
        } else if is(&["allow", "expect", "warn", "deny", "forbid", "doc"]) {
            &mut body
        } else {
            &mut tests
        };
        kind.push(attribute);
    }
    (both, body, tests)
}

/// The call that runs a test, or skips it where the host lacks what it requires.
fn run(
    arguments: &TestArgs,
    test: &ItemFn,
    name: &TokenStream,
    variant: Option<&TokenStream>,
    file: Option<&Path>,
) -> TokenStream {
    let meta = meta::test(arguments, test, name, variant, file);
    let function = &test.sig.ident;
    let sandbox = Ident::new("sandbox", Span::mixed_site());
    let told = |returned| {
        quote!({
            use ::quicksand::__private::{ByOutcome as _, ByTermination as _, ByWords as _};
            (&&&::quicksand::__private::Returned::new(#returned)).told()
        })
    };
    let (run, body) = match test.sig.asyncness {
        Some(_) => {
            let told = told(quote!(#function(#sandbox).await));
            (quote!(::quicksand::__private::run), quote!(async |#sandbox| #told))
        }
        None => {
            let told = told(quote!(#function(#sandbox)));
            (quote!(::quicksand::__private::run_blocking), quote!(|#sandbox| #told))
        }
    };
    if arguments.requires.is_empty() {
        return quote!(#run(#meta, #body));
    }
    let it = Ident::new("meta", Span::mixed_site());
    let skipped = match signature::expected_panic(&test.attrs) {
        // Such a test passes by a panic alone.
        Some(message) => quote!(::core::panic!("{}", #message);),
        None => quote!(return;),
    };
    quote! {
        let #it = #meta;
        if ::quicksand::__private::is_skipped(#it) {
            #skipped
        }
        #run(#it, #body)
    }
}

fn setup_function(setup: &ItemFn, arguments: Option<&SetupArgs>, file: Option<&Path>) -> TokenStream {
    let ItemFn { attrs, vis, sig, .. } = setup;
    let name = &sig.ident;
    let conditions: Vec<_> = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let fingerprint = fingerprint::of_function(setup, file);
    let registration = arguments.map(|arguments| registration(arguments, attrs, sig, Some(&fingerprint)));
    // Functions and modules have separate name spaces: one `use` of the name brings both.
    quote! {
        #setup

        #(#conditions)*
        #[doc(hidden)]
        #[allow(dead_code, non_snake_case, unreachable_pub)]
        #vis mod #name {
            pub const FINGERPRINT: &str = #fingerprint;
        }

        #registration
    }
}

/// What has tests find a setup by the name of its save.
fn registration(
    arguments: &SetupArgs,
    attributes: &[Attribute],
    signature: &Signature,
    fingerprint: Option<&str>,
) -> TokenStream {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let meta = meta::setup(arguments, &signature.ident, fingerprint);
    quote! {
        #(#conditions)*
        const _: () = {
            ::quicksand::__private::inventory::submit! { #meta }
        };
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
        pretty(sandbox_test(arguments, item, None, Runner::Libtest))
    }

    /// As where tests may have our own runner.
    fn registered(arguments: TokenStream, item: TokenStream) -> String {
        pretty(sandbox_test(arguments, item, None, Runner::Either))
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
        let found = messages(sandbox_test(quote!(image = "debian"), item, None, Runner::Libtest));
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
            Runner::Libtest,
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
    fn a_test_without_async_gets_the_sandbox_that_blocks() {
        let test = quote! {
            fn boots(sb: blocking::Sandbox) {}
        };
        let code = pretty(sandbox_test(quote!(image = "debian"), test, None, Runner::Libtest));
        assert!(code.contains("::quicksand::__private::run_blocking("), "{code}");
        assert!(code.contains("fn boots(sb: blocking::Sandbox) {}"), "{code}");
    }

    #[test]
    fn tests_are_plain_functions_of_a_machine() {
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
            Runner::Libtest,
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
            Runner::Libtest,
        );
        assert_eq!(messages(tokens.clone()).len(), 4);
        assert!(tokens.to_string().ends_with("fn a () { }"), "the function stays: {tokens}");
    }

    #[test]
    fn a_test_of_images() {
        let code = expanded(
            quote!(images = ["debian:12", ignore("ubuntu", "no mirror")], save = "base", setup = base, cpus = 2),
            quote! {
                /// Says so.
                #[allow(unused)]
                #[cfg(unix)]
                #[should_panic]
                async fn boots(sb: Sandbox) -> Result<(), Error> {
                    Ok(())
                }
            },
        );
        assert_snapshot!(code);
    }

    #[test]
    fn a_test_that_may_be_skipped() {
        let test = quote! {
            async fn boots(sb: Sandbox) {}
        };
        let code = expanded(quote!(image = "debian", requires(kvm, memory = "4G")), test.clone());
        assert_snapshot!(code);
        for (attribute, expected) in [
            (quote!(#[should_panic]), "panic!(\"{}\", \"\")"),
            (quote!(#[should_panic = "no"]), "panic!(\"{}\", \"no\")"),
            (quote!(#[should_panic(expected = "no")]), "panic!(\"{}\", \"no\")"),
        ] {
            let code = expanded(quote!(image = "debian", requires(kvm)), quote!(#attribute #test));
            assert!(code.contains(expected), "{code}");
        }
    }

    #[test]
    fn a_test_of_rstest() {
        let test = quote! {
            #[rstest]
            #[case(1)]
            async fn boots(#[case] number: u8, mut sb: Sandbox) {
                drop(sb);
            }
        };
        let code = expanded(quote!(image = "debian"), test);
        assert_snapshot!(code);
    }

    #[test]
    fn tests_of_rstest_have_one_machine() {
        assert_refused(
            quote!(
                #[rstest]
                async fn a(#[case] x: u8) {}
            ),
            &["takes the machine as its argument: write `async fn a(sb: Sandbox, ..)`"],
        );
        assert_refused(
            quote!(
                #[rstest::rstest]
                async fn a(x: Sandbox, y: quicksand::Sandbox) {}
            ),
            &["takes only the machine"],
        );
    }

    #[test]
    fn a_registered_setup() {
        let setup = quote! {
            /// Prepares.
            #[cfg(unix)]
            pub async fn base(sb: &Sandbox) {}
        };
        let arguments =
            quote!(images = ["debian", "ubuntu"], save = "base", inputs("install.sh"), max_age = "1d", timeout = "1h");
        assert_snapshot!(pretty(sandbox_setup(arguments, setup, None)));
    }

    #[test]
    fn a_setup_of_commands() {
        let setup = quote! {
            /// Has git.
            #[cfg(unix)]
            fn git();
        };
        let arguments = quote!(from = "base", save = "git", network = "full", setup("apt-get update", INSTALL));
        assert_snapshot!(pretty(sandbox_setup(arguments, setup, None)));
    }

    #[test]
    fn a_setup_has_a_body_or_commands() {
        let body = quote!(
            async fn base(sb: &Sandbox) {}
        );
        let bodiless = quote!(
            fn base();
        );
        let found = |arguments, item| messages(sandbox_setup(arguments, item, None));
        let said = found(quote!(image = "a", save = "b", setup("c")), body.clone());
        assert_eq!(said, ["a setup has commands or a body: keep one, as in `fn base();`"]);
        let said = found(quote!(image = "a", save = "b"), bodiless.clone());
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("a setup without a body needs commands: write `setup(\"command\""), "{said:?}");
        assert_eq!(found(quote!(), bodiless), said);
        let with_machine = quote!(
            async fn base(sb: &Sandbox);
        );
        let said = found(quote!(image = "a", save = "b", setup("c")), with_machine);
        assert_eq!(said, ["commands take no machine: write `fn base();`"]);
        assert_eq!(found(quote!(image = "a"), body).len(), 1, "the save is missing");
        let said = found(
            quote!(),
            quote!(
                fn base() {}
            ),
        );
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(
            said[0].contains("takes the machine as its argument: write `async fn base(sb: &Sandbox)`"),
            "{said:#?}"
        );
    }

    #[test]
    fn a_registered_test() {
        let test = quote! {
            /// Says so.
            #[ignore = "slow"]
            #[should_panic]
            #[cfg(unix)]
            #[expect(unused)]
            #[serial]
            #[test_log::test]
            pub(crate) async fn boots(sb: Sandbox) {}
        };
        assert_snapshot!(registered(quote!(image = "debian", retries = 2), test));
    }

    #[test]
    fn registered_tests_of_images() {
        let test = quote! {
            #[should_panic = "no"]
            #[serial]
            fn boots(sb: Sandbox) {}
        };
        assert_snapshot!(registered(quote!(images = ["debian", ignore("ubuntu", "no mirror")]), test));
    }
}
