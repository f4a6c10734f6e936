//! A client and a server on machines of their own, to be copied: a service is installed once, and each test has it on a network that
//! nobody else is on.

use quicksand::{Network, Output, Sandbox, sandbox_setup, sandbox_test};

/// Answers a request, and says how many there have been.
const PROGRAM: &str = r#"#!/bin/sh
set -eu
# The request ends with an empty line; its lines end with a carriage return, too.
end=$(printf '\r')
while read -r line && [ "$line" != "$end" ]; do :; done

exec 9>> /var/lib/counter/visits
flock 9
echo "$REMOTE_ADDR" >&9
printf 'HTTP/1.0 200 OK\r\n\r\nvisitor %s\n' "$(wc -l < /var/lib/counter/visits)"
"#;
const SOCKET: &str = "[Socket]\nListenStream=0.0.0.0:8080\nAccept=yes\n\n[Install]\nWantedBy=sockets.target\n";
const SERVICE: &str = "[Service]\nExecStart=/usr/local/bin/counter\nStateDirectory=counter\nStandardInput=socket\nStandardOutput=socket\n";

/// A machine with the service.
#[sandbox_setup(image = "debian", save = "counter")]
async fn counter(sb: &Sandbox) -> quicksand::Result<()> {
    sb.write_file("/usr/local/bin/counter", PROGRAM).await?;
    sb.write_file("/etc/systemd/system/counter.socket", SOCKET).await?;
    sb.write_file("/etc/systemd/system/counter@.service", SERVICE).await?;
    sb.execute("chmod 755 /usr/local/bin/counter && systemctl enable --now counter.socket").await?.check()?;
    Ok(())
}

/// A server with the service, and a client without it, on a network of their own. `debian` knows nothing of the service.
async fn server_and_client(network: &Network) -> quicksand::Result<(Sandbox, Sandbox)> {
    let server = Sandbox::builder("counter").join(network, "counter");
    let client = Sandbox::builder("debian").join(network, "client");
    tokio::try_join!(server.start(), client.start())
}

async fn visit(from: &Sandbox) -> quicksand::Result<Output> {
    from.execute("curl --silent --show-error --max-time 20 http://counter:8080/").await
}

#[sandbox_test(save = "counter")]
async fn visitors_are_counted(stranger: Sandbox) -> quicksand::Result<()> {
    let network = Network::new();
    let (server, client) = server_and_client(&network).await?;
    for visitor in ["visitor 1\n", "visitor 2\n"] {
        let out = visit(&client).await?;
        assert_eq!(out.stdout, visitor, "{out}");
    }
    // The server saw who it was.
    let (_, address) = client.on_network(&network).expect("it has joined");
    let visits = server.execute("cat /var/lib/counter/visits").await?;
    assert_eq!(visits.stdout, format!("{address}\n").repeat(2));
    // The machine that the harness gave is on no network: to it the name means nothing.
    let out = visit(&stranger).await?;
    assert_eq!((out.exit_code, &*out.stderr), (6, "curl: (6) Could not resolve host: counter\n"));
    Ok(())
}

#[sandbox_test(save = "counter")]
async fn a_server_that_is_down_is_told_from_one_that_is_gone(_base: Sandbox) -> quicksand::Result<()> {
    let network = Network::new();
    let (server, client) = server_and_client(&network).await?;
    assert_eq!(visit(&client).await?.stdout, "visitor 1\n");

    server.execute("systemctl stop counter.socket").await?.check()?;
    let out = visit(&client).await?;
    assert_eq!(out.exit_code, 7, "the connection is refused: {out}");
    server.execute("systemctl start counter.socket").await?.check()?;
    assert_eq!(visit(&client).await?.stdout, "visitor 2\n", "it remembers");

    server.stop().await?;
    let out = visit(&client).await?;
    assert_eq!(out.exit_code, 6, "the name is gone with the machine: {out}");
    Ok(())
}
