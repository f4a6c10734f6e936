//! Flow control: a sender never has more bytes of a stream under way than its receiver allowed.
//!
//! Both sides start every stream with [`WINDOW`]. A receiver grants more with [`Kind::Credit`](crate::frame::Kind::Credit)
//! as its consumer takes bytes, so a slow reader of one stream holds up that stream alone: the channel stays free for others.

/// Bytes of a stream that may be sent before the first credit arrives.
pub const WINDOW: u32 = 512 * 1024;

/// Why a peer broke the rules of flow control.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// More bytes came than were allowed.
    #[error("accept {got} bytes of a stream: its sender had credit for {allowed}")]
    Overrun {
        /// Bytes that came.
        got: usize,
        /// Bytes that were allowed.
        allowed: u32,
    },
    /// A grant would lift the credit above [`WINDOW`].
    #[error("accept a credit of {granted} bytes: with {held} held it exceeds the window of {WINDOW}")]
    Excess {
        /// Bytes granted.
        granted: u32,
        /// Bytes of credit held before.
        held: u32,
    },
    /// The payload of a credit frame is not four bytes.
    #[error("read a credit: it has {0} bytes, not 4")]
    Malformed(usize),
}

/// What the sender of one stream may still send.
#[derive(Debug)]
pub struct SendCredit(u32);

impl Default for SendCredit {
    fn default() -> Self {
        SendCredit(WINDOW)
    }
}

impl SendCredit {
    /// How many of `wanted` bytes may be sent now; that many are taken off the credit.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.0 as usize);
        self.0 -= taken as u32;
        taken
    }

    /// Adds what a credit frame grants.
    ///
    /// # Errors
    ///
    /// [`FlowError::Malformed`] or [`FlowError::Excess`]; the credit stays as it was.
    pub fn grant(&mut self, payload: &[u8]) -> Result<(), FlowError> {
        let bytes: [u8; 4] = payload.try_into().map_err(|_| FlowError::Malformed(payload.len()))?;
        let granted = u32::from_le_bytes(bytes);
        match self.0.checked_add(granted) {
            Some(sum) if sum <= WINDOW => self.0 = sum,
            _ => return Err(FlowError::Excess { granted, held: self.0 }),
        }
        Ok(())
    }
}

/// What the receiver of one stream has allowed, and what it owes.
#[derive(Debug)]
pub struct ReceiveCredit {
    allowed: u32,
    consumed: u32,
}

impl Default for ReceiveCredit {
    fn default() -> Self {
        ReceiveCredit { allowed: WINDOW, consumed: 0 }
    }
}

impl ReceiveCredit {
    /// Counts bytes that came.
    ///
    /// # Errors
    ///
    /// [`FlowError::Overrun`] where the sender had no credit for them.
    pub fn receive(&mut self, len: usize) -> Result<(), FlowError> {
        match u32::try_from(len).ok().and_then(|len| self.allowed.checked_sub(len)) {
            Some(left) => self.allowed = left,
            None => return Err(FlowError::Overrun { got: len, allowed: self.allowed }),
        }
        Ok(())
    }

    /// Counts bytes that the consumer took. Returns the payload of a credit frame once it is worth one: a quarter window.
    pub fn consume(&mut self, len: usize) -> Option<[u8; 4]> {
        self.consumed = self.consumed.saturating_add(len as u32);
        if self.consumed < WINDOW / 4 {
            return None;
        }
        let granted = std::mem::take(&mut self.consumed);
        self.allowed = self.allowed.saturating_add(granted);
        Some(granted.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_stops_at_its_window_and_goes_on_when_granted() {
        let (mut send, mut receive) = (SendCredit::default(), ReceiveCredit::default());
        let window = WINDOW as usize;
        assert_eq!(send.take(window + 1), window);
        assert_eq!(send.take(1), 0);
        receive.receive(window).unwrap();
        assert_eq!(receive.consume(window / 4 - 1), None);
        let granted = receive.consume(1).unwrap();
        send.grant(&granted).unwrap();
        assert_eq!(send.take(usize::MAX), window / 4);
    }

    #[test]
    fn cheating_is_noticed() {
        let mut receive = ReceiveCredit::default();
        receive.receive(WINDOW as usize).unwrap();
        assert_eq!(receive.receive(1), Err(FlowError::Overrun { got: 1, allowed: 0 }));
        let mut send = SendCredit::default();
        assert_eq!(send.grant(&1u32.to_le_bytes()), Err(FlowError::Excess { granted: 1, held: WINDOW }));
        assert_eq!(send.grant(&u32::MAX.to_le_bytes()), Err(FlowError::Excess { granted: u32::MAX, held: WINDOW }));
        assert_eq!(send.grant(b"abc"), Err(FlowError::Malformed(3)));
        assert_eq!(send.take(usize::MAX), WINDOW as usize);
    }
}
