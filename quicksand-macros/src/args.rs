//! The arguments of `#[sandbox_test]`, read into plain types before anything is made of them.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Ident, LitInt, LitStr, Path, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream, Parser},
};

use crate::{
    report::{Errors, nearest},
    value,
};

/// What the attribute asks for.
pub(crate) struct TestArgs {
    pub(crate) image: String,
    pub(crate) save: Option<Save>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) cpus: Option<u8>,
    pub(crate) network: Option<Network>,
    pub(crate) accel: Option<Accel>,
    /// In milliseconds.
    pub(crate) timeout: Option<u64>,
}

/// A prepared machine to start from.
pub(crate) struct Save {
    pub(crate) name: String,
    pub(crate) setup: Option<Path>,
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

/// A value that is one of few words.
trait Word: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for Network {
    const WORDS: &'static [(&'static str, Network)] =
        &[("none", Network::None), ("mounts-only", Network::MountsOnly), ("full", Network::Full)];
}

impl Word for Accel {
    const WORDS: &'static [(&'static str, Accel)] =
        &[("auto", Accel::Auto), ("kvm", Accel::Kvm), ("hvf", Accel::Hvf), ("whpx", Accel::Whpx), ("tcg", Accel::Tcg)];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Image,
    Save,
    Setup,
    Memory,
    Cpus,
    Network,
    Accel,
    Timeout,
}

impl Key {
    const ALL: [Key; 8] =
        [Key::Image, Key::Save, Key::Setup, Key::Memory, Key::Cpus, Key::Network, Key::Accel, Key::Timeout];

    fn name(self) -> &'static str {
        self.grammar().0
    }

    /// Its name, how it is written, and what the value is.
    fn grammar(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Key::Image => ("image", r#"image = "debian""#, "the name of an image"),
            Key::Save => ("save", r#"save = "base""#, "a name for the prepared machine"),
            Key::Setup => ("setup", "setup = path::to::function", "the path of an `async fn(sb: &Sandbox)`"),
            Key::Memory => ("memory", r#"memory = "512M""#, "a number and a unit"),
            Key::Cpus => ("cpus", "cpus = 2", "a number from 1 to 255"),
            Key::Network => ("network", r#"network = "none" | "mounts-only" | "full""#, "one of these words"),
            Key::Accel => ("accel", r#"accel = "auto" | "kvm" | "hvf" | "whpx" | "tcg""#, "one of these words"),
            Key::Timeout => ("timeout", r#"timeout = "30s""#, "a number and a unit"),
        }
    }

    /// What to write for the key.
    fn usage(self) -> String {
        let (_, example, meaning) = self.grammar();
        format!("write `{example}`, {meaning}")
    }
}

/// All that the attribute accepts, a line each.
fn accepted() -> String {
    let lines: Vec<String> = Key::ALL.map(|key| format!("    {}", key.grammar().1)).into();
    format!("accepted, separated by commas:\n{}", lines.join("\n"))
}

/// Reads what stands between the parentheses.
///
/// # Errors
///
/// Everything that is wrong with it.
pub(crate) fn parse(tokens: TokenStream) -> syn::Result<TestArgs> {
    Parser::parse2(|input: ParseStream<'_>| Entries::default().read(input), tokens)
}

#[derive(Default)]
struct Entries {
    /// Keys that are there, whether or not their values are right.
    seen: Vec<Key>,
    /// Keys that were probably meant. They aren't also reported as missing.
    meant: Vec<Key>,
    image: Option<String>,
    save: Option<String>,
    setup: Option<Path>,
    memory: Option<u64>,
    cpus: Option<u8>,
    network: Option<Network>,
    accel: Option<Accel>,
    timeout: Option<u64>,
}

impl Entries {
    fn read(mut self, input: ParseStream<'_>) -> syn::Result<TestArgs> {
        let mut errors = Errors::default();
        while !input.is_empty() {
            let entry = self.entry(input);
            let right = errors.take(entry).is_some();
            if right && !input.is_empty() && !input.peek(Token![,]) {
                errors.push(input.error("write a comma before this"));
            }
            // After an error the next entry may still be read.
            while !input.is_empty() && !input.peek(Token![,]) {
                input.parse::<TokenTree>()?;
            }
            input.parse::<Option<Token![,]>>()?;
        }
        if !self.is_there(Key::Image) {
            let message = format!("`image` is missing: {}\n{}", Key::Image.usage(), accepted());
            errors.push(syn::Error::new(Span::call_site(), message));
        }
        if let (Some(setup), false) = (&self.setup, self.is_there(Key::Save)) {
            let message = format!("`setup` needs `save`, which keeps the machine it prepares: {}", Key::Save.usage());
            errors.push(syn::Error::new_spanned(setup, message));
        }
        let (setup, image) = (self.setup, self.image.unwrap_or_default());
        errors.or(TestArgs {
            image,
            save: self.save.map(|name| Save { name, setup }),
            memory: self.memory,
            cpus: self.cpus,
            network: self.network,
            accel: self.accel,
            timeout: self.timeout,
        })
    }

    fn is_there(&self, key: Key) -> bool {
        self.seen.contains(&key) || self.meant.contains(&key)
    }

    fn entry(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let key = self.key(input)?;
        match key {
            Key::Image => self.image = Some(checked(key, input, image)?),
            Key::Save => self.save = Some(checked(key, input, save_name)?),
            Key::Setup => {
                let path = input.call(Path::parse_mod_style).map_err(|error| wants(key, error.span()))?;
                if !input.is_empty() && !input.peek(Token![,]) {
                    return Err(wants(key, input.span()));
                }
                self.setup = Some(path);
            }
            Key::Memory => self.memory = Some(checked(key, input, value::memory)?),
            Key::Cpus => {
                let number: LitInt = literal(key, input)?;
                let cpus = number.base10_parse().ok().filter(|cpus| *cpus > 0);
                self.cpus = Some(cpus.ok_or_else(|| wants(key, number.span()))?);
            }
            Key::Network => self.network = Some(checked(key, input, word)?),
            Key::Accel => self.accel = Some(checked(key, input, word)?),
            Key::Timeout => self.timeout = Some(checked(key, input, value::milliseconds)?),
        }
        Ok(())
    }

    /// A key that wasn't there yet, and the equals sign after it.
    fn key(&mut self, input: ParseStream<'_>) -> syn::Result<Key> {
        let name = input
            .call(Ident::parse_any)
            .map_err(|error| syn::Error::new(error.span(), format!("write `key = value` here\n{}", accepted())))?;
        let text = name.unraw().to_string();
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == text) else {
            let near = nearest(&text, Key::ALL.map(Key::name));
            self.meant.extend(Key::ALL.into_iter().filter(|key| Some(key.name()) == near));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(syn::Error::new(name.span(), format!("unknown key `{text}`{hint}\n{}", accepted())));
        };
        if self.seen.contains(&key) {
            return Err(syn::Error::new(name.span(), format!("`{text}` is given twice: keep one")));
        }
        self.seen.push(key);
        if !input.peek(Token![=]) {
            return Err(syn::Error::new(name.span(), format!("`{text}` needs a value: {}", key.usage())));
        }
        input.parse::<Token![=]>()?;
        Ok(key)
    }
}

fn wants(key: Key, span: Span) -> syn::Error {
    syn::Error::new(span, format!("`{}` takes another value: {}", key.name(), key.usage()))
}

fn literal<L: Parse>(key: Key, input: ParseStream<'_>) -> syn::Result<L> {
    // Asking the input for its place first: the error of a literal of another type spans what it likes.
    let span = input.span();
    input.parse().map_err(|_| wants(key, span))
}

/// A string whose content a function understands, or whose error it explains.
fn checked<T>(key: Key, input: ParseStream<'_>, read: fn(&str) -> Result<T, String>) -> syn::Result<T> {
    let text: LitStr = literal(key, input)?;
    let value = text.value();
    read(&value).map_err(|why| {
        let message = format!("`{} = {value:?}` {why}\n{}", key.name(), key.usage());
        syn::Error::new(text.span(), message)
    })
}

fn image(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("names no image".to_owned());
    }
    Ok(text.to_owned())
}

/// A save's name is also its directory's.
fn save_name(text: &str) -> Result<String, String> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(fit) || text.len() > 64 {
        return Err("is unfit for the name of a directory: write at most 64 letters, digits, `.`, `_` and `-`, \
            starting with a letter or digit"
            .to_owned());
    }
    Ok(text.to_owned())
}

fn word<W: Word>(text: &str) -> Result<W, String> {
    W::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let near = nearest(text, W::WORDS.iter().map(|(word, _)| *word));
        let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        format!("is not known{hint}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::{ToTokens, quote};

    fn args(tokens: TokenStream) -> TestArgs {
        parse(tokens).unwrap()
    }

    fn messages(tokens: TokenStream) -> Vec<String> {
        parse(tokens).err().unwrap().into_iter().map(|error| error.to_string()).collect()
    }

    fn only_message(tokens: TokenStream) -> String {
        let mut messages = messages(tokens);
        assert_eq!(messages.len(), 1, "{messages:#?}");
        messages.remove(0)
    }

    #[test]
    fn reads_every_key() {
        let all = args(quote! {
            image = "debian", save = "base", setup = common::base, memory = "512M", cpus = 2, network = "mounts-only",
            accel = "tcg", timeout = "30s",
        });
        assert_eq!(all.image, "debian");
        let Save { name, setup } = all.save.unwrap();
        assert_eq!(name, "base");
        assert_eq!(setup.unwrap().to_token_stream().to_string(), "common :: base");
        assert_eq!(all.memory, Some(512 << 20));
        assert_eq!(all.cpus, Some(2));
        assert_eq!(all.network, Some(Network::MountsOnly));
        assert_eq!(all.accel, Some(Accel::Tcg));
        assert_eq!(all.timeout, Some(30_000));
    }

    #[test]
    fn only_the_image_is_needed() {
        let least = args(quote!(image = "debian"));
        assert!(least.save.is_none());
        assert_eq!(
            (least.memory, least.cpus, least.network, least.accel, least.timeout),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn knows_every_word() {
        for (text, network) in Network::WORDS {
            assert_eq!(args(quote!(image = "a", network = #text)).network, Some(*network));
        }
        for (text, accel) in Accel::WORDS {
            assert_eq!(args(quote!(image = "a", accel = #text)).accel, Some(*accel));
        }
    }

    #[test]
    fn an_image_is_needed() {
        let message = only_message(quote!());
        assert!(message.starts_with("`image` is missing: write `image = \"debian\"`"), "{message}");
        for key in Key::ALL {
            assert!(message.contains(key.grammar().1), "{message}");
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
    fn setup_is_a_path_and_needs_a_save() {
        let message = only_message(quote!(image = "a", setup = base));
        assert!(message.starts_with("`setup` needs `save`"), "{message}");
        // A wrong save or a slip in its key is enough of a complaint.
        assert!(only_message(quote!(image = "a", setup = base, save = "/")).contains("unfit"));
        assert!(only_message(quote!(image = "a", setup = base, sav = "x")).contains("did you mean `save`"));
        for setup in [quote!("base"), quote!(base()), quote!(base::<u8>), quote!(|sb| base(sb))] {
            let message = only_message(quote!(image = "a", save = "b", setup = #setup));
            assert!(
                message.starts_with("`setup` takes another value: write `setup = path::to::function`"),
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
        assert_eq!(args(quote!(image = "a", cpus = 255)).cpus, Some(255));
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
        let messages = messages(quote!(memory = "1M", cpus = 0, nonsense, timeout = 5));
        assert_eq!(messages.len(), 5, "{messages:#?}");
    }
}
