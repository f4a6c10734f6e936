//! Whether files that were touched, and are as long as before, have other content: read from both, the guest and a clone of the
//! state that it started from.

use tokio::try_join;

use super::{
    baseline,
    compare::{Content, Difference},
};
use crate::{
    base::size::Size,
    error::Result,
    host::Host,
    image::state::State,
    vm::{Vm, ask::read},
};

/// How many files and bytes are read of a guest. What is more counts as changed.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 64 << 20;

/// Finds out what is unknown of the differences.
pub(crate) async fn find_out(differences: &mut [Difference<'_>], vm: &Vm, host: &Host, begun: &State) -> Result<()> {
    let mut unknown = Vec::new();
    let mut bytes = 0;
    for difference in differences.iter_mut().filter(|difference| difference.content == Content::Unknown) {
        let size = difference.file().size().unwrap_or(0);
        difference.content = Content::Other;
        // One that is too long leaves room for the others.
        if unknown.len() < MOST_FILES && size <= MOST_BYTES - bytes {
            bytes += size;
            unknown.push(difference);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let (witness, slot) = baseline::clone(host, begun).await?;
    for difference in unknown {
        let file = difference.file();
        let limit = Size::from_bytes(file.size().unwrap_or(0));
        // One that grows or goes while it is read is another.
        let read = |of| async move {
            match read(of, &file.path, limit).await {
                Err(crate::error::Error::TooLong { .. }) => Ok(None),
                read => read,
            }
        };
        let (now, then) = try_join!(read(vm), read(&witness))?;
        if now.is_some() && now == then {
            difference.content = Content::Same;
        }
    }
    let _ = witness.process().kill().await;
    drop((witness, slot));
    Ok(())
}
