//! Images that a project describes in `quicksand.toml`, built in machines.

#[allow(dead_code, reason = "of what makes container images this needs a part")]
#[path = "../oci/build.rs"]
mod build;

use std::{error::Error, fs, path::Path, process::Command};

use build::{Layer, Packing};
use quicksand::Sandbox;

/// What this program does in a process of its own, in the project's directory.
#[tokio::test]
#[ignore = "run by the other tests in a directory with recipes"]
async fn child() {
    let (source, line) = (std::env::var("RECIPES_SOURCE").unwrap(), std::env::var("RECIPES_LINE").unwrap());
    match Sandbox::builder(&source).start().await {
        Ok(sb) => println!("<{}>", sb.execute(line).await.unwrap().stdout),
        Err(error) => {
            let mut text = error.to_string();
            let mut cause: &dyn Error = &error;
            while let Some(next) = cause.source() {
                text = format!("{text}: {next}");
                cause = next;
            }
            println!("<{text}>");
        }
    }
}

/// What a shell's line prints in a machine of that image, or why there is none.
fn start(project: &Path, source: &str, line: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .current_dir(project)
        .env("RECIPES_SOURCE", source)
        .env("RECIPES_LINE", line)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>'));
    said.unwrap_or_else(|| panic!("{output:?}")).0.to_owned()
}

#[test]
fn recipes_are_built_on_each_other_once() {
    let project = tempfile::tempdir().unwrap();
    let path = |name: &str| project.path().join(name);
    fs::write(path("base.tar"), Packing::Plain.pack(&Layer::busybox().into_archive())).unwrap();
    fs::create_dir(path("tools")).unwrap();
    fs::write(path("tools/greeting"), "hello").unwrap();
    let recipes = r#"
[images.tools]
from = "./base.tar"
copy = [["tools", "/opt/tools"]]
run = ["cat $TOOLS/greeting > /etc/motd", "date +%s%N > /etc/built 2>&1; uname -n >> /etc/built"]
env = { TOOLS = "/opt/tools", LEVEL = "1" }

[images.more]
from = "tools"
run = ["echo $LEVEL $TOOLS >> /etc/motd"]
env = { LEVEL = "2" }

[images.broken]
from = "tools"
run = ["true", "echo to the output; echo to the errors >&2; exit 7", "touch /never"]
"#;
    fs::write(path("quicksand.toml"), recipes).unwrap();
    let line = "cat /etc/motd; echo $LEVEL $TOOLS";
    assert_eq!(start(project.path(), "more", line), "hello2 /opt/tools\n2 /opt/tools\n");
    assert_eq!(start(project.path(), "tools", line), "hello1 /opt/tools\n");

    // From a directory below, too; a failing command is shown with what it printed.
    fs::create_dir(path("tests")).unwrap();
    let text = start(&path("tests"), "broken", "true");
    assert!(
        text.contains("make the image \"broken\": \"echo to the output;") && text.contains("ended with 7"),
        "{text}"
    );
    assert!(text.contains("it said last:\nto the output\nto the errors"), "{text}");

    // What is copied changed: it is built anew, and what is built on it as well.
    fs::write(path("tools/greeting"), "good day ").unwrap();
    assert_eq!(start(project.path(), "more", line), "good day 2 /opt/tools\n2 /opt/tools\n");

    fs::write(path("quicksand.toml"), recipes.replace("\"./base.tar\"", "\"nowhere\"")).unwrap();
    let text = start(project.path(), "tools", line);
    assert!(text.contains("make the image \"tools\": its recipe is from \"nowhere\": "), "{text}");
    assert!(text.contains("these can be made: broken, more, tools, alpine"), "{text}");
    fs::write(path("quicksand.toml"), recipes.replace("\"./base.tar\"", "\"more\"")).unwrap();
    let text = start(project.path(), "more", line);
    assert!(text.contains("its recipe starts from itself: more from tools from more"), "{text}");
    fs::write(path("quicksand.toml"), recipes.replace("copy =", "copies =")).unwrap();
    let text = start(project.path(), "more", line);
    assert!(text.contains("unknown field `copies`, expected one of `from`, `copy`, `run`, `env`"), "{text}");
}
