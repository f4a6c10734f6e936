//! Tests an installer that people pipe from the internet into a shell, to be copied: each test runs it on a clean Debian of its
//! own, as people do, and looks at what it changed there.
//!
//! A small server in the test takes the place of the internet, and the guest reaches that and nothing else.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use quicksand::{HOST_NAME, Output, Sandbox, assert_sandbox_snapshot, sandbox_test};

/// What the server has, by its path.
const FILES: [(&str, &str); 4] = [
    ("/install.sh", include_str!("curl_pipe_sh/install.sh")),
    ("/hello", include_str!("curl_pipe_sh/hello")),
    ("/hello.service", include_str!("curl_pipe_sh/hello.service")),
    ("/hello.timer", include_str!("curl_pipe_sh/hello.timer")),
];

#[sandbox_test(image = "debian")]
async fn changes_what_it_should_and_no_more(sb: Sandbox) -> quicksand::Result<()> {
    curl_pipe_sh(&sb, &FILES, "").await?.check()?;
    assert_sandbox_snapshot!(sb.changes().await?);
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn changes_nothing_when_it_is_run_again(sb: Sandbox) -> quicksand::Result<()> {
    curl_pipe_sh(&sb, &FILES, "").await?.check()?;
    let once = sb.changes().await?;
    curl_pipe_sh(&sb, &FILES, "").await?.check()?;
    assert_eq!(sb.changes().await?.to_string(), once.to_string());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn leaves_nothing_when_it_is_removed(sb: Sandbox) -> quicksand::Result<()> {
    curl_pipe_sh(&sb, &FILES, "").await?.check()?;
    curl_pipe_sh(&sb, &FILES, "--remove").await?.check()?;
    let changes = sb.changes().await?;
    assert!(changes.is_empty(), "{changes}");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn leaves_nothing_when_a_file_is_missing(sb: Sandbox) -> quicksand::Result<()> {
    let out = curl_pipe_sh(&sb, &FILES[..3], "").await?;
    assert_eq!((&*out.stdout, out.exit_code), ("", 22), "curl's code for an answer that is an error: {out}");
    let changes = sb.changes().await?;
    assert!(changes.is_empty(), "{changes}");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn does_nothing_when_the_script_arrives_cut_short(sb: Sandbox) -> quicksand::Result<()> {
    let script = FILES[0].1;
    let _ = curl_pipe_sh(&sb, &[("/install.sh", &script[..script.len() - 20])], "").await?;
    let changes = sb.changes().await?;
    assert!(changes.is_empty(), "{changes}");
    Ok(())
}

/// Runs the installer in the guest as people do, off a server that has these files.
async fn curl_pipe_sh(
    sb: &Sandbox,
    files: &[(&'static str, &'static str)],
    arguments: &str,
) -> quicksand::Result<Output> {
    let port = serve(files.to_vec());
    sb.allow_host_port(port).await?;
    let url = format!("http://{HOST_NAME}:{port}");
    let out = sb.execute(format!("curl -fsSL {url}/install.sh | HELLO_URL={url} sh -s -- {arguments}")).await?;
    sb.disallow_host_port(port).await?;
    Ok(out)
}

/// Serves files over HTTP for as long as this process runs. Returns the port.
fn serve(files: Vec<(&'static str, &'static str)>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that goes away is no fault of the server's.
            let _ = connection.and_then(|connection| answer(connection, &files));
        }
    });
    port
}

fn answer(mut connection: TcpStream, files: &[(&str, &str)]) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, content) = match files.iter().find(|(name, _)| *name == path) {
        Some((_, content)) => ("200 OK", *content),
        None => ("404 Not Found", ""),
    };
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}", content.len())
}
