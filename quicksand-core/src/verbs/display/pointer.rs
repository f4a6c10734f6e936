//! A guest's mouse: a tablet, which says where it is rather than how far it moved.

use serde_json::{Value, json};

use super::{input, screenshot, shown};
use crate::{
    error::{Error, Result},
    sandbox::Sandbox,
};

/// The tablet's far end on both axes, from QEMU's `INPUT_EVENT_ABS_MAX`.
const FAR: u64 = 0x7fff;

/// A button of the mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MouseButton {
    /// The left one.
    Left,
    /// The one in the middle.
    Middle,
    /// The right one.
    Right,
    /// The wheel, turned up by one notch.
    WheelUp,
    /// The wheel, turned down by one notch.
    WheelDown,
}

impl MouseButton {
    /// Its name in QEMU.
    fn name(self) -> &'static str {
        match self {
            MouseButton::Left => "left",
            MouseButton::Middle => "middle",
            MouseButton::Right => "right",
            MouseButton::WheelUp => "wheel-up",
            MouseButton::WheelDown => "wheel-down",
        }
    }
}

impl Sandbox {
    /// Moves the pointer to a pixel of the screen, counted from the upper left.
    ///
    /// The guest's kernel needs a driver for virtio's tablet, as Debian's has. A text console shows no pointer.
    ///
    /// # Errors
    ///
    /// [`Error::NoDisplay`]; [`Error::OffScreen`], which says how large the screen is.
    pub async fn mouse_move(&self, x: u32, y: u32) -> Result<()> {
        let vm = shown(self).await?;
        // Nothing else tells how large the screen is now.
        let (width, height) = screenshot::size(&screenshot::take(&vm).await?).unwrap_or_default();
        if x >= width || y >= height {
            return Err(Error::OffScreen { x, y, width, height });
        }
        input(&vm, vec![axis("x", x, width), axis("y", y, height)]).await
    }

    /// Presses a button of the mouse and lets it go, where the pointer is.
    ///
    /// # Errors
    ///
    /// [`Error::NoDisplay`]
    pub async fn mouse_click(&self, button: MouseButton) -> Result<()> {
        let vm = shown(self).await?;
        for down in [true, false] {
            let event = json!({ "type": "btn", "data": { "down": down, "button": button.name() } });
            input(&vm, vec![event]).await?;
        }
        Ok(())
    }
}

/// A place on one axis of the tablet: the middle of a pixel, so that a guest rounds it to that pixel.
fn axis(name: &str, pixel: u32, pixels: u32) -> Value {
    let value = (2 * u64::from(pixel) + 1) * FAR / (2 * u64::from(pixels));
    json!({ "type": "abs", "data": { "axis": name, "value": value } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_hit() {
        for pixels in [1, 400, 720, 1920, 3840] {
            for pixel in 0..pixels {
                let value = axis("x", pixel, pixels)["data"]["value"].as_u64().unwrap();
                assert_eq!(value * u64::from(pixels) / (FAR + 1), u64::from(pixel), "{pixel} of {pixels}");
            }
        }
    }
}
