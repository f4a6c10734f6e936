//! Whether a guest has nothing to do, as the threads of its QEMU tell.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two looks.
const STEP: Duration = Duration::from_millis(50);
/// The share of the looks, in percent, in which the threads of a guest that has nothing to do may be at work all the same.
const MOVES: u32 = 20;

/// Looks for that long whether `rests`. A host that is busy with something else does not make a guest rest: what waits for a processor
/// does not.
pub(super) async fn has_nothing_to_do(rests: impl Fn() -> bool, time: Duration) -> bool {
    let until = Instant::now() + time;
    let (mut looks, mut moves) = (0, 0);
    while Instant::now() < until {
        sleep(STEP).await;
        looks += 1;
        moves += u32::from(!rests());
    }
    moves * 100 <= looks * MOVES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guest_that_moves_has_something_to_do() {
        let time = Duration::from_millis(200);
        assert!(has_nothing_to_do(|| true, time).await);
        assert!(!has_nothing_to_do(|| false, time).await);
    }
}
