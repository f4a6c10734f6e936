//! Compiles the server program and leaves it in `OUT_DIR` for the library to embed.

use quicksand_embed::Program;

fn main() {
    Program { name: "quicksand-mount", feature: "server", opt_level: "3", sources: &["src"] }.embed();
}
