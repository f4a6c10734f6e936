//! Checkpoints of a running sandbox, returns to them, and twins of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quicksand::{ChannelError, Error, Sandbox};
use tokio::io::AsyncReadExt;

async fn start() -> Sandbox {
    Sandbox::builder("debian").start().await.unwrap()
}

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

/// Does not end where what beats does not run on.
const BEATS: &str =
    "a=$(wc -l < /dev/shm/beat); until [ $(wc -l < /dev/shm/beat) -gt $a ]; do sleep 0.05; done; echo beats";

#[tokio::test]
async fn a_return_brings_back_memory_files_and_processes_but_not_the_clock() {
    let sb = start().await;
    shell(&sb, "echo disk > /root/f; echo memory > /dev/shm/f; mkdir /root/d; cp /bin/ls /root/d").await;
    let mut beat =
        sb.command("sh").args(["-c", "while :; do echo >> /dev/shm/beat; sleep 0.05; done"]).spawn().await.unwrap();
    shell(&sb, "while ! test -s /dev/shm/beat; do sleep 0.05; done").await;
    shell(&sb, "sleep 4241 > /dev/null 2>&1 &").await;
    let facts = "cat /root/f /dev/shm/f /etc/machine-id; sha256sum < /root/d/ls";
    let before = shell(&sb, facts).await;
    sb.checkpoint("clean").await.unwrap();
    assert_eq!(shell(&sb, BEATS).await, "beats\n", "the machine runs on");
    assert_eq!(sb.checkpoints().unwrap(), ["clean"]);
    let kept = shell(&sb, "cat /proc/sys/kernel/random/uuid").await;

    let mut later = sb.command("sleep").arg("4243").spawn().await.unwrap();
    shell(&sb, "rm -r /root/d; echo spoiled > /root/f; echo spoiled > /dev/shm/f; rm /bin/ls; sync").await;
    shell(&sb, "date -s 2001-01-01 && pkill -f 'sleep 424[1]'").await;
    let (pid, begun) = (sb.qemu_pid(), Instant::now());
    sb.revert("clean").await.unwrap();
    println!("revert: {:?}", begun.elapsed());
    assert_ne!(sb.qemu_pid(), pid);

    assert_eq!(shell(&sb, facts).await, before, "files, memory and the machine id are as they were");
    assert_eq!(shell(&sb, BEATS).await, "beats\n", "a process of before runs on");
    shell(&sb, "pgrep -f 'sleep 424[1]'").await;
    assert_eq!(shell(&sb, "pgrep -f 'sleep 424[3]' || echo none").await, "none\n", "a later one is gone");
    let now: u64 = shell(&sb, "date +%s").await.trim().parse().unwrap();
    assert!(now.abs_diff(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()) <= 60, "{now}");
    assert_ne!(shell(&sb, "cat /proc/sys/kernel/random/uuid").await, kept, "the random pool is another");

    // What ran in the machine that is gone says so.
    for child in [&mut beat, &mut later] {
        let error = child.wait().await.unwrap_err();
        assert!(matches!(error, Error::Guest(ChannelError::Reverted)), "{error}");
    }
    let mut rest = Vec::new();
    later.stdout.take().unwrap().read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn any_number_in_any_order() {
    let sb = start().await;
    let error = sb.revert("x").await.unwrap_err();
    assert!(matches!(&error, Error::NoSuchCheckpoint { tags, .. } if tags.is_empty()), "{error}");
    let note = |n: usize| format!("echo {n} >> /root/n; echo {n} >> /dev/shm/n");
    for n in 0..5 {
        shell(&sb, &note(n)).await;
        sb.checkpoint(format!("at {n}")).await.unwrap();
    }
    let expected = |n: usize| (0..=n).map(|n| format!("{n}\n")).collect::<String>();
    for n in [2, 4, 0, 0, 3] {
        sb.revert(&format!("at {n}")).await.unwrap();
        assert_eq!(shell(&sb, "cmp /root/n /dev/shm/n; cat /root/n").await, expected(n), "at {n}");
    }
    // A tag that is used again means the later moment, the others what they meant.
    shell(&sb, &note(9)).await;
    sb.checkpoint("at 1").await.unwrap();
    assert_eq!(sb.checkpoints().unwrap(), ["at 0", "at 2", "at 3", "at 4", "at 1"]);
    sb.revert("at 4").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/n").await, expected(4));
    sb.delete_checkpoint("at 3").unwrap();
    sb.revert("at 1").await.unwrap();
    assert_eq!(shell(&sb, "cmp /root/n /dev/shm/n; cat /root/n").await, expected(3) + "9\n");
    let error = sb.revert("at 3").await.unwrap_err();
    assert!(matches!(&error, Error::NoSuchCheckpoint { tags, .. } if tags.len() == 4), "{error}");
    assert!(error.to_string().contains("\"at 3\"") && error.to_string().contains(r#"["at 0", "at 2""#), "{error}");

    // The machine that it runs by is gone, even its files by name: a return mends that.
    let pid = nix::unistd::Pid::from_raw(sb.qemu_pid().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    sb.execute("true").await.unwrap_err();
    sb.revert("at 2").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/n").await, expected(2));
}

/// Forty times on, each from the last: the disk's layers and the memory grow by what was changed alone.
#[tokio::test]
async fn forty_checkpoints_and_returns_of_one_sandbox() {
    let sb = start().await;
    let mut times = vec![];
    for n in 0..40 {
        shell(&sb, &format!("echo {n} >> /root/n; head -c 100000 /dev/urandom > /root/random")).await;
        let begun = Instant::now();
        sb.checkpoint("last").await.unwrap();
        let kept = begun.elapsed();
        let sum = shell(&sb, "sha256sum < /root/random; echo lost >> /root/n").await;
        let begun = Instant::now();
        sb.revert("last").await.unwrap();
        times.push((kept, begun.elapsed()));
        assert_eq!(shell(&sb, "sha256sum < /root/random").await, sum, "round {n}");
    }
    assert_eq!(shell(&sb, "cat /root/n").await, (0..40).map(|n| format!("{n}\n")).collect::<String>());
    println!("{times:?}");
    let sum = |times: &[(Duration, Duration)]| times.iter().map(|(kept, back)| *kept + *back).sum::<Duration>();
    assert!(sum(&times[30..]) < 4 * sum(&times[..10]), "it becomes slower and slower: {times:?}");
}

#[tokio::test]
async fn a_reverted_sandbox_can_be_saved() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
    shell(&sb, "echo kept > /root/kept; echo kept > /dev/shm/kept").await;
    sb.checkpoint("c").await.unwrap();
    shell(&sb, "rm /root/kept").await;
    sb.revert("c").await.unwrap();
    shell(&sb, "echo more > /root/more").await;
    sb.save("s").await.unwrap();
    drop(sb);
    let sb = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm);
    assert_eq!(shell(&sb, "cat /root/kept /root/more /dev/shm/kept").await, "kept\nmore\nkept\n");
    drop(sb);
    // Its disk holds all of it, too.
    let sb = Sandbox::builder("s").saves_dir(saves.path()).memory("640M").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Disk);
    assert_eq!(shell(&sb, "cat /root/kept /root/more").await, "kept\nmore\n");
}

/// Where saves lie on another file system than the cache, nothing can be linked, and nothing large is copied.
#[tokio::test]
async fn from_a_save_on_another_file_system() {
    let saves = tempfile::tempdir_in("/dev/shm").unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).save("s").start().await.unwrap();
    shell(&sb, "echo saved > /root/f").await;
    sb.stop().await.unwrap();
    let sb = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
    sb.checkpoint("one").await.unwrap();
    shell(&sb, "echo one > /root/f").await;
    sb.revert("one").await.unwrap();
    shell(&sb, "cat /root/f > /root/g").await;
    sb.checkpoint("two").await.unwrap();
    sb.delete_checkpoint("one").unwrap();
    // The save is replaced: what comes from the old one keeps it.
    sb.save("s").await.unwrap();
    sb.revert("two").await.unwrap();
    let twin = sb.fork().await.unwrap();
    drop(sb);
    assert_eq!(
        shell(&twin, "cat /root/f /root/g; find /usr -type f | xargs cat | wc -c | grep -c .").await,
        "saved\nsaved\n1\n"
    );
}

#[tokio::test]
async fn twins_go_their_own_ways() {
    let sb = start().await;
    shell(&sb, "echo before > /root/f; echo before > /dev/shm/f").await;
    let _beat =
        sb.command("sh").args(["-c", "while :; do echo >> /dev/shm/beat; sleep 0.05; done"]).spawn().await.unwrap();
    shell(&sb, "while ! test -s /dev/shm/beat; do sleep 0.05; done").await;
    let begun = Instant::now();
    let twin = sb.fork().await.unwrap();
    twin.ping().await.unwrap();
    println!("fork: {:?}", begun.elapsed());
    shell(&sb, "echo original >> /root/f; echo original >> /dev/shm/f").await;
    let of_twin = twin.fork().await.unwrap();
    shell(&twin, "echo twin >> /root/f; echo twin >> /dev/shm/f").await;
    shell(&of_twin, "echo of twin >> /root/f; echo of twin >> /dev/shm/f").await;

    let facts = "cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1";
    let mut seen = vec![];
    for (sb, own) in [(&sb, "original"), (&twin, "twin"), (&of_twin, "of twin")] {
        assert_eq!(shell(sb, "cmp /root/f /dev/shm/f; cat /root/f").await, format!("before\n{own}\n"));
        assert_eq!(shell(sb, BEATS).await, "beats\n", "the process runs on in all of them");
        seen.extend(shell(sb, facts).await.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "machine ids and random numbers differ: {seen:?}");

    // A twin outlives those that it came from, with all that they left it, and can still be written down.
    drop((sb, twin));
    of_twin.checkpoint("c").await.unwrap();
    shell(&of_twin, "rm /root/f").await;
    of_twin.revert("c").await.unwrap();
    assert_eq!(
        shell(&of_twin, "cat /root/f; find /usr -type f | xargs cat | wc -c | grep -c .").await,
        "before\nof twin\n1\n"
    );
}

#[tokio::test]
async fn ten_twins_at_once() {
    let sb = start().await;
    shell(&sb, "echo shared > /root/shared").await;
    let twins = std::array::from_fn::<_, 10, _>(|_| sb.fork());
    let mut running = vec![];
    for twin in futures(twins).await {
        running.push(twin.unwrap());
    }
    for (n, twin) in running.iter().enumerate() {
        shell(twin, &format!("echo {n} > /root/own; echo {n} > /dev/shm/own")).await;
    }
    for (n, twin) in running.iter().enumerate() {
        assert_eq!(shell(twin, "cat /root/shared /root/own /dev/shm/own").await, format!("shared\n{n}\n{n}\n"));
    }
    assert_eq!(shell(&sb, "ls /root").await, "shared\n");
}

/// Waits for all of them at once.
async fn futures<T, const N: usize>(all: [impl Future<Output = T>; N]) -> Vec<T> {
    let mut all = all.map(Box::pin);
    let mut done: [Option<T>; N] = std::array::from_fn(|_| None);
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// What is dropped in the middle of it leaves a sandbox that works, and nothing behind it.
#[tokio::test]
async fn a_checkpoint_that_nobody_waits_for_leaves_the_guest_running() {
    let sb = start().await;
    for pause in [0, 20, 60, 100, 140, 180] {
        let _ = tokio::time::timeout(Duration::from_millis(pause), sb.checkpoint("c")).await;
        shell(&sb, "true").await;
    }
    sb.checkpoint("d").await.unwrap();
    for pause in [0, 10, 30, 60, 90] {
        let _ = tokio::time::timeout(Duration::from_millis(pause), sb.revert("d")).await;
        // Waits until that is done.
        sb.checkpoint("e").await.unwrap();
        shell(&sb, "true").await;
    }
}
