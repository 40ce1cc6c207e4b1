//! Lua scripts: one headed file per atomic operation, called by hash.

use std::sync::LazyLock;

use ::redis::Cmd;

/// A Lua script, created once, as a static, from its file.
pub struct Script {
    body: &'static str,
    hash: LazyLock<String, Box<dyn FnOnce() -> String + Send>>,
}

impl Script {
    /// Creates the script with this text.
    pub fn new(body: &'static str) -> Self {
        Self { body, hash: LazyLock::new(Box::new(move || ::redis::Script::new(body).get_hash().to_owned())) }
    }

    /// Returns an `EVALSHA` with these keys, to which arguments can be added.
    pub fn call(&self, keys: &[&str]) -> Cmd {
        let mut cmd = ::redis::cmd("EVALSHA");
        cmd.arg(self.hash.as_str()).arg(keys.len());
        for key in keys {
            cmd.arg(*key);
        }
        cmd
    }

    /// Returns its `SCRIPT LOAD`.
    pub(crate) fn load(&self) -> Cmd {
        ::redis::cmd("SCRIPT").arg("LOAD").arg(self.body).take()
    }

    /// Returns the same call with the whole script, for a server that does not know the hash.
    pub(crate) fn whole(&self, call: &Cmd) -> Cmd {
        let mut cmd = ::redis::cmd("EVAL");
        cmd.arg(self.body);
        for arg in call.args_iter().skip(2) {
            if let ::redis::Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}
