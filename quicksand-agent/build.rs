//! Compiles the guest program and leaves it in `OUT_DIR` for the library to embed.

use quicksand_embed::Program;

fn main() {
    Program {
        name: "quicksand-agent",
        feature: "guest",
        opt_level: "s",
        sources: &["guest", "../quicksand-protocol/src"],
    }
    .embed();
}
