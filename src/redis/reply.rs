//! Replies: server errors as our errors, values as Rust values.

use ::redis::{ServerError, Value};

use crate::error::{Code, Error, Result};

/// What a server's error means to the caller. `what` names the command and the server.
pub(crate) fn server_error(what: &str, error: &ServerError) -> Error {
    let details = error.details().unwrap_or_default();
    let code = error.code();
    let says = |advice: &str| format!("{what}: Redis says {code} {details} ({advice})");
    match code {
        "LOADING" => Error::unavailable(says("it is reading its data set: try again")),
        "READONLY" => Error::unavailable(says("a replica answered: try again when the primary is back")),
        "MASTERDOWN" => Error::unavailable(says("its primary is down: try again")),
        "OOM" => Error::unavailable(says("its memory is full: raise maxmemory or delete something")),
        "MISCONF" | "NOREPLICAS" => Error::unavailable(says("it accepts no writes now")),
        "BUSY" | "UNBLOCKED" | "TRYAGAIN" => Error::unavailable(says("try again")),
        "NOAUTH" | "WRONGPASS" | "DENIED" => {
            Error::unavailable(says("check connection.username and connection.password")).permanent()
        }
        "NOPERM" => Error::unavailable(says("the user's ACL does not allow it")).permanent(),
        "WRONGTYPE" => Error::wrong_type(format!("{what}: the key holds another kind of value")),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => {
            Error::unavailable(says("Redis Cluster is not supported: name a single primary")).permanent()
        }
        _ if details.contains("max number of clients") => {
            Error::unavailable(says("it has no room for another connection: raise maxclients"))
        }
        // Errors that our scripts raise name a code of ours.
        "NVENT_TYPE" => Error::wrong_type(details),
        "NVENT_INVALID" => Error::invalid(details),
        // A server that wraps the errors of commands inside scripts (Redis before 7) still names the cause.
        _ if details.contains("-OOM") || details.contains("OOM command not allowed") => {
            Error::unavailable(says("its memory is full: raise maxmemory or delete something"))
        }
        _ if details.contains("-READONLY") => Error::unavailable(says("a replica answered")),
        _ if details.contains("WRONGTYPE") => Error::wrong_type(format!("{what}: the key holds another kind of value")),
        // Inside a script an ACL denial comes as ERR.
        _ if details.contains("permission") => Error::unavailable(says("the user's ACL does not allow it")).permanent(),
        _ => Error::new(Code::Invalid, says("the server refused the command")),
    }
}

/// The reply was not what the command promises: a proxy or a server that is no Redis.
fn odd(value: &Value) -> Error {
    Error::corrupt(format!("Redis sent an unexpected reply: {value:.80?}"))
}

/// A reply that is an integer.
pub fn int(value: Value) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(n),
        other => Err(odd(&other)),
    }
}

/// A reply that is text.
pub fn text(value: Value) -> Result<String> {
    optional_text(value)?.ok_or_else(|| odd(&Value::Nil))
}

/// A reply that is text or nothing. Bytes that are no UTF-8 are replaced.
pub fn optional_text(value: Value) -> Result<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        })),
        Value::SimpleString(text) => Ok(Some(text)),
        Value::Okay => Ok(Some("OK".into())),
        Value::Int(n) => Ok(Some(n.to_string())),
        other => Err(odd(&other)),
    }
}

/// A reply that is a list. Nothing is an empty one.
pub fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd(&other)),
    }
}

/// A reply that is a list of texts.
pub fn texts(value: Value) -> Result<Vec<String>> {
    list(value)?.into_iter().map(text).collect()
}

/// A list of texts taken two by two.
pub fn pairs(value: Value) -> Result<Vec<(String, String)>> {
    let mut texts = texts(value)?.into_iter();
    let mut pairs = Vec::with_capacity(texts.len() / 2);
    while let (Some(name), Some(text)) = (texts.next(), texts.next()) {
        pairs.push((name, text));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Error {
        let Ok(Value::ServerError(error)) = ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) else {
            panic!("{text} is no error reply");
        };
        server_error("SET", &error)
    }

    #[test]
    fn server_errors_say_whether_a_retry_makes_sense() {
        for (text, code, retryable) in [
            ("LOADING Redis is loading the dataset in memory", Code::Unavailable, true),
            ("READONLY You can't write against a read only replica.", Code::Unavailable, true),
            ("MASTERDOWN Link with MASTER is down", Code::Unavailable, true),
            ("OOM command not allowed when used memory > 'maxmemory'.", Code::Unavailable, true),
            ("ERR max number of clients reached", Code::Unavailable, true),
            ("MISCONF Redis is configured to save RDB snapshots", Code::Unavailable, true),
            ("NOAUTH Authentication required.", Code::Unavailable, false),
            ("WRONGPASS invalid username-password pair", Code::Unavailable, false),
            ("NOPERM User x has no permissions", Code::Unavailable, false),
            ("ERR The user executing the script can't run this command: no permission", Code::Unavailable, false),
            ("MOVED 3999 127.0.0.1:6381", Code::Unavailable, false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Code::Type, false),
            ("ERR unknown command 'XADD'", Code::Invalid, false),
        ] {
            let error = error(text);
            assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{text}");
        }
    }
}
