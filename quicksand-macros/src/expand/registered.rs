//! Tests that register with our own runner.
//!
//! With `harness = false` the compiler leaves out every `#[test]`, and nothing tells a macro whether it does. So the body goes into a
//! function of its own, which the `#[test]` calls, and which is registered under the test's name.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, ItemFn, ext::IdentExt};

use super::{meta::option, signature, sorted};
use crate::args::TestArgs;

/// A test of one image. `path` is an expression for its name, `run` the call that runs it.
pub(super) fn one_test(arguments: &TestArgs, test: &ItemFn, path: &TokenStream, run: &TokenStream) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = test;
    let name = &sig.ident;
    let body = format_ident!("__quicksand_{}", name.unraw());
    let (on_both, on_body, on_tests) = sorted(attrs);
    let (on_tests, wrappers) = of_tests_alone(on_tests);
    let docs = on_body.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let registration = registration(arguments, test, path, signature::ignored(attrs), &quote!(#body));
    quote! {
        #(#on_both)*
        #(#on_body)*
        #(#wrappers)*
        #[cfg(test)]
        fn #body() {
            #sig #block
            #run
        }

        #(#on_both)*
        #(#docs)*
        #(#on_tests)*
        #[::core::prelude::v1::test]
        #vis fn #name() {
            #body()
        }

        #registration
    }
}

/// What has our runner find a test. `run` is an expression for a function.
pub(super) fn registration(
    arguments: &TestArgs,
    test: &ItemFn,
    path: &TokenStream,
    ignored: Option<String>,
    run: &TokenStream,
) -> TokenStream {
    let (on_both, ..) = sorted(&test.attrs);
    let ignored = option(ignored);
    let should_panic = option(signature::expected_panic(&test.attrs));
    let retries = arguments.retries;
    quote! {
        #(#on_both)*
        #[cfg(test)]
        const _: () = {
            ::quicksand::__private::inventory::submit! {
                ::quicksand::__private::Registered {
                    name: #path,
                    ignored: #ignored,
                    should_panic: #should_panic,
                    retries: #retries,
                    run: #run,
                }
            }
        };
    }
}

/// Of attributes of tests, those that mean something on a test alone. The others, such as wrap a function's body, go with the body, so
/// that both runners heed them.
pub(super) fn of_tests_alone(attributes: Vec<&Attribute>) -> (Vec<&Attribute>, Vec<&Attribute>) {
    let is = |attribute: &Attribute, name: &str| attribute.path().is_ident(name);
    // That of `test_log` would make a second test of the body.
    let makes = |attribute: &Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test");
    attributes.into_iter().partition(|it| is(it, "ignore") || is(it, "should_panic") || makes(it))
}
