//! A display without a window: what is typed arrives in the guest, and what the guest shows is seen, also by its clones.

use std::{
    io::{Cursor, Read},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use quicksand::{Error, Key, MouseButton, Sandbox, SandboxBuilder, StartKind, Vnc};

const COLUMNS: usize = 80;
const CELL: (usize, usize) = (9, 16);

fn builder() -> SandboxBuilder {
    Sandbox::builder("debian").enable_display(true)
}

/// A picture of a text console.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn decode(png: &[u8]) -> Picture {
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Picture { width: info.width as usize, height: info.height as usize, pixels }
    }

    async fn take(sb: &Sandbox) -> Picture {
        Picture::decode(&sb.screenshot_png().await.unwrap())
    }

    /// The pixels of some characters of a line.
    fn text(&self, line: usize, columns: std::ops::Range<usize>) -> Vec<&[u8]> {
        let (width, height) = CELL;
        let rows = line * height..(line + 1) * height;
        rows.map(|row| &self.pixels[3 * (row * self.width + columns.start * width)..][..3 * columns.len() * width])
            .collect()
    }

    fn is_blank(&self, line: usize, columns: std::ops::Range<usize>) -> bool {
        let text = self.text(line, columns);
        let first = &text[0][..3];
        text.iter().all(|row| row.chunks(3).all(|pixel| pixel == first))
    }

    /// Whether a line of that length was typed, and a program has printed it again.
    fn has_an_answer(&self, line: usize, length: usize) -> bool {
        !self.is_blank(line, 0..length) && self.text(line, 0..length) == self.text(line + 1, 0..length)
    }
}

/// The first picture that is as it should be.
async fn picture_of(sb: &Sandbox, is_it: impl Fn(&Picture) -> bool) -> Picture {
    let begun = Instant::now();
    loop {
        let picture = Picture::take(sb).await;
        if is_it(&picture) {
            return picture;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "what is waited for is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Has a program of the guest take over its first console, without a cursor that blinks.
async fn on_console(sb: &Sandbox, script: &str) -> quicksand::Child {
    sb.execute("systemctl stop getty@tty1 && rm -f /tmp/ready && printf '\\033c\\033[?25l' > /dev/tty1")
        .await
        .unwrap()
        .check()
        .unwrap();
    let script = format!("touch /tmp/ready; {script}");
    let enter = r#"exec setsid --ctty --wait sh -c "$1" < /dev/tty1 > /dev/tty1 2>&1"#;
    let child = sb.command("sh").args(["-c", enter, "enter", &script]).spawn().await.unwrap();
    sb.wait_for_file("/tmp/ready").await.unwrap();
    child
}

#[tokio::test]
async fn a_program_on_the_console_is_typed_to_and_seen() {
    let sb = builder().start().await.unwrap();
    let mut program =
        on_console(&sb, "while read -r line; do echo \"$line\"; echo \"$line\" >> /tmp/typed; done").await;
    let typed = r##"The quick brown fox! "jumps" ~ 0123456789 (a_b) [c] {d} <e> #$%^&*|\/?:;'`=+-"##;
    sb.type_text(&format!("{typed}\n")).await.unwrap();
    sb.wait_for_line("/tmp/typed", ".").await.unwrap();
    assert_eq!(sb.read_file("/tmp/typed").await.unwrap(), format!("{typed}\n").into_bytes());

    // The echo of what was typed and what the program printed are the same picture.
    let picture = picture_of(&sb, |picture| picture.has_an_answer(0, typed.len())).await;
    assert_eq!((picture.width, picture.height), (COLUMNS * CELL.0, 25 * CELL.1));
    assert!(!picture.is_blank(0, 0..10) && picture.is_blank(0, typed.len() + 1..COLUMNS));
    assert!(picture.text(0, 0..COLUMNS) == picture.text(1, 0..COLUMNS), "echo and answer look different");
    assert!(picture.text(0, 0..9) != picture.text(0, 1..10));
    assert!(picture.is_blank(2, 0..COLUMNS));

    // Keys that are no characters: backspace, and a chord that kills the program.
    sb.type_text("axx").await.unwrap();
    sb.press_key(Key::Backspace).await.unwrap();
    sb.press_key(Key::Backspace).await.unwrap();
    sb.press_key([Key::Shift, Key::B]).await.unwrap();
    sb.press_key(Key::Ret).await.unwrap();
    assert_eq!(sb.wait_for_line("/tmp/typed", "^a").await.unwrap(), "aB");
    sb.press_key([Key::Ctrl, Key::C]).await.unwrap();
    assert!(!program.wait().await.unwrap().success());

    // Long texts are typed without a loss.
    let program = on_console(&sb, "stty -echo; while read -r line; do echo \"$line\" >> /tmp/long; done").await;
    let long: String = (0..40).map(|n| format!("{n}: {}\n", "Aa0_ ".repeat(8))).collect();
    sb.type_text(&long).await.unwrap();
    sb.wait_for_line("/tmp/long", "^39").await.unwrap();
    let expected: String = long.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(String::from_utf8(sb.read_file("/tmp/long").await.unwrap()).unwrap(), expected);
    program.kill();

    assert!(matches!(sb.type_text("gr\u{fc}n").await, Err(Error::NoKey { character: '\u{fc}' })));
}

/// The login prompt of the guest's own getty, which is in the warm state's picture.
#[tokio::test]
async fn the_console_asks_for_a_login() {
    let sb = builder().start().await.unwrap();
    let at_first = Picture::take(&sb).await;
    assert!((0..6).any(|line| !at_first.is_blank(line, 0..20)), "the console is blank");
    sb.execute("useradd ann; echo ann:secret | chpasswd; setterm --cursor off > /dev/tty1")
        .await
        .unwrap()
        .check()
        .unwrap();
    sb.type_text("ann\n").await.unwrap();
    // What is typed before it asks for the password is lost.
    sb.wait_until_succeeds("pgrep -x login && stty -a < /dev/tty1 | grep -qw -- -echo").await.unwrap();
    sb.type_text("secret\n").await.unwrap();
    sb.wait_until_succeeds("pgrep -u ann -t tty1").await.unwrap();
    sb.type_text("id -un > /tmp/who\n").await.unwrap();
    sb.wait_for_line("/tmp/who", "^ann$").await.unwrap();
}

#[tokio::test]
async fn clones_show_what_their_save_showed() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = builder().saves_dir(saves.path()).start().await.unwrap();
    let program = on_console(
        &sb,
        "printf '\\033[1;33;44mcolours\\033[0m\\n'; seq 1 12; while read -r line; do echo \"$line\"; done",
    )
    .await;
    picture_of(&sb, |picture| !picture.is_blank(12, 0..2)).await;
    sb.type_text("before\n").await.unwrap();
    let before = picture_of(&sb, |picture| picture.has_an_answer(13, 6)).await;
    assert!(!before.is_blank(12, 0..2) && !before.is_blank(0, 0..7));
    sb.save("shown").await.unwrap();
    assert!(Picture::take(&sb).await.pixels == before.pixels, "saving it changed its picture");
    program.kill();

    // The save knows that it has a display.
    let twin = Sandbox::builder("shown").saves_dir(saves.path()).start().await.unwrap();
    assert_eq!(twin.start_report().unwrap().kind, StartKind::Warm, "{:?}", twin.start_report());
    let after = Picture::take(&twin).await;
    assert!(after.pixels == before.pixels, "the clone shows something else");
    twin.type_text("after\n").await.unwrap();
    let typed = picture_of(&twin, |picture| picture.has_an_answer(15, 5)).await;
    assert!(typed.text(0, 0..80) == before.text(0, 0..80), "fonts and colours are lost");
}

#[tokio::test]
async fn the_pointer_moves_and_clicks() {
    let sb = builder().start().await.unwrap();
    let find = "grep -l Tablet /sys/class/input/event*/device/name | cut -d/ -f5";
    let device = sb.execute(find).await.unwrap().stdout.trim().to_owned();
    assert!(device.starts_with("event"), "{device:?}");
    sb.execute(format!("cat /dev/input/{device} > /tmp/events 2>&1 &")).await.unwrap().check().unwrap();
    sb.wait_until_succeeds(format!("ls -l /proc/$(pgrep -x cat)/fd | grep -q input/{device}")).await.unwrap();
    sb.mouse_move(360, 100).await.unwrap();
    sb.mouse_move(719, 399).await.unwrap();
    sb.mouse_click(MouseButton::Left).await.unwrap();
    sb.mouse_click(MouseButton::WheelDown).await.unwrap();
    // Events of 24 bytes: time, type, code, value; the last one is EV_REL of REL_WHEEL.
    let list = "od -An -v -w24 -t d2 /tmp/events | awk '{ print $9, $10, $11 }' | tee /dev/stderr | grep '^2 8 -1'";
    let events = sb.wait_until_succeeds(list).await.unwrap().stderr;
    // EV_ABS of ABS_X and ABS_Y, EV_KEY of BTN_LEFT.
    let expected = ["3 0 16406", "3 1 8232", "3 0 32744", "3 1 32726", "1 272 1", "1 272 0"];
    let seen: Vec<&str> = events.lines().collect();
    for event in expected {
        assert!(seen.contains(&event), "{event} in {seen:?}");
    }
    let error = sb.mouse_move(720, 0).await.unwrap_err();
    assert!(matches!(error, Error::OffScreen { width: 720, height: 400, .. }), "{error}");
}

#[tokio::test]
async fn viewers_see_it_where_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vnc");
    let greets = |mut stream: Box<dyn Read + Send>| {
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"RFB 003.008\n");
    };
    let sb = Sandbox::builder("debian").vnc(Vnc::Tcp).start().await.unwrap();
    let port = sb.vnc_port().unwrap();
    greets(Box::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
    // It stays where it is when another machine takes the place of the first.
    sb.checkpoint("c").await.unwrap();
    sb.revert("c").await.unwrap();
    assert_eq!(sb.vnc_port(), Some(port));
    greets(Box::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
    let twin = sb.fork().await.unwrap();
    assert!(twin.vnc_port().is_some_and(|other| other != port), "{:?}", twin.vnc_port());
    drop((sb, twin));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port outlives the sandbox");

    let sb = Sandbox::builder("debian").vnc(Vnc::Unix(socket.clone())).start().await.unwrap();
    greets(Box::new(UnixStream::connect(&socket).unwrap()));
    assert_eq!(sb.vnc_port(), None);
    drop(sb);
    assert!(!socket.exists());

    let sb = builder().start().await.unwrap();
    assert_eq!(sb.vnc_port(), None, "nobody asked for it");
    assert!(matches!(
        Sandbox::builder("debian").vnc(Vnc::Tcp).enable_display(false).build(),
        Err(Error::BadOption { .. })
    ));
}

#[tokio::test]
async fn without_a_display_there_is_none() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    assert!(matches!(sb.screenshot("x.png").await, Err(Error::NoDisplay)));
    assert!(matches!(sb.type_text("x").await, Err(Error::NoDisplay)));
    assert!(matches!(sb.press_key(Key::Ret).await, Err(Error::NoDisplay)));
    assert!(matches!(sb.mouse_click(MouseButton::Left).await, Err(Error::NoDisplay)));
    assert!(!std::path::Path::new("x.png").exists());
}
