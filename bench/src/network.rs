//! Connections to a server in a guest, and starts of clones that have a network.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use quicksand::{Child, Network, NetworkMode, PortForward, Sandbox};

use crate::{
    IMAGE, Result,
    clones::expect_warm,
    options::Options,
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 4] = ["forward_connect_s", "forward_mb_s", "full_ready_s", "private_ready_s"];

const CONNECTIONS: usize = 50;
/// In bytes.
const SIZE: usize = 100_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in the guest: to `1` it answers one byte, to anything else as many as are measured.
const SERVER: &str = r#"
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:7000", Listen => 5) or die;
    my $block = "x" x 65536;
    while (my $client = $listener->accept) {
        $client->sysread(my $asked, 1);
        my $left = $asked eq "1" ? 1 : shift @ARGV;
        while ($left > 0) { $left -= $client->syswrite($block, $left < 65536 ? $left : 65536) // die }
    }"#;

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    if options.wants(&KEYS[..2]) {
        connections(results).await?;
    }
    if options.wants(&KEYS[2..]) {
        starts(options, results).await?;
    }
    Ok(())
}

async fn connections(results: &mut Results) -> Result<()> {
    let sandbox = Sandbox::builder(IMAGE).port_forward(PortForward::new(0, 7000)).start().await?;
    expect_warm(&sandbox)?;
    let _server: Child =
        sandbox.command("perl").args(["-MIO::Socket::INET", "-e", SERVER, &SIZE.to_string()]).spawn().await?;
    sandbox.execute("until ss -ltnH | grep -qF :7000; do sleep 0.05; done").await?.check()?;
    let address = sandbox.port_forwards().first().ok_or("the port is not forwarded")?.host_address();

    let mut connects = Vec::new();
    for _ in 0..CONNECTIONS {
        let begun = Instant::now();
        ask(address, b"1", 1).await?;
        connects.push(begun.elapsed().as_secs_f64());
    }
    results.add("forward_connect_s", &connects);
    let begun = Instant::now();
    ask(address, b"a", SIZE).await?;
    results.add("forward_mb_s", &[SIZE as f64 / 1e6 / begun.elapsed().as_secs_f64()]);
    sandbox.stop().await?;
    Ok(())
}

/// Asks the server and takes all that it answers.
async fn ask(address: SocketAddr, question: &'static [u8], expected: usize) -> Result<()> {
    let work = move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question)?;
        let (mut buffer, mut got) = (vec![0; 256 * 1024], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 if got == expected => return Ok(()),
                0 => return Err(format!("the guest's server sent {got} bytes and not {expected}").into()),
                len => got += len,
            }
        }
    };
    tokio::task::spawn_blocking(work).await?
}

/// Starts of clones with a way out and on a private network, in turns with such that have neither.
async fn starts(options: &Options, results: &mut Results) -> Result<()> {
    let (mut plain, mut full, mut private) = (Vec::new(), Vec::new(), Vec::new());
    let network = Network::new();
    for _ in 0..options.runs {
        let builders = [
            (Sandbox::builder(IMAGE), &mut plain),
            (Sandbox::builder(IMAGE).network_mode(NetworkMode::Full), &mut full),
            (Sandbox::builder(IMAGE).join(&network, "member"), &mut private),
        ];
        for (builder, times) in builders {
            let begun = Instant::now();
            let sandbox = builder.start().await?;
            times.push(begun.elapsed().as_secs_f64());
            expect_warm(&sandbox)?;
            sandbox.stop().await?;
        }
    }
    results.add("full_ready_s", &full);
    results.add("private_ready_s", &private);
    let more = |times: &[f64]| {
        let differences: Vec<f64> = times.iter().zip(&plain).map(|(with, without)| with - without).collect();
        1000.0 * median(&differences).unwrap_or_default()
    };
    results.note(format!(
        "beside a clone without either, the network full costs {:.1} ms of a start and a private network {:.1} ms, as the \
         medians of runs in turns",
        more(&full),
        more(&private)
    ));
    Ok(())
}
