//! What `quicksand.toml` says of an image that is built here, and why none may come of it.

use std::{collections::BTreeMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageError;

/// One image's recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "`mirror` or an image's recipe: from, copy, run, env")]
pub(crate) struct Recipe {
    /// The image that it starts from: a name, also of one with a recipe, a reference, or a file relative to the file of recipes.
    pub(crate) from: String,
    /// Files and directories, relative to the file of recipes, and where in the guest they go. They are there before any command runs.
    #[serde(default)]
    pub(crate) copy: Vec<(String, String)>,
    /// Lines of shell, run as root, with the internet in reach.
    #[serde(default)]
    pub(crate) run: Vec<String>,
    /// Variables of these commands, and of all that run in machines of this image.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// Why a recipe makes no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The recipe can't be followed.
    #[error("make the image {name:?} by its recipe: {why}")]
    Malformed {
        /// The image.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Recipes that start from each other.
    #[error("make the image {name:?}: its recipe starts from itself: {}", chain.join(" from "))]
    Cycle {
        /// The image.
        name: String,
        /// The recipes from the first to its next appearance.
        chain: Vec<String>,
    },
    /// What it starts from can't be had.
    #[error("make the image {name:?}: its recipe is from {from:?}")]
    From {
        /// The image.
        name: String,
        /// What it starts from.
        from: String,
        /// What came of it.
        source: Box<ImageError>,
    },
    /// What is to be copied can't be read.
    #[error("copy {} into the image {name:?}", path.display())]
    Copy {
        /// The image.
        name: String,
        /// The file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// A command failed.
    #[error("make the image {name:?}: {command:?} ended with {exit_code}; it said last:\n{said}")]
    Command {
        /// The image.
        name: String,
        /// The command, as the recipe has it.
        command: String,
        /// How it ended.
        exit_code: i32,
        /// The last lines of its output and of its errors.
        said: String,
    },
    /// The machine in which it is built failed.
    #[error("build the image {name:?}")]
    Machine {
        /// The image.
        name: String,
        /// What came of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
