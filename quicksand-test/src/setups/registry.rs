//! The setups of this program by the names of their saves, and the layers that a test's machine stands on.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    meta::{Base, MachineMeta, SetupMeta, Start, TestMeta, Variant, Work},
    prepare::package_dir,
};

/// A save, and how it is made from the one below it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The setup's name, for people.
    pub(super) name: &'static str,
    /// The name that the setup gives its save.
    pub(super) declared: &'static str,
    /// The name of the save on disk.
    pub(crate) save: String,
    /// The image that it is made from. `None` where it is made from the layer below.
    pub(super) image: Option<&'static str>,
    /// What is done to the machine. `None` where it is saved as it starts.
    pub(super) work: Option<Work>,
    pub(super) inputs: &'static [&'static str],
    /// The package that the inputs are in.
    pub(super) package: PathBuf,
    pub(super) max_age: Option<Duration>,
    pub(super) machine: MachineMeta,
    pub(super) timeout: Option<Duration>,
}

/// Why there is no telling how a save is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error(
        "find the save {save:?}: no setup makes it; {known}; write #[sandbox_setup(.., save = {save:?})] in this test program, or \
         `image` beside `save`"
    )]
    Unknown { save: String, known: Known },
    #[error("find the save {save:?}: two setups make it, {one} and {other}; give one of them another name")]
    Twice { save: String, one: &'static str, other: &'static str },
    #[error("make the save {save:?}: it builds on itself, by way of {}", through.join(", "))]
    Circle { save: String, through: Vec<String> },
    #[error("find the save {save:?} of the image {image:?}: the setup {setup} makes it of {}", images.join(", "))]
    OtherImage { save: String, image: String, setup: &'static str, images: Vec<String> },
    #[error(
        "choose the save {save:?}: the setup {setup} makes one of each of {}; name them in `images`, or one of them in `image`",
        images.join(", ")
    )]
    WhichImage { save: String, setup: &'static str, images: Vec<String> },
    #[error(
        "make the save {save:?}: the test says how, and so does the setup {setup}; leave it to the one, or take another name"
    )]
    Both { save: String, setup: &'static str },
    #[error("start from the image {image:?}: it is the save of the setup {setup}; write `save = {image:?}`")]
    ImageIsSave { image: String, setup: &'static str },
}

/// The saves that setups make, as part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known(Vec<String>);

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            [] => f.write_str("this test program has no setups"),
            names => write!(f, "the setups of this test program make {}", names.join(", ")),
        }
    }
}

/// The layers that the test's machine stands on, from the bottom up. None where it starts from an image.
///
/// # Errors
///
/// [`Unresolved`].
pub(crate) fn layers(test: &TestMeta) -> Result<Vec<Layer>, Unresolved> {
    Registry::new(inventory::iter::<SetupMeta>.into_iter())?.layers(test)
}

/// The image at the bottom of a test's machine.
///
/// # Errors
///
/// [`Unresolved`].
pub(crate) fn image(test: &TestMeta) -> Result<&'static str, Unresolved> {
    let bottom = layers(test)?.first().and_then(|layer| layer.image);
    Ok(match test.start {
        Start::Image(variant) => variant.image,
        Start::Save { name, .. } => bottom.unwrap_or(name),
        Start::Own(setup) => bottom.unwrap_or(setup.save),
    })
}

#[derive(Debug)]
struct Registry(BTreeMap<&'static str, &'static SetupMeta>);

impl Registry {
    fn new(setups: impl Iterator<Item = &'static SetupMeta>) -> Result<Registry, Unresolved> {
        let mut registry = BTreeMap::new();
        for setup in setups {
            if let Some(other) = registry.insert(setup.save, setup) {
                // In the order of their names: that of the registration is the linker's.
                let mut names = [other.name, setup.name];
                names.sort_unstable();
                let [one, other] = names;
                return Err(Unresolved::Twice { save: setup.save.to_owned(), one, other });
            }
        }
        Ok(Registry(registry))
    }

    fn layers(&self, test: &TestMeta) -> Result<Vec<Layer>, Unresolved> {
        match test.start {
            Start::Image(Variant { image, .. }) => self.check_image(image).map(|()| Vec::new()),
            Start::Save { name, image: Some(variant) } if !self.0.contains_key(name) => {
                self.check_image(variant.image)?;
                Ok(vec![Layer::of_image(name, variant, test)])
            }
            Start::Save { name, image } => self.registered(name, image.map(|variant| variant.image), test),
            Start::Own(setup) => {
                if let Some(other) = self.0.get(setup.save) {
                    return Err(Unresolved::Both { save: setup.save.to_owned(), setup: other.name });
                }
                let (mut layers, image) = match setup.base {
                    Base::Save(below) => (self.registered(below, None, test)?, None),
                    Base::Image(variant) => (Vec::new(), Some(variant)),
                    Base::Images(variants) => (Vec::new(), variants.first().copied()),
                };
                if let Some(variant) = image {
                    self.check_image(variant.image)?;
                }
                let suffix = image.and_then(|variant| variant.suffix);
                layers.push(Layer::of(&setup, image.map(|variant| variant.image), suffix, test));
                Ok(layers)
            }
        }
    }

    /// A save of a setup is brought up to date only where it is asked for as one.
    fn check_image(&self, image: &str) -> Result<(), Unresolved> {
        match self.0.get(image) {
            Some(setup) => Err(Unresolved::ImageIsSave { image: image.to_owned(), setup: setup.name }),
            None => Ok(()),
        }
    }

    /// The layers of a save that a setup makes, of the image that is meant where it makes several.
    fn registered(
        &self,
        save: &'static str,
        wanted: Option<&'static str>,
        test: &TestMeta,
    ) -> Result<Vec<Layer>, Unresolved> {
        let mut setups: Vec<&SetupMeta> = Vec::new();
        let mut next = save;
        let variants = loop {
            let Some(setup) = self.0.get(next) else {
                let known = Known(self.0.keys().map(|name| format!("{name:?}")).collect());
                return Err(Unresolved::Unknown { save: next.to_owned(), known });
            };
            if setups.iter().any(|seen| seen.save == next) {
                let through = setups.iter().map(|setup| format!("{:?}", setup.save)).collect();
                return Err(Unresolved::Circle { save: next.to_owned(), through });
            }
            setups.push(setup);
            match &setup.base {
                Base::Save(below) => next = below,
                Base::Image(variant) => break Cow::Owned(vec![*variant]),
                Base::Images(variants) => break Cow::Borrowed(*variants),
            }
        };
        let root = setups.last().map_or("", |setup| setup.name);
        let names = || variants.iter().map(|variant| format!("{:?}", variant.image)).collect();
        let chosen = match (wanted, &*variants) {
            (None, [only]) => only,
            (None, _) => {
                return Err(Unresolved::WhichImage { save: save.to_owned(), setup: root, images: names() });
            }
            (Some(image), _) => variants.iter().find(|variant| variant.image == image).ok_or_else(|| {
                Unresolved::OtherImage { save: save.to_owned(), image: image.to_owned(), setup: root, images: names() }
            })?,
        };
        let bottom = setups.len() - 1;
        let layer = |(at, setup): (usize, &&SetupMeta)| {
            Layer::of(setup, (at == bottom).then_some(chosen.image), chosen.suffix, test)
        };
        Ok(setups.iter().enumerate().map(layer).rev().collect())
    }
}

impl Layer {
    fn of(setup: &SetupMeta, image: Option<&'static str>, suffix: Option<&'static str>, test: &TestMeta) -> Layer {
        let SetupMeta { name, manifest_dir, save: declared, work, inputs, max_age, machine, timeout, .. } = *setup;
        let (save, work) = (save_name(declared, suffix), Some(work));
        // Setups may be in another package than the test.
        let package = if manifest_dir == test.manifest_dir { package_dir(manifest_dir) } else { manifest_dir.into() };
        Layer { name, declared, save, image, work, inputs, package, max_age, machine, timeout }
    }

    /// A machine that is saved as its image starts it.
    fn of_image(declared: &'static str, variant: Variant, test: &TestMeta) -> Layer {
        Layer {
            name: test.name,
            declared,
            save: save_name(declared, variant.suffix),
            image: Some(variant.image),
            work: None,
            inputs: &[],
            package: package_dir(test.manifest_dir),
            max_age: None,
            machine: test.machine,
            timeout: None,
        }
    }
}

fn save_name(declared: &str, suffix: Option<&str>) -> String {
    match suffix {
        Some(suffix) => format!("{declared}.{suffix}"),
        None => declared.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: Variant = Variant::only("debian");

    const fn setup(name: &'static str, save: &'static str, base: Base) -> SetupMeta {
        SetupMeta {
            name,
            manifest_dir: "/package",
            save,
            base,
            work: Work::Commands(&["true"]),
            inputs: &[],
            max_age: None,
            machine: MachineMeta {
                memory: None,
                cpus: None,
                network: None,
                accel: None,
                disk_size: None,
                kernel: None,
                display: None,
            },
            timeout: None,
        }
    }

    static SETUPS: [SetupMeta; 7] = [
        setup("a::base", "base", Base::Image(DEBIAN)),
        setup("a::db", "with-db", Base::Save("base")),
        setup("a::data", "with-data", Base::Save("with-db")),
        setup(
            "a::many",
            "many",
            Base::Images(&[
                Variant { image: "debian", suffix: Some("debian") },
                Variant { image: "alpine:3", suffix: Some("alpine_3") },
            ]),
        ),
        setup("a::more", "more", Base::Save("many")),
        setup("a::one", "one", Base::Save("two")),
        setup("a::two", "two", Base::Save("one")),
    ];

    fn resolve(start: Start) -> Result<Vec<(String, Option<&'static str>)>, String> {
        let test = TestMeta::new("a::test", "/package", start);
        let layers = Registry::new(SETUPS.iter()).unwrap().layers(&test).map_err(|error| error.to_string())?;
        Ok(layers.into_iter().map(|layer| (layer.save, layer.image)).collect())
    }

    fn save(name: &'static str, image: Option<&'static str>) -> Result<Vec<(String, Option<&'static str>)>, String> {
        resolve(Start::Save { name, image: image.map(Variant::only) })
    }

    fn layer(save: &str, image: Option<&'static str>) -> (String, Option<&'static str>) {
        (save.to_owned(), image)
    }

    #[test]
    fn layers_are_found_from_the_bottom_up() {
        let all = [layer("base", Some("debian")), layer("with-db", None), layer("with-data", None)];
        assert_eq!(save("with-data", None).unwrap(), all);
        assert_eq!(save("with-data", Some("debian")).unwrap(), all);
        assert_eq!(save("base", None).unwrap(), all[..1]);
        let own = Start::Own(setup("a::test", "own", Base::Save("with-db")));
        assert_eq!(resolve(own).unwrap(), [all[0].clone(), all[1].clone(), layer("own", None)]);
        assert_eq!(resolve(Start::Image(DEBIAN)).unwrap(), []);
    }

    #[test]
    fn one_of_several_images_is_chosen() {
        let expected = [layer("many.alpine_3", Some("alpine:3")), layer("more.alpine_3", None)];
        assert_eq!(save("more", Some("alpine:3")).unwrap(), expected);
        let error = save("more", None).unwrap_err();
        assert!(
            error.contains(r#"a::many makes one of each of "debian", "alpine:3"; name them in `images`"#),
            "{error}"
        );
        let error = save("more", Some("ubuntu")).unwrap_err();
        assert_eq!(
            error,
            r#"find the save "more" of the image "ubuntu": the setup a::many makes it of "debian", "alpine:3""#
        );
        assert!(save("base", Some("alpine:3")).unwrap_err().ends_with(r#"the setup a::base makes it of "debian""#));
    }

    #[test]
    fn without_a_setup_an_image_is_saved_as_it_starts() {
        assert_eq!(save("plain", Some("debian")).unwrap(), [layer("plain", Some("debian"))]);
        let several = Variant { image: "debian", suffix: Some("debian") };
        let start = Start::Save { name: "plain", image: Some(several) };
        assert_eq!(resolve(start).unwrap(), [layer("plain.debian", Some("debian"))]);
        let start = Start::Own(setup("a::test", "own", Base::Image(several)));
        assert_eq!(resolve(start).unwrap(), [layer("own.debian", Some("debian"))]);
    }

    #[test]
    fn what_can_not_be_is_explained() {
        let error = save("with-bd", None).unwrap_err();
        assert!(
            error.starts_with(r#"find the save "with-bd": no setup makes it; the setups of this test program make "#)
        );
        assert!(error.contains(r#""base", "many", "more", "#), "{error}");
        let error = save("one", None).unwrap_err();
        assert_eq!(error, r#"make the save "one": it builds on itself, by way of "one", "two""#);
        let error = resolve(Start::Own(setup("a::test", "base", Base::Image(DEBIAN)))).unwrap_err();
        assert!(error.contains("the test says how, and so does the setup a::base"), "{error}");
        let error = resolve(Start::Image(Variant::only("base"))).unwrap_err();
        assert!(error.ends_with(r#"it is the save of the setup a::base; write `save = "base"`"#), "{error}");

        static TWICE: [SetupMeta; 2] =
            [setup("b", "base", Base::Image(DEBIAN)), setup("a", "base", Base::Image(DEBIAN))];
        let error = Registry::new(TWICE.iter()).unwrap_err().to_string();
        assert_eq!(error, r#"find the save "base": two setups make it, a and b; give one of them another name"#);
        let none = Unresolved::Unknown { save: "x".into(), known: Known(vec![]) }.to_string();
        assert!(none.contains("this test program has no setups"), "{none}");
    }
}
