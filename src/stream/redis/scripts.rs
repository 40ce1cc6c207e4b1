//! The stream's Lua scripts. The head of each file says what it takes and returns.

use std::sync::LazyLock;

use crate::redis::Script;

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)+) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file, ".lua"))),+)));)+

        /// Returns all scripts, for a connection to load.
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    PUBLISH = "retain" "publish";
    TAIL_IDS = "tail_ids";
    RETRY = "retry";
    REPLAY = "retain" "replay";
    LEAVE = "leave";
    TAKE_TRIMMED = "take_trimmed";
}
