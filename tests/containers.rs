//! Container engines in a sandbox, and the kernel that they need there: here the one that is lent to an image without any.

#[path = "foreign_guests/disks.rs"]
mod disks;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use quicksand::{NetworkMode, PortForward, Sandbox, SandboxBuilder};

const PACKAGES: &str = "systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,kmod,iproute2,procps,curl,ca-certificates,\
                        iptables,nftables,wireguard-tools,docker.io,apparmor,podman,uidmap,slirp4netns,fuse-overlayfs,busybox-static";
/// An image of a container, made of nothing but busybox.
const PACK: &str = r#"rm -f "$1/etc/resolv.conf" "$1/etc/hosts"
echo engines >"$1/etc/hostname"
box=$(mktemp -d)
mkdir "$box/bin"
cp "$1/bin/busybox" "$box/bin/busybox"
ln -s busybox "$box/bin/sh"
tar -C "$box" --owner=0 --group=0 -cf "$1/srv/box.tar" bin
chmod 644 "$1/srv/box.tar"
rm -r "$box""#;
/// What a server in a container does: it counts its starts in a volume, and serves that.
const SERVE: &str = "echo start >>/data/starts; exec busybox httpd -f -p 80 -h /data";
/// Fetches a file of the mirror that the guest's packages are from, out of a container.
const OUT: &str = r#"url=$(sed -nE 's|^deb (\[.*\] )?http://([^ ]+) .*|\2|p' /etc/apt/sources.list | head -n1); host=${url%%/*}
address=$(getent ahostsv4 "$host" | head -n1 | cut -d' ' -f1)
for try in 1 2 3 4 5; do
    docker run --rm box busybox timeout 60 busybox wget -qO- --header "Host: $host" "http://$address/${url#*/}/dists/bookworm/Release" | head -n1 | grep . && exit
done
exit 1"#;
/// A system with an engine under software emulation, on a busy host.
const PATIENCE: Duration = Duration::from_secs(600);

/// The root file system of a Debian with engines and without a kernel.
fn engines() -> SandboxBuilder {
    let root: PathBuf = disks::once("engines.tar", |path| disks::debian(path, PACKAGES, PACK));
    Sandbox::builder(disks::text(&root)).memory("1G").boot_timeout(PATIENCE)
}

/// What a line of shell prints, which must end well.
async fn run_as(sb: &Sandbox, user: &str, line: &str) -> String {
    let output =
        sb.command("sh").args(["-c", line]).user(user).timeout(PATIENCE).output().await.unwrap().check().unwrap();
    output.stdout
}

async fn run(sb: &Sandbox, line: &str) -> String {
    run_as(sb, "root", line).await
}

/// What a server behind a port of the guest's says to this host.
async fn fetch(sb: &Sandbox, port: u16) -> String {
    let forward = sb.forward_port(PortForward::new(0, port)).await.unwrap();
    let mut stream = TcpStream::connect(forward.host_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE / 5)).unwrap();
    stream.write_all(b"GET /starts HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    sb.unforward_port(forward);
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer)
}

#[tokio::test]
async fn a_lent_kernel_has_what_firewalls_tunnels_and_containers_need() {
    let sb = engines().start().await.unwrap();
    assert_eq!(run(&sb, "systemctl is-system-running").await, "running\n");
    run(&sb, "modprobe -a overlay br_netfilter bridge veth dummy wireguard nf_tables iptable_nat ip_vs tun nbd").await;
    // These are loaded as they are asked for.
    let kinds = "for kind in bridge dummy wireguard 'veth peer name v1' vxlan\\ id\\ 7\\ dstport\\ 4789; do
            ip link add k0 type $kind && ip link del k0 || exit
        done
        ip link add d0 type dummy && ip link add m0 link d0 type macvlan && ip link add i0 link d0 type ipvlan 2>/dev/null;
        ip netns add inside && ip link add v0 type veth peer name v1 netns inside && ip link add b0 type bridge &&
        ip link set v0 master b0 && ip addr add 10.9.0.1/24 dev b0 && ip link set v0 up && ip link set b0 up &&
        ip -n inside addr add 10.9.0.2/24 dev v1 && ip -n inside link set v1 up && ip netns exec inside ping -c1 -W60 10.9.0.1";
    run(&sb, &kinds.replace("ping", "busybox ping")).await;
    let wireguard = "ip link add wg0 type wireguard && wg genkey >/root/key && wg set wg0 private-key /root/key listen-port 5555 && wg show wg0 listen-port";
    assert_eq!(run(&sb, wireguard).await, "5555\n");
    let rules = "nft add table ip t && nft 'add chain ip t c { type nat hook postrouting priority 100; }' &&
        nft add rule ip t c ip saddr 10.9.0.0/24 masquerade && nft list tables &&
        iptables-legacy -t nat -A POSTROUTING -s 10.9.0.0/24 -j MASQUERADE && iptables-legacy -t nat -S POSTROUTING | tail -n1 &&
        iptables -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment mine -j ACCEPT";
    let rules = run(&sb, rules).await;
    assert!(rules.contains("table ip t\n") && rules.ends_with("-s 10.9.0.0/24 -j MASQUERADE\n"), "{rules}");
    let overlay =
        "cd /root && mkdir -p a b w m && echo lower >a/f && mount -t overlay -o lowerdir=a,upperdir=b,workdir=w o m &&
        echo upper >m/f && cat a/f b/f";
    assert_eq!(run(&sb, overlay).await, "lower\nupper\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_runs_and_its_containers_go_on_in_clones_and_after_a_reboot() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = engines().saves_dir(saves.path()).network_mode(NetworkMode::Full).start().await.unwrap();
    run(&sb, "docker import /srv/box.tar box").await;
    let line = format!(
        "docker run --detach --name web --restart always --stop-signal KILL --publish 8080:80 --volume data:/data \
         --memory 64m --pids-limit 50 box busybox sh -c '{SERVE}'"
    );
    run(&sb, &line).await;
    let get = "curl -fsS --retry 20 --retry-connrefused --retry-all-errors --max-time 60 http://127.0.0.1:8080/starts";
    assert_eq!(run(&sb, get).await, "start\n");
    assert_eq!(fetch(&sb, 8080).await, "start\n");
    // From a container to another one by the address of the host's bridge, with limits of its own and a directory of the guest's.
    let other = "docker run --rm --volume /srv:/mine:ro --tmpfs /t box busybox sh -c \
                 'busybox wget -qO- http://172.17.0.1:8080/starts; busybox ls /mine'";
    assert_eq!(run(&sb, other).await, "start\nbox.tar\n");
    let limits = "docker exec web busybox cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max";
    assert_eq!(run(&sb, limits).await, "50\n67108864\n");
    assert_eq!(run(&sb, OUT).await, "Origin: Debian\n");
    sb.save("serving").await.unwrap();
    drop(sb);

    // It goes on in both: neither was started anew. What one does is nothing to the other.
    let clone = || Sandbox::builder("serving").saves_dir(saves.path()).start();
    let (one, other) = (clone().await.unwrap(), clone().await.unwrap());
    for sb in [&one, &other] {
        assert_eq!(fetch(sb, 8080).await, "start\n");
        assert_eq!(run(sb, "docker exec web busybox wc -l /data/starts").await, "1 /data/starts\n");
    }
    run(&one, "docker rm --force web && docker volume rm data").await;
    assert_eq!(fetch(&other, 8080).await, "start\n");
    drop(one);
    other.reboot().await.unwrap();
    let started = other.wait_until_succeeds(get).timeout(PATIENCE).await.unwrap();
    assert_eq!(started.stdout, "start\nstart\n");
    assert_eq!(fetch(&other, 8080).await, "start\nstart\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_runs_for_root_and_for_a_user() {
    let sb = engines().start().await.unwrap();
    sb.create_user("ann").await.unwrap();
    run(&sb, "loginctl enable-linger ann").await;
    sb.wait_for_unit("user@1000.service").timeout(PATIENCE).await.unwrap();
    for (user, port) in [("root", 8081), ("ann", 8082)] {
        run_as(&sb, user, "podman import /srv/box.tar box").await;
        let line = format!(
            "podman run --detach --name web --publish {port}:80 --volume data:/data --pids-limit 50 box busybox sh -c '{SERVE}'"
        );
        run_as(&sb, user, &line).await;
        let get = format!("curl -fsS --retry 20 --retry-connrefused --retry-all-errors http://127.0.0.1:{port}/starts");
        assert_eq!(run_as(&sb, user, &get).await, "start\n", "{user}");
        assert_eq!(fetch(&sb, port).await, "start\n", "{user}");
        assert_eq!(run_as(&sb, user, "podman exec web busybox cat /sys/fs/cgroup/pids.max").await, "50\n", "{user}");
    }
    let twin = sb.fork().await.unwrap();
    for sb in [&sb, &twin] {
        assert_eq!(fetch(sb, 8082).await, "start\n");
        run_as(sb, "ann", "podman rm --force --time 0 web").await;
        assert_eq!(fetch(sb, 8081).await, "start\n");
    }
}
