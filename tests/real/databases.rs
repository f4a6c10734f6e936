//! Databases, which set up a user, a cluster and a service as they are installed.

use quicksand::{Sandbox, facts, sandbox_test};

use super::{NOTHING, apt, left, reboot, remove_packages, run, run_as, until};

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn postgresql(sb: Sandbox) {
    apt(&sb, "install --no-install-recommends postgresql").await;
    let (port, data) = sb.facts((facts::port(5432), facts::file("/var/lib/postgresql/15/main"))).await.unwrap();
    port.assert_listening().assert_local().assert_program("postgres");
    data.assert_owner("postgres").assert_mode(0o700);
    let fill = "create table names (name text); insert into names select 'name ' || n from generate_series(1, 1000) n";
    run_as(&sb, "postgres", &format!("psql --quiet --command \"{fill}\"")).await;
    let count = "psql --tuples-only --no-align --command 'select count(*) from names'";
    // A twin goes on with the server as it runs, by itself.
    let twin = sb.fork().await.unwrap();
    run_as(&twin, "postgres", "psql --quiet --command 'delete from names'").await;
    assert_eq!(run_as(&twin, "postgres", count).await, "0\n");
    drop(twin);
    assert_eq!(run_as(&sb, "postgres", count).await, "1000\n");

    reboot(&sb).await;
    until(&sb, "pg_isready").await;
    assert_eq!(run_as(&sb, "postgres", count).await, "1000\n");
    // Its user, and that of its certificate, with what was their own.
    let stays = ["/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/postgresql", "/etc/shadow", "/var/lib/postgresql"];
    assert_eq!(remove_packages(&sb).await, stays);
}

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn mariadb(sb: Sandbox) {
    apt(&sb, "install --no-install-recommends mariadb-server").await;
    sb.port(3306).await.unwrap().assert_listening().assert_local().assert_program("mariadbd");
    run(&sb, "mariadb --execute \"create database d; create table d.t (n int primary key) engine=innodb; insert into d.t values (1), (2), (3)\"")
        .await;
    let sum = "mariadb --skip-column-names --execute 'select sum(n) from d.t'";
    assert_eq!(run(&sb, sum).await, "6\n");
    // What is not committed is gone with the program that did it; what is, is not.
    run(&sb, "mariadb --execute 'begin; insert into d.t values (10)'; kill -KILL $(pidof mariadbd)").await;
    until(&sb, "mariadb-admin ping").await;
    assert_eq!(run(&sb, sum).await, "6\n");

    reboot(&sb).await;
    until(&sb, "mariadb-admin ping").await;
    assert_eq!(run(&sb, sum).await, "6\n");
    // It asks whether the databases are to go, after its questions have gone.
    let stays = remove_packages(&sb).await;
    let outside: Vec<_> = stays.iter().filter(|path| !path.starts_with("/var/lib/mysql")).collect();
    assert_eq!(
        outside,
        ["/etc/group", "/etc/gshadow", "/etc/mysql", "/etc/mysql/debian.cnf", "/etc/passwd", "/etc/shadow"]
    );
    run(&sb, "rm -r /var/lib/mysql /etc/mysql && userdel mysql").await;
    assert_eq!(left(&sb).await, NOTHING);
}
