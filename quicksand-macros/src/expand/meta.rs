//! What the generated code says of tests and setups, as values of `quicksand::__private`.

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{ItemFn, ext::IdentExt, spanned::Spanned};

use super::signature::expected_panic;
use crate::{
    args::{Accel, Base, Kernel, Machine, Network, Requirement, Runtime, Save, Setup, SetupArgs, TestArgs, Work},
    fingerprint::Fingerprint,
};

/// `&TestMeta`. `variant` is an expression for the one of several images.
pub(super) fn test(
    arguments: &TestArgs,
    test: &ItemFn,
    name: &TokenStream,
    variant: Option<&TokenStream>,
    file: Option<&Path>,
) -> TokenStream {
    let TestArgs { base, save, machine, timeout, runtime, requires, retries: _ } = arguments;
    let image = match base {
        Some(Base::Image(image)) => Some(image_variant(image, None)),
        Some(Base::Images(_)) => Some(quote!(#variant)),
        Some(Base::Save(_)) | None => None,
    };
    let start = match save {
        None => quote!(::quicksand::__private::Start::Image(#image)),
        Some(Save { name: save, setup: None }) => {
            let image = option(image);
            quote!(::quicksand::__private::Start::Save { name: #save, image: #image })
        }
        Some(Save { name: save, setup: Some(setup) }) => {
            let Setup { work, inputs, max_age } = setup;
            let work = match work {
                Work::Commands(commands) => quote!(::quicksand::__private::Work::Commands(&[#(#commands),*])),
                Work::Function(path) => {
                    let fingerprint = match Fingerprint::of_path(path, test, file) {
                        Fingerprint::Known(text) => quote!(#text),
                        // Without #[sandbox_setup] there is no such module, of which the compiler complains at the path.
                        Fingerprint::Elsewhere => quote_spanned!(path.span()=> #path::FINGERPRINT),
                    };
                    function(path, &fingerprint)
                }
            };
            let base = match base {
                Some(Base::Save(save)) => quote!(::quicksand::__private::Base::Save(#save)),
                _ => quote!(::quicksand::__private::Base::Image(#image)),
            };
            let meta = setup_meta(name, save, &base, &work, inputs, *max_age, machine, None);
            quote!(::quicksand::__private::Start::Own(#meta))
        }
    };
    let machine = machine_meta(machine);
    let timeout = option(timeout.map(milliseconds));
    let should_panic = expected_panic(&test.attrs).is_some();
    quote! {
        &::quicksand::__private::TestMeta {
            name: #name,
            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
            start: #start,
            machine: #machine,
            timeout: #timeout,
            runtime: #runtime,
            requires: &[#(#requires),*],
            should_panic: #should_panic,
        }
    }
}

/// `SetupMeta` of a setup that stands by itself, with the fingerprint of its body where it has one.
pub(super) fn setup(arguments: &SetupArgs, name: &Ident, fingerprint: Option<&str>) -> TokenStream {
    let SetupArgs { base, save, commands, inputs, max_age, machine, timeout } = arguments;
    let text = name.unraw().to_string();
    let path = quote!(::core::concat!(::core::module_path!(), "::", #text, " (", ::core::file!(), ")"));
    let base = match base {
        Base::Image(image) => {
            let image = image_variant(image, None);
            quote!(::quicksand::__private::Base::Image(#image))
        }
        Base::Save(save) => quote!(::quicksand::__private::Base::Save(#save)),
        Base::Images(images) => {
            let variants = images.iter().map(|image| image_variant(&image.name, Some(image.ident.to_string())));
            quote!(::quicksand::__private::Base::Images(&[#(#variants),*]))
        }
    };
    let work = match (commands, fingerprint) {
        (Some(commands), _) => quote!(::quicksand::__private::Work::Commands(&[#(#commands),*])),
        (None, fingerprint) => {
            let fingerprint = fingerprint.unwrap_or_default();
            function(name, &quote!(#fingerprint))
        }
    };
    setup_meta(&path, save, &base, &work, inputs, *max_age, machine, *timeout)
}

#[allow(clippy::too_many_arguments)]
fn setup_meta(
    name: &TokenStream,
    save: &str,
    base: &TokenStream,
    work: &TokenStream,
    inputs: &[String],
    max_age: Option<u64>,
    machine: &Machine,
    timeout: Option<u64>,
) -> TokenStream {
    let machine = machine_meta(machine);
    let max_age = option(max_age.map(|seconds| quote!(::core::time::Duration::from_secs(#seconds))));
    let timeout = option(timeout.map(milliseconds));
    quote! {
        ::quicksand::__private::SetupMeta {
            name: #name,
            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
            save: #save,
            base: #base,
            work: #work,
            inputs: &[#(#inputs),*],
            max_age: #max_age,
            machine: #machine,
            timeout: #timeout,
        }
    }
}

/// `Variant`: an image, and what the names of its saves end with where it is one of several.
pub(super) fn image_variant(image: &str, suffix: Option<String>) -> TokenStream {
    let suffix = option(suffix);
    quote!(::quicksand::__private::Variant { image: #image, suffix: #suffix })
}

/// `Work` of a setup function.
fn function(path: &impl ToTokens, fingerprint: &TokenStream) -> TokenStream {
    // Not even a function that is called `sb` may take this for itself.
    let sandbox = Ident::new("sb", Span::mixed_site());
    quote! {
        ::quicksand::__private::Work::Function {
            fingerprint: #fingerprint,
            setup: |#sandbox| ::quicksand::__private::call_setup(#path, #sandbox),
        }
    }
}

fn machine_meta(machine: &Machine) -> TokenStream {
    let Machine { memory, cpus, network, accel, kernel, disk_size, display } = *machine;
    let (memory, cpus) = (option(memory), option(cpus.map(u32::from)));
    let (network, accel) = (option(network), option(accel));
    let kernel = option(kernel);
    let (disk_size, display) = (option(disk_size), option(display));
    quote! {
        ::quicksand::__private::MachineMeta {
            memory: #memory,
            cpus: #cpus,
            network: #network,
            accel: #accel,
            kernel: #kernel,
            disk_size: #disk_size,
            display: #display,
        }
    }
}

fn milliseconds(milliseconds: u64) -> TokenStream {
    quote!(::core::time::Duration::from_millis(#milliseconds))
}

pub(super) fn option(value: Option<impl ToTokens>) -> TokenStream {
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

impl ToTokens for Kernel {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Kernel::Guest => quote!(::quicksand::Kernel::Guest),
            Kernel::Image => quote!(::quicksand::Kernel::Image),
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

impl ToTokens for Runtime {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Runtime::Default => quote!(::quicksand::__private::Runtime::Default),
            Runtime::CurrentThread => quote!(::quicksand::__private::Runtime::CurrentThread),
            Runtime::MultiThread(threads) => {
                let threads = option(threads.map(usize::from));
                quote!(::quicksand::__private::Runtime::MultiThread(#threads))
            }
        });
    }
}

impl ToTokens for Requirement {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Requirement::Kvm => quote!(::quicksand::__private::Requirement::Kvm),
            Requirement::Network => quote!(::quicksand::__private::Requirement::Network),
            Requirement::Memory(bytes) => quote!(::quicksand::__private::Requirement::Memory(#bytes)),
            Requirement::Cpus(cpus) => quote!(::quicksand::__private::Requirement::Cpus(#cpus)),
            Requirement::Command(program) => quote!(::quicksand::__private::Requirement::Command(#program)),
        });
    }
}
