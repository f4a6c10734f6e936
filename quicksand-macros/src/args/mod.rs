//! The arguments of the attributes, read into plain types before anything is made of them.

mod entries;
mod image;
mod key;
mod requirement;

use proc_macro2::TokenStream;
use syn::{
    Expr, Path,
    parse::{ParseStream, Parser},
};

use entries::Entries;
pub(crate) use image::Image;
use key::{Key, On};
pub(crate) use requirement::Requirement;

/// What `#[sandbox_test(..)]` asks for.
pub(crate) struct TestArgs {
    /// None where a setup elsewhere says how the save is made.
    pub(crate) base: Option<Base>,
    pub(crate) save: Option<Save>,
    pub(crate) machine: Machine,
    /// In milliseconds.
    pub(crate) timeout: Option<u64>,
    /// Where our own runner runs it.
    pub(crate) retries: u8,
    pub(crate) runtime: Runtime,
    pub(crate) requires: Vec<Requirement>,
}

/// What `#[sandbox_setup(..)]` asks for.
pub(crate) struct SetupArgs {
    pub(crate) base: Base,
    pub(crate) save: String,
    /// Lines of shell, where the function has no body.
    pub(crate) commands: Option<Vec<Expr>>,
    pub(crate) inputs: Vec<String>,
    /// In seconds.
    pub(crate) max_age: Option<u64>,
    pub(crate) machine: Machine,
    /// In milliseconds.
    pub(crate) timeout: Option<u64>,
}

/// What a machine is made from.
pub(crate) enum Base {
    Image(String),
    Images(Vec<Image>),
    /// That of another setup.
    Save(String),
}

/// A prepared machine to start from.
pub(crate) struct Save {
    pub(crate) name: String,
    /// How it is made, where the test itself says so.
    pub(crate) setup: Option<Setup>,
}

/// What is done to a machine before its save is taken.
pub(crate) struct Setup {
    pub(crate) work: Work,
    pub(crate) inputs: Vec<String>,
    /// In seconds.
    pub(crate) max_age: Option<u64>,
}

pub(crate) enum Work {
    Function(Path),
    /// Lines of shell.
    Commands(Vec<Expr>),
}

/// Options of the machine, each as that of the save or the default where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) cpus: Option<u8>,
    pub(crate) network: Option<Network>,
    pub(crate) accel: Option<Accel>,
    pub(crate) kernel: Option<Kernel>,
    /// In bytes.
    pub(crate) disk_size: Option<u64>,
    pub(crate) display: Option<bool>,
}

/// The runtime that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// What the harness finds best.
    Default,
    CurrentThread,
    /// With that many threads, or one for each processor.
    MultiThread(Option<u16>),
}

/// What the guest reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    None,
    MountsOnly,
    Full,
}

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Auto,
    Kvm,
    Hvf,
    Whpx,
    Tcg,
}

/// Which kernel is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Guest,
    Image,
}

/// Reads what stands between the parentheses of `#[sandbox_test(..)]`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub(crate) fn parse_test(tokens: TokenStream) -> syn::Result<TestArgs> {
    Parser::parse2(|input: ParseStream<'_>| Entries::new(On::Test).read(input)?.test(), tokens)
}

/// Reads what stands between the parentheses of `#[sandbox_setup(..)]`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub(crate) fn parse_setup(tokens: TokenStream) -> syn::Result<SetupArgs> {
    Parser::parse2(|input: ParseStream<'_>| Entries::new(On::Setup).read(input)?.setup(), tokens)
}

/// What to write where a setup is commands.
pub(crate) fn commands_usage() -> String {
    Key::Setup.usage(On::Setup)
}

#[cfg(test)]
mod tests {
    use super::{entries::Word, *};
    use quote::{ToTokens, quote};

    fn args(tokens: TokenStream) -> TestArgs {
        parse_test(tokens).unwrap()
    }

    fn messages_of<T>(result: syn::Result<T>) -> Vec<String> {
        result.err().unwrap().into_iter().map(|error| error.to_string()).collect()
    }

    fn only_message_of<T>(result: syn::Result<T>) -> String {
        let mut messages = messages_of(result);
        assert_eq!(messages.len(), 1, "{messages:#?}");
        messages.remove(0)
    }

    fn only_message(tokens: TokenStream) -> String {
        only_message_of(parse_test(tokens))
    }

    fn only_setup_message(tokens: TokenStream) -> String {
        only_message_of(parse_setup(tokens))
    }

    fn base_image(base: Option<Base>) -> String {
        match base {
            Some(Base::Image(name)) => name,
            _ => panic!("no image"),
        }
    }

    fn function(setup: Option<Setup>) -> String {
        match setup.unwrap().work {
            Work::Function(path) => path.to_token_stream().to_string(),
            Work::Commands(_) => panic!("no function"),
        }
    }

    #[test]
    fn reads_every_key() {
        let all = args(quote! {
            image = "debian", save = "base", setup = common::base, memory = "512M", cpus = 2, network = "mounts-only",
            accel = "tcg", timeout = "30s", inputs("install.sh", "../dist"), max_age = "7d", flavor = "multi_thread",
            worker_threads = 3, disk_size = "10G", display = true, kernel = "image", retries = 2, requires(kvm, network, memory = "4G", cpus = 2, command = "passt"),
        });
        assert_eq!(base_image(all.base), "debian");
        let Save { name, setup } = all.save.unwrap();
        assert_eq!(name, "base");
        let setup = setup.unwrap();
        assert_eq!((&*setup.inputs, setup.max_age), (&["install.sh".to_owned(), "../dist".into()][..], Some(604_800)));
        assert_eq!(function(Some(setup)), "common :: base");
        let machine = Machine {
            memory: Some(512 << 20),
            cpus: Some(2),
            network: Some(Network::MountsOnly),
            accel: Some(Accel::Tcg),
            disk_size: Some(10 << 30),
            display: Some(true),
            kernel: Some(Kernel::Image),
        };
        assert_eq!(all.machine, machine);
        assert_eq!((all.timeout, all.retries), (Some(30_000), 2));
        assert_eq!(all.runtime, Runtime::MultiThread(Some(3)));
        let requires = [
            Requirement::Kvm,
            Requirement::Network,
            Requirement::Memory(4 << 30),
            Requirement::Cpus(2),
            Requirement::Command("passt".into()),
        ];
        assert_eq!(all.requires, requires);
    }

    #[test]
    fn only_the_image_is_needed() {
        let least = args(quote!(image = "debian"));
        assert!(least.save.is_none() && least.requires.is_empty());
        assert_eq!((least.machine, least.timeout), (Machine::default(), None));
        assert_eq!(least.runtime, Runtime::Default);
        assert!(args(quote!(save = "base")).base.is_none(), "a setup elsewhere knows");
    }

    #[test]
    fn knows_every_word() {
        for (text, network) in Network::WORDS {
            assert_eq!(args(quote!(image = "a", network = #text)).machine.network, Some(*network));
        }
        for (text, accel) in Accel::WORDS {
            assert_eq!(args(quote!(image = "a", accel = #text)).machine.accel, Some(*accel));
        }
    }

    #[test]
    fn an_image_is_needed() {
        let message = only_message(quote!());
        assert!(message.starts_with("`image` is missing: write `image = \"debian\"`"), "{message}");
        for key in Key::ALL {
            assert!(message.contains(key.grammar(On::Test).1), "{message}");
        }
        assert!(only_message(quote!(image = " ")).starts_with("`image = \" \"` names no image"));
        assert!(only_message(quote!(image = debian)).starts_with("`image` takes another value: write `image = \"deb"));
        assert!(only_message(quote!(image)).starts_with("`image` needs a value"));
        assert!(only_message(quote!(image =)).starts_with("`image` takes another value"));
    }

    #[test]
    fn a_near_key_is_suggested() {
        // The image isn't called missing as well.
        let message = only_message(quote!(imgae = "debian"));
        assert!(message.starts_with("unknown key `imgae`; did you mean `image`?\naccepted, "), "{message}");
        let message = only_message(quote!(image = "debian", colour = "red"));
        assert!(message.starts_with("unknown key `colour`\naccepted, "), "{message}");
        let message = only_message(quote!("debian", image = "debian"));
        assert!(message.starts_with("write `key = value` here\naccepted, "), "{message}");
    }

    #[test]
    fn a_key_comes_once() {
        assert_eq!(only_message(quote!(image = "a", cpus = 1, image = "b")), "`image` is given twice: keep one");
    }

    #[test]
    fn commas_separate() {
        assert_eq!(only_message(quote!(image = "a" cpus = 1)), "write a comma before this");
    }

    #[test]
    fn saves_are_fit_for_directories() {
        for name in ["base", "a", "0.9_x-Y", &"x".repeat(64)] {
            assert_eq!(args(quote!(image = "a", save = #name)).save.unwrap().name, name);
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "ä", &"x".repeat(65)] {
            let message = only_message(quote!(image = "a", save = #name));
            assert!(message.contains("unfit for the name of a directory"), "{message}");
        }
    }

    #[test]
    fn setup_needs_a_save() {
        let message = only_message(quote!(image = "a", setup = base));
        assert!(message.starts_with("`setup` needs `save`"), "{message}");
        // A wrong save or a slip in its key is enough of a complaint.
        assert!(only_message(quote!(image = "a", setup = base, save = "/")).contains("unfit"));
        assert!(only_message(quote!(image = "a", setup = base, sav = "x")).contains("did you mean `save`"));
        assert!(only_message(quote!(save = "a", setup = base)).starts_with("`setup` needs a machine to start from: "));
        for setup in [
            quote!(= "base"),
            quote!(= base()),
            quote!(= base::<u8>),
            quote!(= |sb| base(sb)),
            quote!(()),
            quote!((" ")),
            quote!(("a" "b")),
            quote!((5)),
            quote!((a + b)),
        ] {
            let message = only_message(quote!(image = "a", save = "b", setup #setup));
            assert!(
                message.starts_with("`setup` takes another value: write `setup = path::to::function | "),
                "{message}"
            );
        }
    }

    #[test]
    fn memory_is_an_amount() {
        let message = only_message(quote!(image = "a", memory = "12X"));
        assert!(message.starts_with("`memory = \"12X\"` is no amount of memory: write a number"), "{message}");
        assert!(message.ends_with("write `memory = \"512M\"`, a number and a unit"), "{message}");
        assert!(only_message(quote!(image = "a", memory = "1M")).contains("at least 64M"));
        assert!(only_message(quote!(image = "a", memory = 512)).contains("takes another value"));
    }

    #[test]
    fn cpus_is_a_small_number() {
        assert_eq!(args(quote!(image = "a", cpus = 255)).machine.cpus, Some(255));
        for cpus in [quote!(0), quote!(256), quote!(-1), quote!("2"), quote!(1.5), quote!(99999999999999999999)] {
            let message = only_message(quote!(image = "a", cpus = #cpus));
            assert_eq!(message, "`cpus` takes another value: write `cpus = 2`, a number from 1 to 255");
        }
    }

    #[test]
    fn words_are_listed_and_suggested() {
        let message = only_message(quote!(image = "a", network = "ful"));
        assert_eq!(
            message,
            "`network = \"ful\"` is not known; did you mean \"full\"?\n\
            write `network = \"none\" | \"mounts-only\" | \"full\"`, one of these words"
        );
        assert!(only_message(quote!(image = "a", network = "mounts_only")).contains("did you mean \"mounts-only\"?"));
        let message = only_message(quote!(image = "a", disk_size = "20T"));
        assert!(message.starts_with("`disk_size = \"20T\"` is too large a disk"), "{message}");
        let message = only_message(quote!(image = "a", display = "yes"));
        assert!(message.starts_with("`display` takes another value: write `display = true | false`"), "{message}");
        let message = only_message(quote!(image = "a", accel = "xen"));
        assert!(message.starts_with("`accel = \"xen\"` is not known\nwrite `accel = \"auto\" | \"kvm\""), "{message}");
        assert!(only_message(quote!(image = "a", accel = Kvm)).contains("takes another value"));
    }

    #[test]
    fn timeout_is_a_time() {
        let message = only_message(quote!(image = "a", timeout = "30"));
        assert!(message.starts_with("`timeout = \"30\"` is no time: write a number and one of ms, s"), "{message}");
        assert!(only_message(quote!(image = "a", timeout = "0s")).contains("leaves no time"));
    }

    #[test]
    fn all_errors_come_together() {
        let messages = messages_of(parse_test(quote!(memory = "1M", cpus = 0, nonsense, timeout = 5)));
        assert_eq!(messages.len(), 5, "{messages:#?}");
    }

    #[test]
    fn commands_are_a_setup() {
        let save = args(quote!(image = "a", save = "b", setup("one", TWO, concat!("thr", "ee"),))).save.unwrap();
        let Work::Commands(commands) = save.setup.unwrap().work else { panic!("no commands") };
        assert_eq!(commands.len(), 3);
    }

    #[test]
    fn images_are_many_and_some_are_ignored() {
        let Some(Base::Images(images)) = args(quote!(images = ["debian:12", ignore("ubuntu", "no mirror")])).base
        else {
            panic!("no images");
        };
        let found: Vec<_> =
            images.iter().map(|image| (&*image.name, image.ident.to_string(), image.ignored.as_deref())).collect();
        assert_eq!(
            found,
            [("debian:12", "debian_12".to_owned(), None), ("ubuntu", "ubuntu".to_owned(), Some("no mirror"))]
        );
        for images in [quote!("a"), quote!([]), quote!([a]), quote!([ignore("a")]), quote!([ignore("a", "b", "c")])] {
            let message = only_message(quote!(images = #images));
            assert!(
                message.starts_with("`images` takes another value: write `images = [\"debian\", ignore("),
                "{message}"
            );
        }
        assert_eq!(only_message(quote!(images = ["a", "b", "a"])), "\"a\" is given twice: keep one");
        let message = only_message(quote!(images = ["x-1", "x.1"]));
        assert_eq!(message, "the tests of \"x-1\" and \"x.1\" would both be called `x_1`: keep one");
        assert!(only_message(quote!(images = ["--"])).contains("has no letters or digits"));
    }

    #[test]
    fn a_machine_starts_from_one_thing() {
        let message = only_message(quote!(image = "a", images = ["b"]));
        assert_eq!(message, "a machine starts from one thing: keep `image` or `images`");
        let message = only_setup_message(quote!(images = ["a"], from = "b", save = "c"));
        assert_eq!(message, "a machine starts from one thing: keep `images` or `from`");
        assert!(only_setup_message(quote!(from = "a", save = "a")).starts_with("a save can't build on itself"));
    }

    #[test]
    fn keys_need_each_other() {
        for (tokens, expected) in [
            (quote!(save = "a", from = "b"), "`from` needs `setup`"),
            (quote!(save = "a", inputs("b")), "`inputs` needs `setup`"),
            (quote!(image = "a", save = "b", max_age = "1d"), "`max_age` needs `setup`"),
            (quote!(image = "a", worker_threads = 2), "`worker_threads` needs `flavor = \"multi_thread\"`"),
            (
                quote!(image = "a", flavor = "current_thread", worker_threads = 2),
                "`worker_threads` needs `flavor = \"multi_thread\"`",
            ),
        ] {
            let message = only_message(tokens);
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn inputs_are_of_the_package() {
        for path in ["", "/etc/passwd", ".", "a/..", "/"] {
            let message = only_message(quote!(image = "a", save = "b", setup("c"), inputs(#path)));
            assert!(message.starts_with(&format!("{path:?} is no path of a file")), "{message}");
        }
    }

    #[test]
    fn requirements_are_listed_and_suggested() {
        for (requirement, expected) in [
            (quote!(kvn), "a test can't require `kvn`; did you mean `kvm`?\nwrite `requires(kvm, "),
            (quote!(root), "a test can't require `root`\nwrite"),
            (quote!(memory), "`memory` takes another value: write `memory = \"4G\"`\nwrite"),
            (quote!(memory = "4X"), "`memory = \"4X\"` is no amount of memory"),
            (quote!(cpus = 0), "`cpus` takes another value: write `cpus = 4`\n"),
            (quote!(command = ""), "`command` takes another value"),
            (quote!(), "`requires` takes another value"),
        ] {
            let message = only_message(quote!(image = "a", requires(#requirement)));
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_setup_has_keys_of_its_own() {
        let setup = parse_setup(quote!(from = "base", save = "git", setup("apt-get update"), max_age = "1w")).unwrap();
        assert!(matches!(&setup.base, Base::Save(base) if base == "base"));
        assert_eq!((&*setup.save, setup.commands.map(|it| it.len()), setup.max_age), ("git", Some(1), Some(604_800)));
        assert!(only_setup_message(quote!(save = "a")).starts_with("`image` is missing: write `image = \"debian\"`"));
        assert!(only_setup_message(quote!(image = "a")).starts_with("`save` is missing: write `save = \"base\"`"));
        let message = only_setup_message(quote!(image = "a", save = "b", setup = base));
        assert!(message.starts_with("`setup` needs a value: write `setup(\"command\", "), "{message}");
        let message = only_setup_message(quote!(image = "a", save = "b", flavor = "multi_thread"));
        assert!(message.starts_with("unknown key `flavor`\naccepted"), "{message}");
        let message = only_setup_message(quote!(images = [ignore("a", "b")], save = "c"));
        assert!(message.starts_with("a setup ignores no image"), "{message}");
    }
}
