//! Servers that the host, or a user in the guest, is a client of.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use quicksand::{PortForward, Sandbox, facts, sandbox_test};

use super::{PATIENCE, apt, reboot, remove_packages, run, run_as, until};

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn nginx_openssh_and_redis(sb: Sandbox) {
    apt(&sb, "install --no-install-recommends nginx-light openssh-server openssh-client redis-server").await;
    let services = ["nginx", "ssh", "redis-server"].map(facts::service);
    for service in sb.facts(services).await.unwrap() {
        service.assert_running().assert_enabled();
    }
    sb.create_user("ann").await.unwrap();
    let key = "mkdir -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys";
    run_as(&sb, "ann", key).await;
    run(&sb, "echo hello from nginx > /var/www/html/hello").await;
    assert_eq!(run(&sb, "redis-cli set who ann").await, "OK\n");
    serve(&sb).await;
    let twin = sb.fork().await.unwrap();
    serve(&twin).await;
    drop(twin);

    reboot(&sb).await;
    until(&sb, "redis-cli ping | grep PONG").await;
    sb.wait_for_port(22).timeout(PATIENCE).await.unwrap();
    sb.wait_for_port(80).timeout(PATIENCE).await.unwrap();
    serve(&sb).await;

    run(&sb, "userdel --remove ann 2>&1 && rm /var/www/html/hello").await;
    // The group of ssh-agent, and the site, which may be somebody's own by now.
    let stays = ["/etc/group", "/etc/gshadow", "/var/www", "/var/www/html", "/var/www/html/index.nginx-debian.html"];
    assert_eq!(remove_packages(&sb).await, stays);
}

/// That all three do what they are for.
async fn serve(sb: &Sandbox) {
    assert_eq!(run(sb, "redis-cli get who").await, "ann\n");
    let login =
        "ssh -o StrictHostKeyChecking=accept-new ann@127.0.0.1 'id -un; systemctl is-active ssh; exit 3'; echo $?";
    assert_eq!(run_as(sb, "ann", login).await, "ann\nactive\n3\n");
    let forward = sb.forward_port(PortForward::new(0, 80)).await.unwrap();
    let mut stream = TcpStream::connect(forward.host_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    sb.unforward_port(forward);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nServer: nginx"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello from nginx\n"), "{answer}");
}
