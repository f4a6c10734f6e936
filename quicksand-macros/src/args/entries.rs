//! Reading the entries of an attribute one by one, and what they come to together.

use proc_macro2::{Span, TokenTree};
use syn::{
    Expr, Ident, LitBool, LitInt, LitStr, Path, Token,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream},
};

use super::{
    Accel, Base, Kernel, Machine, Network, Requirement, Runtime, Save, Setup, SetupArgs, TestArgs, Work,
    image::{self, Image},
    key::{Form, Key, On, accepted},
};
use crate::{
    report::{Errors, nearest},
    value,
};

/// What was read so far.
pub(super) struct Entries {
    on: On,
    errors: Errors,
    /// Keys that are there and where, whether or not their values are right.
    seen: Vec<(Key, Span)>,
    /// Keys that were probably meant. They aren't also reported as missing.
    meant: Vec<Key>,
    image: Option<String>,
    images: Option<Vec<Image>>,
    from: Option<String>,
    save: Option<String>,
    work: Option<Work>,
    inputs: Vec<String>,
    max_age: Option<u64>,
    machine: Machine,
    timeout: Option<u64>,
    retries: u8,
    flavor: Option<Flavor>,
    worker_threads: Option<u16>,
    requires: Vec<Requirement>,
}

impl Entries {
    pub(super) fn new(on: On) -> Entries {
        Entries {
            on,
            errors: Errors::default(),
            seen: Vec::new(),
            meant: Vec::new(),
            image: None,
            images: None,
            from: None,
            save: None,
            work: None,
            inputs: Vec::new(),
            max_age: None,
            machine: Machine::default(),
            timeout: None,
            retries: 0,
            flavor: None,
            worker_threads: None,
            requires: Vec::new(),
        }
    }

    pub(super) fn read(mut self, input: ParseStream<'_>) -> syn::Result<Entries> {
        while !input.is_empty() {
            let entry = self.entry(input);
            let right = self.errors.take(entry).is_some();
            if right && !input.is_empty() && !input.peek(Token![,]) {
                self.errors.push(input.error("write a comma before this"));
            }
            // After an error the next entry may still be read.
            skip_entry(input)?;
        }
        Ok(self)
    }

    fn entry(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let key = self.key(input)?;
        match key {
            Key::Image => self.image = Some(self.checked(key, input, image)?),
            Key::Images => {
                let images = image::list(input, |span| self.wants(key, span))?;
                if let (On::Setup, Some(image)) = (self.on, images.iter().find(|image| image.ignored.is_some())) {
                    let message = "a setup ignores no image: a test on it may, with `images = [ignore(..)]`";
                    return Err(syn::Error::new(image.ident.span(), message));
                }
                self.images = Some(images);
            }
            Key::From => self.from = Some(self.checked(key, input, save_name)?),
            Key::Save => self.save = Some(self.checked(key, input, save_name)?),
            Key::Setup => self.work = Some(self.work(input)?),
            Key::Inputs => self.inputs = self.list(key, input, |input| self.checked(key, input, relative_path))?,
            Key::MaxAge => self.max_age = Some(self.checked(key, input, value::age)?),
            Key::Memory => self.machine.memory = Some(self.checked(key, input, value::memory)?),
            Key::Cpus => self.machine.cpus = Some(self.number(key, input)?),
            Key::Network => self.machine.network = Some(self.checked(key, input, word)?),
            Key::Accel => self.machine.accel = Some(self.checked(key, input, word)?),
            Key::Kernel => self.machine.kernel = Some(self.checked(key, input, word)?),
            Key::DiskSize => self.machine.disk_size = Some(self.checked(key, input, value::disk_size)?),
            Key::Display => self.machine.display = Some(self.literal::<LitBool>(key, input)?.value),
            Key::Timeout => self.timeout = Some(self.checked(key, input, value::milliseconds)?),
            Key::Retries => self.retries = self.number(key, input)?,
            Key::Flavor => self.flavor = Some(self.checked(key, input, word)?),
            Key::WorkerThreads => self.worker_threads = Some(self.number(key, input)?),
            Key::Requires => {
                let usage = key.usage(self.on);
                let explained = |error: syn::Error| syn::Error::new(error.span(), format!("{error}\n{usage}"));
                self.requires = self.list(key, input, |input| input.call(Requirement::parse).map_err(explained))?;
            }
        }
        Ok(())
    }

    /// A key that wasn't there yet, and the equals sign after it where it has one.
    fn key(&mut self, input: ParseStream<'_>) -> syn::Result<Key> {
        let on = self.on;
        let name = input
            .call(Ident::parse_any)
            .map_err(|error| syn::Error::new(error.span(), format!("write `key = value` here\n{}", accepted(on))))?;
        let text = name.unraw().to_string();
        let Some(key) = Key::all(on).find(|key| key.name() == text) else {
            let near = nearest(&text, Key::all(on).map(Key::name));
            self.meant.extend(Key::all(on).filter(|key| Some(key.name()) == near));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(syn::Error::new(name.span(), format!("unknown key `{text}`{hint}\n{}", accepted(on))));
        };
        if self.has(key) {
            return Err(syn::Error::new(name.span(), format!("`{text}` is given twice: keep one")));
        }
        self.seen.push((key, name.span()));
        let (value, list) = (input.peek(Token![=]), input.peek(syn::token::Paren));
        match key.form(on) {
            Form::Value | Form::Either if value => {
                input.parse::<Token![=]>()?;
            }
            Form::List | Form::Either if list => {}
            _ => {
                let message = format!("`{text}` needs a value: {}", key.usage(on));
                return Err(syn::Error::new(name.span(), message));
            }
        }
        Ok(key)
    }

    fn has(&self, key: Key) -> bool {
        self.seen.iter().any(|(seen, _)| *seen == key)
    }

    /// Whether a key is there, or was meant to be.
    fn is_there(&self, key: Key) -> bool {
        self.has(key) || self.meant.contains(&key)
    }

    fn span(&self, key: Key) -> Span {
        self.seen.iter().find(|(seen, _)| *seen == key).map_or_else(Span::call_site, |(_, span)| *span)
    }

    fn refuse(&mut self, span: Span, message: impl std::fmt::Display) {
        self.errors.push(syn::Error::new(span, message));
    }

    /// Refuses a key that is there without another that it needs.
    fn needs(&mut self, key: Key, other: Key, why: &str) {
        if self.has(key) && !self.is_there(other) {
            let (name, other, usage) = (key.name(), other.name(), other.usage(self.on));
            self.refuse(self.span(key), format!("`{name}` needs `{other}`, {why}: {usage}"));
        }
    }

    /// What the machine is made from: of three keys at most one.
    fn base(&mut self) -> Option<Base> {
        let keys: Vec<Key> = [Key::Image, Key::Images, Key::From].into_iter().filter(|key| self.has(*key)).collect();
        if let [first, second, ..] = keys[..] {
            let message = format!("a machine starts from one thing: keep `{}` or `{}`", first.name(), second.name());
            self.refuse(self.span(second), message);
        }
        if let (Some(from), Some(save)) = (&self.from, &self.save)
            && from == save
        {
            self.refuse(self.span(Key::From), "a save can't build on itself: name another");
        }
        self.image.take().map(Base::Image).or(self.images.take().map(Base::Images)).or(self.from.take().map(Base::Save))
    }

    fn has_base(&self) -> bool {
        [Key::Image, Key::Images, Key::From].into_iter().any(|key| self.is_there(key))
    }

    pub(super) fn test(mut self) -> syn::Result<TestArgs> {
        if !self.has_base() && !self.is_there(Key::Save) {
            let message = format!(
                "`image` is missing: {}; or `save` alone, where a #[sandbox_setup] makes it\n{}",
                Key::Image.usage(self.on),
                accepted(self.on)
            );
            self.refuse(Span::call_site(), message);
        } else if self.has(Key::Setup) && !self.has_base() {
            let message = format!("`setup` needs a machine to start from: {}", Key::Image.usage(self.on));
            self.refuse(self.span(Key::Setup), message);
        }
        self.needs(Key::Setup, Key::Save, "which keeps the machine it prepares");
        self.needs(Key::From, Key::Setup, "without which there is nothing new to save");
        self.needs(Key::Inputs, Key::Setup, "which depends on them");
        self.needs(Key::MaxAge, Key::Setup, "whose save is made again");
        let runtime = match (self.flavor, self.worker_threads) {
            (Some(Flavor::MultiThread), threads) => Runtime::MultiThread(threads),
            (Some(Flavor::CurrentThread), None) => Runtime::CurrentThread,
            (None, None) => Runtime::Default,
            (_, Some(_)) => {
                let message = r#"`worker_threads` needs `flavor = "multi_thread"`"#;
                self.refuse(self.span(Key::WorkerThreads), message);
                Runtime::Default
            }
        };
        let base = self.base();
        let Entries { work, inputs, max_age, machine, timeout, retries, requires, .. } = self;
        let setup = work.map(|work| Setup { work, inputs, max_age });
        let save = self.save.map(|name| Save { name, setup });
        self.errors.or(TestArgs { base, save, machine, timeout, retries, runtime, requires })
    }

    pub(super) fn setup(mut self) -> syn::Result<SetupArgs> {
        for (there, key) in [(self.has_base(), Key::Image), (self.is_there(Key::Save), Key::Save)] {
            if !there {
                let message = format!("`{}` is missing: {}\n{}", key.name(), key.usage(self.on), accepted(self.on));
                self.refuse(Span::call_site(), message);
            }
        }
        let base = self.base();
        let Entries { work, inputs, max_age, machine, timeout, .. } = self;
        let commands = match work {
            Some(Work::Commands(commands)) => Some(commands),
            Some(Work::Function(_)) | None => None,
        };
        let save = self.save.unwrap_or_default();
        // Where it is missing, there is an error.
        let base = base.unwrap_or_else(|| Base::Image(String::new()));
        self.errors.or(SetupArgs { base, save, commands, inputs, max_age, machine, timeout })
    }

    fn wants(&self, key: Key, span: Span) -> syn::Error {
        syn::Error::new(span, format!("`{}` takes another value: {}", key.name(), key.usage(self.on)))
    }

    fn literal<L: Parse>(&self, key: Key, input: ParseStream<'_>) -> syn::Result<L> {
        // Asking the input for its place first: the error of a literal of another type spans what it likes.
        let span = input.span();
        input.parse().map_err(|_| self.wants(key, span))
    }

    /// A string whose content a function understands, or whose error it explains.
    fn checked<T>(&self, key: Key, input: ParseStream<'_>, read: fn(&str) -> Result<T, String>) -> syn::Result<T> {
        let text: LitStr = self.literal(key, input)?;
        let value = text.value();
        read(&value).map_err(|why| {
            let message = match key.form(self.on) {
                Form::Value => format!("`{} = {value:?}` {why}\n{}", key.name(), key.usage(self.on)),
                Form::List | Form::Either => format!("{value:?} {why}\n{}", key.usage(self.on)),
            };
            syn::Error::new(text.span(), message)
        })
    }

    /// A number that is not 0.
    fn number<N>(&self, key: Key, input: ParseStream<'_>) -> syn::Result<N>
    where
        N: std::str::FromStr<Err: std::fmt::Display> + Default + PartialEq,
    {
        let number: LitInt = self.literal(key, input)?;
        let value = number.base10_parse().ok().filter(|value| *value != N::default());
        value.ok_or_else(|| self.wants(key, number.span()))
    }

    /// What stands in parentheses, at least one, separated by commas.
    fn list<T>(
        &self,
        key: Key,
        input: ParseStream<'_>,
        read: impl Fn(ParseStream<'_>) -> syn::Result<T>,
    ) -> syn::Result<Vec<T>> {
        let span = input.span();
        let content;
        parenthesized!(content in input);
        let mut errors = Errors::default();
        let mut values = Vec::new();
        while !content.is_empty() {
            let read = errors.take(read(&content));
            if read.is_some() && !content.is_empty() && !content.peek(Token![,]) {
                errors.push(self.wants(key, content.span()));
            }
            values.extend(read);
            // After an error the next may still be read.
            skip_entry(&content)?;
        }
        if values.is_empty() && errors.is_empty() { Err(self.wants(key, span)) } else { errors.or(values) }
    }

    fn work(&self, input: ParseStream<'_>) -> syn::Result<Work> {
        let key = Key::Setup;
        if input.peek(syn::token::Paren) {
            return self.list(key, input, |input| self.command(input)).map(Work::Commands);
        }
        let path = input.call(Path::parse_mod_style).map_err(|error| self.wants(key, error.span()))?;
        if !input.is_empty() && !input.peek(Token![,]) {
            return Err(self.wants(key, input.span()));
        }
        Ok(Work::Function(path))
    }

    /// A line of shell: a string, or whatever the compiler makes one of, such as a constant.
    fn command(&self, input: ParseStream<'_>) -> syn::Result<Expr> {
        let span = input.span();
        let expression: Expr = input.parse()?;
        match &expression {
            Expr::Lit(literal) => match &literal.lit {
                syn::Lit::Str(line) if !line.value().trim().is_empty() => Ok(expression),
                _ => Err(self.wants(Key::Setup, span)),
            },
            Expr::Path(_) | Expr::Macro(_) => Ok(expression),
            _ => Err(self.wants(Key::Setup, span)),
        }
    }
}

/// What is left of an entry, and the comma after it.
fn skip_entry(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    input.parse::<Option<Token![,]>>().map(drop)
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

/// A path from the package's directory, so that it means the same on every machine.
fn relative_path(text: &str) -> Result<String, String> {
    let path = std::path::Path::new(text);
    if path.is_absolute() || path.file_name().is_none() {
        return Err("is no path of a file or directory that starts from the package's directory".to_owned());
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavor {
    CurrentThread,
    MultiThread,
}

/// A value that is one of few words.
pub(super) trait Word: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for Kernel {
    const WORDS: &'static [(&'static str, Kernel)] = &[("guest", Kernel::Guest), ("image", Kernel::Image)];
}

impl Word for Network {
    const WORDS: &'static [(&'static str, Network)] =
        &[("none", Network::None), ("mounts-only", Network::MountsOnly), ("full", Network::Full)];
}

impl Word for Accel {
    const WORDS: &'static [(&'static str, Accel)] =
        &[("auto", Accel::Auto), ("kvm", Accel::Kvm), ("hvf", Accel::Hvf), ("whpx", Accel::Whpx), ("tcg", Accel::Tcg)];
}

impl Word for Flavor {
    const WORDS: &'static [(&'static str, Flavor)] =
        &[("current_thread", Flavor::CurrentThread), ("multi_thread", Flavor::MultiThread)];
}
