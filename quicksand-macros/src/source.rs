//! What a source file declares, and which of its functions a path in it means.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use quote::ToTokens;
use syn::{ImplItem, Item, ItemFn, TraitItem, Type, UseTree, ext::IdentExt};

use crate::tokens::Code;

/// How many imports lead from one to the next before we stop following.
const MOST_IMPORTS: usize = 8;

thread_local! {
    /// The file that was read last, its text and its items. Most files have many tests, and to parse some thousand
    /// lines for each of them would take longer than to compile them.
    static LAST: RefCell<Option<(PathBuf, String, Rc<Source>)>> = const { RefCell::new(None) };
}

/// A file's items, those of its inline modules among them.
#[derive(Debug)]
pub(crate) struct Source {
    /// The directory of the file, which its `include_str!` start from.
    pub(crate) directory: PathBuf,
    pub(crate) entries: Vec<Entry>,
    imports: Vec<Import>,
}

/// One item.
#[derive(Debug)]
pub(crate) struct Entry {
    module: Vec<String>,
    /// Code that has one of these names in it may depend on the item.
    pub(crate) names: Vec<String>,
    pub(crate) code: Code,
    pub(crate) role: Role,
}

/// What an item can be to a setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The setup itself or its helper.
    Function,
    /// A test, which no setup calls whatever names they share.
    Test,
    /// A helper.
    Other,
}

/// A name that a `use` brings into a module.
#[derive(Debug)]
struct Import {
    module: Vec<String>,
    name: String,
    path: Vec<String>,
}

impl Source {
    /// The file's items, or nothing where it can't be read.
    pub(crate) fn read(file: &Path) -> Option<Rc<Source>> {
        let text = fs::read_to_string(file).ok()?;
        LAST.with_borrow_mut(|last| match last {
            Some((path, known, source)) if path == file && *known == text => Some(Rc::clone(source)),
            _ => {
                let source = Rc::new(Source::parse(&text, file.parent()?.to_owned()).ok()?);
                *last = Some((file.to_owned(), text, Rc::clone(&source)));
                Some(source)
            }
        })
    }

    pub(crate) fn parse(text: &str, directory: PathBuf) -> syn::Result<Source> {
        let mut source = Source { directory, entries: Vec::new(), imports: Vec::new() };
        source.add_items(&[], syn::parse_file(text)?.items);
        Ok(source)
    }

    fn add_items(&mut self, module: &[String], items: Vec<Item>) {
        for item in items {
            let (names, code, role) = match item {
                Item::Mod(inline) => {
                    let (_, items) = inline.content.unwrap_or_default();
                    self.add_items(&[module, &[inline.ident.to_string()]].concat(), items);
                    continue;
                }
                Item::Use(import) => {
                    // A leading `::` names another crate, which `crate` stands for here: neither is in this file.
                    let start: Vec<String> = import.leading_colon.iter().map(|_| "crate".to_owned()).collect();
                    self.add_imports(module, &start, &import.tree);
                    continue;
                }
                Item::Fn(function) => {
                    let role = if is_test(&function) { Role::Test } else { Role::Function };
                    (vec![function.sig.ident.to_string()], function_code(&function), role)
                }
                other => (names(&other), Code::new(other.to_token_stream()), Role::Other),
            };
            self.entries.push(Entry { module: module.to_vec(), names, code, role });
        }
    }

    fn add_imports(&mut self, module: &[String], start: &[String], tree: &UseTree) {
        let join = |name: &syn::Ident| [start, &[name.to_string()]].concat();
        // `a::{self}` is `a`.
        let leaf = |name: &syn::Ident| if name == "self" { start.to_vec() } else { join(name) };
        let (path, new_name) = match tree {
            UseTree::Path(tree) => return self.add_imports(module, &join(&tree.ident), &tree.tree),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_imports(module, start, tree));
            }
            UseTree::Glob(_) => return,
            UseTree::Name(tree) => (leaf(&tree.ident), None),
            UseTree::Rename(tree) => (leaf(&tree.ident), Some(tree.rename.to_string())),
        };
        let name = new_name.as_ref().or(path.last()).cloned().unwrap_or_default();
        if new_name.as_ref().is_some_and(|name| name != "_") {
            // Code that has the new name in it depends on what the name stands for.
            self.entries.push(Entry {
                module: module.to_vec(),
                names: vec![name.clone()],
                code: Code::of_path(&path),
                role: Role::Other,
            });
        }
        self.imports.push(Import { module: module.to_vec(), name, path });
    }

    /// Where in the file the function stands that the compiler gave us. It tells no line, so we look for its code;
    /// several entries have the same code if they are copies.
    pub(crate) fn find(&self, function: &ItemFn) -> Vec<usize> {
        let hash = function_code(function).hash;
        self.positions(|entry| entry.role != Role::Other && entry.code.hash == hash)
    }

    /// The functions that a path may mean which is written beside the function `beside`. None where it leads to another
    /// file.
    pub(crate) fn resolve(&self, path: &syn::Path, beside: &ItemFn) -> Vec<usize> {
        if path.leading_colon.is_some() {
            return Vec::new();
        }
        let path: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A function that isn't found was made by a macro, most likely one at the top.
        let mut modules: Vec<&[String]> =
            self.find(beside).into_iter().map(|at| self.entries[at].module.as_slice()).collect();
        if modules.is_empty() {
            modules.push(&[]);
        }
        let mut found: Vec<usize> =
            modules.into_iter().flat_map(|module| self.resolve_in(module, &path, MOST_IMPORTS)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What a path means in a module, by and large as the compiler sees it.
    fn resolve_in(&self, module: &[String], path: &[String], imports: usize) -> Vec<usize> {
        let Some((name, mut through)) = path.split_last() else { return Vec::new() };
        let mut base = module;
        let mut anchored = false;
        while let Some((first, rest)) = through.split_first() {
            match first.as_str() {
                // Where this file is in the crate is not to be known from here.
                "crate" => return Vec::new(),
                "self" => {}
                "super" => match base.split_last() {
                    Some((_, parent)) => base = parent,
                    None => return Vec::new(),
                },
                _ => break,
            }
            (through, anchored) = (rest, true);
        }
        let target = [base, through].concat();
        if let Some(found) = self.declared_or_imported(&target, name, imports) {
            return found;
        }
        if anchored {
            return Vec::new();
        }
        if let Some((first, rest)) = through.split_first() {
            let imported = self.imported(module, first, &[rest, std::slice::from_ref(name)].concat(), imports);
            // Without an import by name, a glob may bring the path's first module.
            return imported
                .unwrap_or_else(|| self.positions(|entry| entry.is_function(name) && entry.module.ends_with(through)));
        }
        // A glob may bring the name, from the enclosing modules more likely than from others.
        let around = (0..module.len()).rev().map(|length| &module[..length]);
        around
            .filter_map(|module| self.declared_or_imported(module, name, imports))
            .next()
            .unwrap_or_else(|| self.positions(|entry| entry.is_function(name)))
    }

    /// The functions of a name in a module. None where the module doesn't say; empty where it says that they are
    /// elsewhere.
    fn declared_or_imported(&self, module: &[String], name: &str, imports: usize) -> Option<Vec<usize>> {
        let declared = self.positions(|entry| entry.is_function(name) && entry.module == module);
        if declared.is_empty() { self.imported(module, name, &[], imports) } else { Some(declared) }
    }

    /// The functions that a path means which starts with a name that the module imports.
    fn imported(&self, module: &[String], first: &str, rest: &[String], imports: usize) -> Option<Vec<usize>> {
        let import = self.imports.iter().find(|import| import.name == first && import.module == module)?;
        let path = [&import.path, rest].concat();
        Some(imports.checked_sub(1).map(|imports| self.resolve_in(module, &path, imports)).unwrap_or_default())
    }

    fn positions(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<usize> {
        (0..self.entries.len()).filter(|at| is_meant(&self.entries[*at])).collect()
    }
}

impl Entry {
    fn is_function(&self, name: &str) -> bool {
        self.role == Role::Function && self.names.iter().any(|own| own == name)
    }
}

/// The code of a function without its attributes and visibility, which change nothing that it does.
pub(crate) fn function_code(function: &ItemFn) -> Code {
    let (signature, block) = (&function.sig, &function.block);
    Code::new(quote::quote!(#signature #block))
}

fn is_test(function: &ItemFn) -> bool {
    let name = |attribute: &syn::Attribute| attribute.path().segments.last().map(|last| last.ident.unraw().to_string());
    function.attrs.iter().filter_map(name).any(|name| name == "test" || name == "sandbox_test" || name == "rstest")
}

/// The names by which code depends on an item that is no function, module or import.
fn names(item: &Item) -> Vec<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => ident,
        Item::Trait(item) => return trait_names(item),
        Item::Impl(item) => return impl_names(item),
        _ => return Vec::new(),
    };
    // Every `let _` would otherwise mention every `const _`.
    Some(name.to_string()).filter(|name| name != "_").into_iter().collect()
}

/// A trait and its methods: values that have them need not name it.
fn trait_names(item: &syn::ItemTrait) -> Vec<String> {
    let methods = item.items.iter().filter_map(|item| match item {
        TraitItem::Fn(method) => Some(method.sig.ident.to_string()),
        _ => None,
    });
    [item.ident.to_string()].into_iter().chain(methods).collect()
}

/// The type that is implemented for; of a trait's implementation also the methods, since it may be for any type.
fn impl_names(item: &syn::ItemImpl) -> Vec<String> {
    let mut of = &*item.self_ty;
    while let Type::Reference(reference) = of {
        of = &reference.elem;
    }
    let own = match of {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    };
    let methods = item.items.iter().filter_map(|part| match part {
        ImplItem::Fn(method) if item.trait_.is_some() => Some(method.sig.ident.to_string()),
        _ => None,
    });
    own.into_iter().chain(methods).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        use elsewhere::far;
        use self::tools::make as build;
        use tools::deep::{self};

        async fn base(sb: &Sandbox) {}
        #[sandbox_test(image = "debian")] async fn top(sb: Sandbox) { 1; }

        mod tools {
            pub async fn make(sb: &Sandbox) {}
            pub async fn far(sb: &Sandbox) {}
            pub mod deep { pub async fn dig(sb: &Sandbox) {} }
        }

        mod tests {
            use super::*;
            async fn own(sb: &Sandbox) {}
            async fn make(sb: &Sandbox) {}
            async fn inside(sb: Sandbox) { 2; }
        }
    "#;

    /// The modules of the functions that a path means which is written beside a test.
    fn meant(test: &str, path: &str) -> Vec<String> {
        let source = Source::parse(FILE, PathBuf::new()).unwrap();
        let test = syn::parse_str(test).unwrap();
        let found = source.resolve(&syn::parse_str(path).unwrap(), &test);
        found
            .into_iter()
            .map(|at| [&source.entries[at].module[..], &source.entries[at].names].concat().join("::"))
            .collect()
    }

    #[test]
    fn paths_lead_to_functions() {
        let top = "async fn top(sb: Sandbox) { 1; }";
        let inside = "async fn inside(sb: Sandbox) { 2; }";
        for (test, path, functions) in [
            (top, "base", &["base"] as &[&str]),
            (top, "self::base", &["base"]),
            (top, "tools::make", &["tools::make"]),
            (top, "self::tools::deep::dig", &["tools::deep::dig"]),
            (top, "deep::dig", &["tools::deep::dig"]),
            (top, "build", &["tools::make"]),
            // Not declared at the top and not imported by name, so a glob may mean either.
            (top, "make", &["tools::make", "tests::make"]),
            (top, "dig", &["tools::deep::dig"]),
            (inside, "base", &["base"]),
            (inside, "super::base", &["base"]),
            (inside, "own", &["tests::own"]),
            (inside, "make", &["tests::make"]),
            (inside, "super::tools::make", &["tools::make"]),
            (inside, "tools::make", &["tools::make"]),
            (inside, "build", &["tools::make"]),
            // Made by a macro, as far as we can tell.
            ("async fn other(sb: Sandbox) {}", "base", &["base"]),
        ] {
            assert_eq!(meant(test, path), functions, "{path} beside {test}");
        }
    }

    #[test]
    fn other_files_are_not_guessed_at() {
        let top = "async fn top(sb: Sandbox) { 1; }";
        for path in
            ["far", "missing", "::base", "crate::base", "super::base", "common::base", "self::build::x", "top", "tools"]
        {
            assert!(meant(top, path).is_empty(), "{path}");
        }
        assert!(meant("async fn inside(sb: Sandbox) { 2; }", "far").is_empty());
    }

    #[test]
    fn imports_in_a_circle_end() {
        let source = Source::parse("use self::a as b; use self::b as a;", PathBuf::new()).unwrap();
        let test = syn::parse_quote!(
            async fn test(sb: Sandbox) {}
        );
        assert!(source.resolve(&syn::parse_quote!(a), &test).is_empty());
    }

    #[test]
    fn a_file_is_parsed_once_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.rs");
        fs::write(&file, "fn one() {}").unwrap();
        let first = Source::read(&file).unwrap();
        assert!(Rc::ptr_eq(&first, &Source::read(&file).unwrap()));
        fs::write(&file, "fn two() {}").unwrap();
        assert_eq!(Source::read(&file).unwrap().entries[0].names, ["two"]);
        fs::write(&file, "fn {").unwrap();
        assert!(Source::read(&file).is_none());
    }

    #[test]
    fn copies_are_all_found() {
        let text =
            "mod a { async fn t() {} async fn s() {} } mod b { async fn t() {} async fn s() {} } async fn s() {}";
        let source = Source::parse(text, PathBuf::new()).unwrap();
        let test = syn::parse_quote!(
            async fn t() {}
        );
        assert_eq!(source.find(&test).len(), 2);
        assert_eq!(source.resolve(&syn::parse_quote!(s), &test).len(), 2);
    }
}
