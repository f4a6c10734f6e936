//! A project of which only the tests matter.
