//! What a guest reaches in each network mode, and that one warm state serves all of them.

use std::{io::Write, net::TcpListener};

use quicksand::{Sandbox, StartKind, sandbox_test};

/// A server on the host's loopback that greets whoever connects.
fn greeter() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from the host\n");
        }
    });
    port
}

#[sandbox_test(image = "debian", network = "none")]
async fn none_has_no_interface(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("ls /sys/class/net").await?.stdout, "lo\n");
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    Ok(())
}

#[sandbox_test(image = "debian", network = "mounts-only")]
async fn mounts_only_reaches_nothing(sb: Sandbox) -> quicksand::Result<()> {
    let port = greeter();
    let output = sb.execute(format!("curl -sS --max-time 3 http://10.0.2.2:{port}/")).await?;
    assert!(!output.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(sb.execute("ip -4 route show default").await?.stdout, "");
    Ok(())
}

/// The user network's gateway is the host: what answers there shows that packets leave the guest and come back.
#[sandbox_test(image = "debian", network = "full")]
async fn full_reaches_out(sb: Sandbox) -> quicksand::Result<()> {
    let port = greeter();
    let output = sb.execute(format!("curl -sS --max-time 20 http://10.0.2.2:{port}/")).await?;
    assert_eq!((&*output.stdout, &*output.stderr), ("hello from the host\n", ""));
    assert_eq!(sb.execute("cat /etc/resolv.conf").await?.stdout, "nameserver 10.0.2.3\n");
    Ok(())
}
