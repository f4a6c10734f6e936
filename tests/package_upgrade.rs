//! The upgrade of a package, to be copied: the old version, with a configuration that somebody has changed and data of its own, is
//! kept as a save, and every test upgrades it on a clone of that.

use quicksand::{Output, Sandbox, facts, sandbox_setup, sandbox_test};

/// A version of the package: its files, whose modes `dpkg-deb` takes as they are, and what is run once they are there.
struct Version {
    number: &'static str,
    configuration: &'static str,
    program: &'static str,
    after: &'static str,
}

const OLD: Version = Version {
    number: "1.0",
    configuration: "GREETING=Hello\n",
    program: "#!/bin/sh\n. /etc/greeter.conf\necho \"$GREETING from greeter 1\"\n",
    after: "#!/bin/sh\nmkdir -p /var/lib/greeter\n",
};
/// It brings another configuration, and keeps its data in another file.
const NEW: Version = Version {
    number: "2.0",
    configuration: "GREETING=Hi\nCOLOUR=no\n",
    program: "#!/bin/sh\nCOLOUR=no\n. /etc/greeter.conf\necho \"$GREETING from greeter 2, colour: $COLOUR\"\n",
    after: "#!/bin/sh\nset -e\nmkdir -p /var/lib/greeter\nif [ \"$1\" = configure ] && dpkg --compare-versions \"$2\" lt-nl 2.0; then\n  \
            mv /var/lib/greeter/names /var/lib/greeter/names.v2\nfi\n",
};
/// What is removed with the package's configuration.
const AFTER_REMOVAL: &str = "#!/bin/sh\nif [ \"$1\" = purge ]; then rm -rf /var/lib/greeter; fi\n";

/// Builds a version in the guest, as `/root/greeter_NUMBER.deb`. Your own packages are files of the host, which `upload` copies.
async fn build(sb: &Sandbox, version: &Version) -> quicksand::Result<()> {
    let Version { number, configuration, program, after } = version;
    let tree = format!("/root/greeter_{number}");
    sb.execute(format!("mkdir -p {tree}/DEBIAN {tree}/etc {tree}/usr/bin")).await?.check()?;
    let control = format!(
        "Package: greeter\nVersion: {number}\nArchitecture: all\nMaintainer: Ann <ann@example.org>\nDescription: greets\n"
    );
    for (file, content) in [
        ("DEBIAN/control", control.as_str()),
        ("DEBIAN/conffiles", "/etc/greeter.conf\n"),
        ("DEBIAN/postinst", after),
        ("DEBIAN/postrm", AFTER_REMOVAL),
        ("etc/greeter.conf", configuration),
        ("usr/bin/greeter", program),
    ] {
        sb.write_file(format!("{tree}/{file}"), content).await?;
    }
    sb.execute(format!("chmod 755 {tree}/DEBIAN/post* {tree}/usr/bin/greeter && dpkg-deb --build {tree} {tree}.deb"))
        .await?
        .check()?;
    Ok(())
}

async fn install(sb: &Sandbox, version: &Version) -> quicksand::Result<Output> {
    // Nobody is asked: what was changed by hand is kept.
    sb.execute(format!("dpkg --install --force-confdef --force-confold /root/greeter_{}.deb", version.number)).await
}

/// A system on which the old version has been in use.
#[sandbox_setup(image = "debian", save = "greeter-1.0")]
async fn old_version(sb: &Sandbox) -> quicksand::Result<()> {
    build(sb, &OLD).await?;
    build(sb, &NEW).await?;
    install(sb, &OLD).await?.check()?;
    sb.write_file("/etc/greeter.conf", "GREETING='Good day'\n").await?;
    sb.write_file("/var/lib/greeter/names", "Ann\n").await
}

#[sandbox_test(save = "greeter-1.0")]
async fn keeps_what_was_configured(sb: Sandbox) -> quicksand::Result<()> {
    sb.package("greeter").await?.assert_version("1.0");

    install(&sb, &NEW).await?.check()?;

    sb.package("greeter").await?.assert_installed().assert_version("2.0");
    let (configuration, of_the_package) =
        sb.facts((facts::file("/etc/greeter.conf"), facts::file("/etc/greeter.conf.dpkg-dist"))).await?;
    configuration.assert_content("GREETING='Good day'\n").assert_mode(0o644).assert_owner("root");
    // What the new version would have is laid beside it.
    of_the_package.assert_content(NEW.configuration);
    assert_eq!(sb.execute("greeter").await?.stdout, "Good day from greeter 2, colour: no\n");
    Ok(())
}

#[sandbox_test(save = "greeter-1.0")]
async fn takes_its_data_along(sb: Sandbox) -> quicksand::Result<()> {
    install(&sb, &NEW).await?.check()?;
    let [old, new] = sb.facts(["/var/lib/greeter/names", "/var/lib/greeter/names.v2"].map(facts::file)).await?;
    old.assert_absent();
    new.assert_content("Ann\n");

    // Installing it again, as a repair does, harms nothing.
    install(&sb, &NEW).await?.check()?;
    sb.file("/var/lib/greeter/names.v2").await?.assert_content("Ann\n");
    Ok(())
}

#[sandbox_test(save = "greeter-1.0")]
async fn leaves_nothing_when_it_is_purged(sb: Sandbox) -> quicksand::Result<()> {
    install(&sb, &NEW).await?.check()?;
    sb.execute("dpkg --purge greeter").await?.check()?;
    sb.package("greeter").await?.assert_absent();
    let files = ["/etc/greeter.conf", "/etc/greeter.conf.dpkg-dist", "/usr/bin/greeter", "/var/lib/greeter"];
    for file in sb.facts(files.map(facts::file)).await? {
        file.assert_absent();
    }
    Ok(())
}
