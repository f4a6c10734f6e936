//! Why a fact could not be had.

/// Why a fact could not be had. That a thing is not there is a fact, and no error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A name is unfit for what it is to name.
    #[error("look at the {what} {name:?}: {why}")]
    BadName {
        /// What it is to name.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are too many questions.
    #[error("look at {0} things at once: 256 go; ask in turns")]
    TooMany(usize),
    /// The guest could not look at it.
    #[error("look at {what}: the guest says: {said}")]
    Failed {
        /// At what.
        what: String,
        /// What the guest said.
        said: String,
    },
    /// The guest's answer is none.
    #[error("look at the guest: it answered {0}")]
    Unexpected(String),
}
