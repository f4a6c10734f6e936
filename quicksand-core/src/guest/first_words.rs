//! What a guest says first when it boots: that its agent is there, or that it would boot another kernel by itself.
//!
//! The guest is hostile: what it offers is bounded, and gets names of ours.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use quicksand_protocol::{
    VERSION,
    frame::{Decoder, Frame, Kind},
    message::{Announce, LARGEST_OFFER, Offer, from_payload},
    modules::name_of,
};
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::channel::{ChannelError, violation};

/// Most modules that are taken.
const MOST_MODULES: usize = 512;
/// Most characters of a module's name that are taken.
const LONGEST_NAME: usize = 64;

/// What a guest that boots says first.
#[derive(Debug)]
pub(crate) enum FirstWords {
    /// Its agent is there.
    Announced {
        /// What is wrong with the kernel that the guest would boot by itself, or with the one that runs.
        kernel_fault: Option<String>,
    },
    /// It would boot another kernel by itself.
    Offered {
        /// As the guest says it.
        release: String,
        /// The kernel, or why it can't be had.
        files: Result<OfferedFiles, String>,
    },
}

/// A kernel and the modules that it needs, as a guest sent them.
#[derive(Debug)]
pub(crate) struct OfferedFiles {
    pub(crate) kernel: PathBuf,
    /// In the order to load them, with names that are fit for an initramfs. They may be compressed.
    pub(crate) modules: Vec<(String, PathBuf)>,
}

/// Waits for a guest's first words. A kernel that is offered is written to `directory`, which is made for it; without one, an offer is a
/// breach of the protocol.
pub(crate) async fn first_words(socket: &mut UnixStream, directory: Option<&Path>) -> Result<FirstWords, ChannelError> {
    let mut frames = Frames { socket, decoder: Decoder::new(), buffer: Vec::with_capacity(256 << 10) };
    loop {
        let frame = frames.next().await?;
        match (frame.kind, directory) {
            (Kind::Announce, _) => {
                let Announce { version, kernel_fault } = from_payload(&frame.payload)?;
                check(version)?;
                return Ok(FirstWords::Announced { kernel_fault });
            }
            (Kind::Offer, Some(directory)) => {
                let offer: Offer = from_payload(&frame.payload)?;
                check(offer.version)?;
                let files = receive(&mut frames, &offer, directory).await.map_err(|error| error.to_string());
                return Ok(FirstWords::Offered { release: offer.release, files });
            }
            (Kind::Offer, None) => return Err(violation("it offers a kernel, for which it was not asked")),
            _ => {}
        }
    }
}

fn check(version: u16) -> Result<(), ChannelError> {
    if version == VERSION { Ok(()) } else { Err(ChannelError::Version { guest: version }) }
}

struct Frames<'a> {
    socket: &'a mut UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Frames<'_> {
    async fn next(&mut self) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            self.buffer.clear();
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(ChannelError::Closed);
            }
            self.decoder.push(&self.buffer);
        }
    }
}

/// Why an offered kernel can't be had.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("the guest broke off its transfer: failed to {0}")]
    Channel(#[from] ChannelError),
    #[error("it can't be kept: {0}")]
    Io(#[from] io::Error),
    #[error("the guest sent {0}")]
    Nonsense(String),
}

async fn receive(frames: &mut Frames<'_>, offer: &Offer, directory: &Path) -> Result<OfferedFiles, ReceiveError> {
    let nonsense = |what: &str| ReceiveError::Nonsense(what.to_owned());
    if offer.modules.len() > MOST_MODULES {
        return Err(nonsense("too many modules"));
    }
    let sizes = offer.modules.iter().map(|(_, size)| *size);
    let total = sizes.clone().try_fold(offer.kernel, u64::checked_add);
    if total.is_none_or(|total| total > LARGEST_OFFER) {
        return Err(ReceiveError::Nonsense(format!("more than {LARGEST_OFFER} bytes")));
    }
    fs::create_dir(directory)?;
    let kernel = directory.join("kernel");
    let names = offer.modules.iter().enumerate().map(|(number, (name, _))| plain_name(number, name));
    let modules: Vec<_> = names.map(|name| (name.clone(), directory.join(name))).collect();
    let paths = [&kernel].into_iter().chain(modules.iter().map(|(_, path)| path));
    for (path, size) in paths.zip([offer.kernel].into_iter().chain(sizes)) {
        let mut file = File::create_new(path)?;
        let mut left = size;
        while left > 0 {
            let frame = frames.next().await?;
            if frame.kind != Kind::Data || frame.payload.is_empty() {
                return Err(nonsense("something else than the files that it announced"));
            }
            left = left.checked_sub(frame.payload.len() as u64).ok_or_else(|| nonsense("more than it announced"))?;
            file.write_all(&frame.payload)?;
        }
    }
    match frames.next().await?.kind {
        Kind::Eof => Ok(OfferedFiles { kernel, modules }),
        _ => Err(nonsense("more than it announced")),
    }
}

/// A name that is fit for a file and unlike all others, and by which people know the module.
fn plain_name(number: usize, name: &str) -> String {
    let name = name_of(name);
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(LONGEST_NAME).collect();
    format!("{number:03}-{plain}.ko")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quicksand_protocol::{frame, message::to_payload};
    use tokio::{io::AsyncWriteExt, time::timeout};

    use super::*;

    /// What a guest that says `frames` and then hangs up is understood to say.
    async fn heard(frames: &[(Kind, Vec<u8>)], directory: Option<&Path>) -> Result<FirstWords, ChannelError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        for (kind, payload) in frames {
            frame::encode(*kind, 0, 0, payload, &mut bytes).unwrap();
        }
        let say = async move { theirs.write_all(&bytes).await };
        let hear = timeout(Duration::from_secs(20), first_words(&mut ours, directory));
        tokio::join!(hear, say).0.unwrap()
    }

    fn offer(kernel: u64, modules: &[(&str, u64)]) -> (Kind, Vec<u8>) {
        let modules = modules.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        let offer = Offer { version: VERSION, release: "6.9".into(), kernel, modules };
        (Kind::Offer, to_payload(&offer).unwrap())
    }

    fn data(bytes: &[u8]) -> (Kind, Vec<u8>) {
        (Kind::Data, bytes.to_vec())
    }

    #[tokio::test]
    async fn an_offered_kernel_is_written_under_names_of_ours() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("offered");
        let frames = [
            offer(5, &[("../../virtio-blk.ko.xz", 2), ("\n", 0), ("ext4.ko", 1)]),
            data(b"ker"),
            data(b"ne"),
            data(b"vb"),
            data(b"e"),
            (Kind::Eof, vec![]),
        ];
        let FirstWords::Offered { release, files } = heard(&frames, Some(&directory)).await.unwrap() else { panic!() };
        let files = files.unwrap();
        assert_eq!((release.as_str(), fs::read(files.kernel).unwrap().as_slice()), ("6.9", &b"kerne"[..]));
        let modules: Vec<_> =
            files.modules.iter().map(|(name, path)| (name.as_str(), fs::read(path).unwrap())).collect();
        let expected = [("000-virtio_blk.ko", b"vb".to_vec()), ("001-.ko", vec![]), ("002-ext4.ko", b"e".to_vec())];
        assert_eq!(modules, expected);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_offer_that_breaks_its_word_is_none() {
        let many: Vec<_> = (0..MOST_MODULES + 1).map(|_| ("x", 0)).collect();
        for (frames, why) in [
            (vec![offer(LARGEST_OFFER, &[("x", 1)])], "more than"),
            (vec![offer(u64::MAX, &[("x", 1)])], "more than"),
            (vec![offer(1, &many)], "too many"),
            (vec![offer(3, &[]), data(b"abcd")], "more than it announced"),
            (vec![offer(3, &[]), data(b"abc"), data(b"d")], "more than it announced"),
            (vec![offer(3, &[]), data(b""), data(b"abc")], "something else"),
            (vec![offer(3, &[]), (Kind::Eof, vec![])], "something else"),
            (vec![offer(3, &[]), data(b"a")], "broke off"),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let said = heard(&frames, Some(&temp.path().join("offered"))).await.unwrap();
            let FirstWords::Offered { files, .. } = said else { panic!("{said:?}") };
            let error = files.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn an_agent_announces_itself_and_an_offer_is_asked_for() {
        let announce = |version| {
            let kernel_fault = Some("no modules".to_owned());
            (Kind::Announce, to_payload(&Announce { version, kernel_fault }).unwrap())
        };
        let said = heard(&[data(b"x"), announce(VERSION)], None).await.unwrap();
        assert!(matches!(said, FirstWords::Announced { kernel_fault: Some(fault) } if fault == "no modules"));
        let error = heard(&[announce(VERSION + 1)], None).await.unwrap_err();
        assert!(matches!(error, ChannelError::Version { .. }), "{error}");
        assert!(matches!(heard(&[offer(1, &[])], None).await, Err(ChannelError::Violation(_))));
        assert!(matches!(heard(&[], None).await, Err(ChannelError::Closed)));
    }
}
