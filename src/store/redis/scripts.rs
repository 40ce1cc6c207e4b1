//! The store's Lua scripts. Keys, arguments and replies are documented in each file.

use std::sync::LazyLock;

use crate::redis::Script;

macro_rules! scripts {
    ($($name:ident = $($file:literal),+;)+) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file, ".lua"))),+)));)+

        /// Returns all scripts, for the connection to load.
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    APPEND = "feed_add", "append";
    IMPORT = "feed_add", "import";
    READ = "read";
    DELETE_SUBJECT = "delete_subject";
    FEED_HEAD = "feed_head";
    FEED_EVENTS = "feed_events";
    FEED_ADOPT = "feed_add", "feed_adopt";
    CLAIM = "claim";
    CLAIM_RENEW = "claim_renew";
    CONSUMER_ACQUIRE = "consumer_acquire";
    CONSUMER_RENEW = "consumer_renew";
    CONSUMER_SAVE = "consumer_save";
    CONSUMER_LIST = "consumer_list";
    CONSUMER_DELETE = "consumer_delete";
    CONSUMER_PARKED = "consumer_parked";
    CONSUMER_REPLAY = "consumer_replay";
    KV_PAGE = "kv_page";
    KV_SET = "kv_keys", "kv_set";
    KV_DELETE = "kv_delete";
    KV_CLEAR = "kv_clear";
    KV_INCREMENT = "number", "kv_keys", "kv_increment";
    INDEX_ADD = "index_add";
    INDEX_GET = "index_get";
    INDEX_READ = "number", "index_read";
    INDEX_UPDATE = "index_update";
    INDEX_INCREMENT = "number", "index_increment";
    INDEX_DELETE = "index_delete";
}
