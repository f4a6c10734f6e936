//! A guest's keyboard, of the US layout.

use serde_json::{Value, json};

use super::{input, shown};
use crate::{
    error::{Error, Result},
    sandbox::Sandbox,
};

/// How many events are sent at once. A key is up to three bytes of the 16 that the keyboard keeps.
const AT_ONCE: usize = 4;

macro_rules! keys {
    ($($key:ident $name:literal $meaning:literal,)*) => {
        /// A key, named after what is printed on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Key {
            $(#[doc = $meaning] $key,)*
        }

        impl Key {
            /// Its name in QEMU: a `QKeyCode`.
            fn code(self) -> &'static str {
                match self {
                    $(Key::$key => $name,)*
                }
            }
        }
    };
}

keys! {
    A "a" "A", B "b" "B", C "c" "C", D "d" "D", E "e" "E", F "f" "F", G "g" "G", H "h" "H", I "i" "I", J "j" "J",
    K "k" "K", L "l" "L", M "m" "M", N "n" "N", O "o" "O", P "p" "P", Q "q" "Q", R "r" "R", S "s" "S", T "t" "T",
    U "u" "U", V "v" "V", W "w" "W", X "x" "X", Y "y" "Y", Z "z" "Z",
    Digit0 "0" "0", Digit1 "1" "1", Digit2 "2" "2", Digit3 "3" "3", Digit4 "4" "4",
    Digit5 "5" "5", Digit6 "6" "6", Digit7 "7" "7", Digit8 "8" "8", Digit9 "9" "9",
    F1 "f1" "F1", F2 "f2" "F2", F3 "f3" "F3", F4 "f4" "F4", F5 "f5" "F5", F6 "f6" "F6",
    F7 "f7" "F7", F8 "f8" "F8", F9 "f9" "F9", F10 "f10" "F10", F11 "f11" "F11", F12 "f12" "F12",
    Ret "ret" "Return, also called Enter", Esc "esc" "Escape", Tab "tab" "Tab", Backspace "backspace" "Backspace",
    Space "spc" "The space bar", Minus "minus" "-", Equal "equal" "=", BracketLeft "bracket_left" "[",
    BracketRight "bracket_right" "]", Backslash "backslash" "\\", Semicolon "semicolon" ";", Apostrophe "apostrophe" "'",
    Grave "grave_accent" "`", Comma "comma" ",", Dot "dot" ".", Slash "slash" "/",
    Shift "shift" "The left Shift", ShiftRight "shift_r" "The right Shift",
    Ctrl "ctrl" "The left Control", CtrlRight "ctrl_r" "The right Control",
    Alt "alt" "The left Alt", AltRight "alt_r" "The right Alt, on many keyboards AltGr",
    Meta "meta_l" "The left key with a logo", MetaRight "meta_r" "The right key with a logo", Menu "menu" "Menu",
    Up "up" "Cursor up", Down "down" "Cursor down", Left "left" "Cursor left", Right "right" "Cursor right",
    Home "home" "Home", End "end" "End", PageUp "pgup" "Page up", PageDown "pgdn" "Page down",
    Insert "insert" "Insert", Delete "delete" "Delete",
    CapsLock "caps_lock" "Caps lock", NumLock "num_lock" "Num lock", ScrollLock "scroll_lock" "Scroll lock",
    Print "print" "Print screen", Pause "pause" "Pause",
}

/// Keys that are pressed together: a [`Key`], or an array of them such as `[Key::Ctrl, Key::Alt, Key::Delete]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chord(Vec<Key>);

impl From<Key> for Chord {
    fn from(key: Key) -> Chord {
        Chord(vec![key])
    }
}

impl<const N: usize> From<[Key; N]> for Chord {
    fn from(keys: [Key; N]) -> Chord {
        Chord(keys.into())
    }
}

impl From<&[Key]> for Chord {
    fn from(keys: &[Key]) -> Chord {
        Chord(keys.into())
    }
}

impl Chord {
    /// Its keys go down one after the other, and up the other way round.
    fn events(&self) -> Vec<Value> {
        let event = |down: bool, key: &Key| json!({ "type": "key", "data": { "down": down, "key": { "type": "qcode", "data": key.code() } } });
        let down = self.0.iter().map(|key| event(true, key));
        down.chain(self.0.iter().rev().map(|key| event(false, key))).collect()
    }

    /// The keys that give a character on a keyboard of the US layout.
    fn of(character: char) -> Option<Chord> {
        if let Some(place) = SHIFTED.find(character) {
            let (_, key) = PLAIN[SHIFTED[..place].chars().count()];
            return Some(Chord(vec![Key::Shift, key]));
        }
        let plain = character.to_ascii_lowercase();
        let (_, key) = PLAIN.iter().find(|(printed, _)| *printed == plain)?;
        Some(if plain == character { Chord(vec![*key]) } else { Chord(vec![Key::Shift, *key]) })
    }
}

/// What the first of the keys below give together with Shift, in their order. Letters give the large ones.
const SHIFTED: &str = ")!@#$%^&*(_+{}|:\"~<>?";
/// What each key gives by itself.
const PLAIN: [(char, Key); 50] = [
    ('0', Key::Digit0),
    ('1', Key::Digit1),
    ('2', Key::Digit2),
    ('3', Key::Digit3),
    ('4', Key::Digit4),
    ('5', Key::Digit5),
    ('6', Key::Digit6),
    ('7', Key::Digit7),
    ('8', Key::Digit8),
    ('9', Key::Digit9),
    ('-', Key::Minus),
    ('=', Key::Equal),
    ('[', Key::BracketLeft),
    (']', Key::BracketRight),
    ('\\', Key::Backslash),
    (';', Key::Semicolon),
    ('\'', Key::Apostrophe),
    ('`', Key::Grave),
    (',', Key::Comma),
    ('.', Key::Dot),
    ('/', Key::Slash),
    ('a', Key::A),
    ('b', Key::B),
    ('c', Key::C),
    ('d', Key::D),
    ('e', Key::E),
    ('f', Key::F),
    ('g', Key::G),
    ('h', Key::H),
    ('i', Key::I),
    ('j', Key::J),
    ('k', Key::K),
    ('l', Key::L),
    ('m', Key::M),
    ('n', Key::N),
    ('o', Key::O),
    ('p', Key::P),
    ('q', Key::Q),
    ('r', Key::R),
    ('s', Key::S),
    ('t', Key::T),
    ('u', Key::U),
    ('v', Key::V),
    ('w', Key::W),
    ('x', Key::X),
    ('y', Key::Y),
    ('z', Key::Z),
    (' ', Key::Space),
    ('\n', Key::Ret),
    ('\t', Key::Tab),
];

impl Sandbox {
    /// Types a text on the guest's keyboard, as on one of the US layout: printable ASCII, `\n` for Return and `\t` for Tab.
    ///
    /// Returns when the guest's kernel has read it all, which need not be the program's at which it is aimed.
    ///
    /// # Errors
    ///
    /// [`Error::NoDisplay`]; [`Error::NoKey`], before anything is typed.
    pub async fn type_text(&self, text: &str) -> Result<()> {
        let vm = shown(self).await?;
        let chord = |character| Chord::of(character).ok_or(Error::NoKey { character });
        let chords = text.chars().map(chord).collect::<Result<Vec<_>>>()?;
        for chord in chords {
            input(&vm, chord.events()).await?;
        }
        Ok(())
    }

    /// Presses a key and lets it go: `Key::Ret`; or keys together: `[Key::Ctrl, Key::C]`.
    ///
    /// # Errors
    ///
    /// [`Error::NoDisplay`]
    pub async fn press_key(&self, keys: impl Into<Chord>) -> Result<()> {
        let vm = shown(self).await?;
        for events in keys.into().events().chunks(AT_ONCE) {
            input(&vm, events.to_vec()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_on_the_keys_of_the_us_layout() {
        let keys = |character| Chord::of(character).map(|chord| chord.0);
        assert_eq!(keys('a'), Some(vec![Key::A]));
        assert_eq!(keys('A'), Some(vec![Key::Shift, Key::A]));
        assert_eq!(keys('7'), Some(vec![Key::Digit7]));
        for (shifted, key) in
            [(')', Key::Digit0), ('(', Key::Digit9), ('_', Key::Minus), ('"', Key::Apostrophe), ('?', Key::Slash)]
        {
            assert_eq!(keys(shifted), Some(vec![Key::Shift, key]), "{shifted}");
        }
        assert!((' '..='~').chain(['\n', '\t']).all(|character| keys(character).is_some()));
        assert_eq!((keys('ü'), keys('\x1b')), (None, None));
    }

    #[test]
    fn keys_go_down_in_order_and_up_in_reverse() {
        let events = Chord::from([Key::Ctrl, Key::C]).events();
        let told: Vec<_> =
            events.iter().map(|event| (event["data"]["down"] == true, event["data"]["key"]["data"].as_str())).collect();
        assert_eq!(told, [(true, Some("ctrl")), (true, Some("c")), (false, Some("c")), (false, Some("ctrl"))]);
    }
}
