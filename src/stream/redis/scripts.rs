//! The stream's Lua scripts. What each takes and returns stands in its file.

use std::sync::LazyLock;

use crate::redis::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)+) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file, ".lua"))));)+

        /// All of them, for the connection to load.
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    PUBLISH = "publish";
    ENDS = "ends";
    RETRY = "retry";
    REPLAY = "replay";
    LEAVE = "leave";
}
