//! Replies: server errors as this crate's errors, values as Rust values.

use ::redis::{ServerError, Value};

use crate::error::{Code, Error, Result};

/// The error reply of a server, as the source of an [`Error`].
#[derive(Debug)]
pub(crate) struct ServerReply {
    code: String,
    details: String,
}

impl std::fmt::Display for ServerReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.details)
    }
}

impl std::error::Error for ServerReply {}

/// Returns the code of the server's reply that caused this error. Its text may quote names that users chose, so decisions
/// depend on the code alone.
pub(crate) fn server_code(error: &Error) -> Option<&str> {
    let reply = std::error::Error::source(error)?.downcast_ref::<ServerReply>()?;
    Some(&reply.code)
}

/// Returns whether a replica replied to a write.
pub(crate) fn is_read_only(error: &ServerError) -> bool {
    cause(error).0 == "READONLY"
}

/// Returns the code and the details of the cause. Redis before 7 wraps the errors of commands inside scripts:
/// `ERR Error running script (call to f_<hash>): @user_script:<line>: @user_script: <line>: <error>`. What precedes the
/// cause is the server's own text, so names that users chose cannot be taken for it.
fn cause(error: &ServerError) -> (&str, &str) {
    let (code, details) = (error.code(), error.details().unwrap_or_default());
    if code != "ERR" {
        return (code, details);
    }
    let Some(mut rest) = details.strip_prefix("Error running script (call to f_").and_then(|d| d.split_once("): "))
    else {
        return (code, details);
    };
    while let Some((_, inner)) = rest.1.strip_prefix("@user_script:").and_then(|line| line.split_once(": ")) {
        rest.1 = inner;
    }
    let inner = rest.1.trim_start_matches('-');
    match inner.split_once(' ') {
        Some((code, details)) if code.len() > 1 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
            (code, details)
        }
        _ => ("ERR", inner),
    }
}

/// Converts a server's error reply. `what` names the operation.
pub(crate) fn server_error(what: &str, error: &ServerError) -> Error {
    let (code, details) = cause(error);
    let says = |advice: &str| format!("{what}: Redis replied {code} {details} ({advice})");
    let converted = match code {
        "LOADING" => Error::unavailable(says("it is loading its data set: try again")),
        "READONLY" => Error::unavailable(says("it is a replica: try again when the primary is back")),
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
            Error::unavailable(says("Redis Cluster is not supported: use a single primary")).permanent()
        }
        // Errors that this package's scripts raise have its codes.
        "NVENT_TYPE" => Error::wrong_type(details),
        "NVENT_INVALID" => Error::invalid(details),
        "ERR" if details == "max number of clients reached" => {
            Error::unavailable(says("it accepts no further connection: raise maxclients"))
        }
        // A denial inside a script. The texts are those of Redis 7 and later, and of Redis 6; names follow after them.
        "ERR"
            if ["ACL failure in script", "The user executing the script can't"]
                .iter()
                .any(|t| details.starts_with(t)) =>
        {
            Error::unavailable(says("the user's ACL does not allow it")).permanent()
        }
        _ => Error::new(Code::Invalid, says("the server refused the command")),
    };
    converted.with_source(ServerReply { code: code.into(), details: details.into() })
}

/// Returns the error for a reply that the command does not promise: from a proxy, or a server that is not Redis.
fn unexpected_reply(value: &Value) -> Error {
    Error::corrupt(format!("Redis sent an unexpected reply: {value:.80?}"))
}

/// Reads a reply that is an integer.
pub fn int(value: Value) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(n),
        other => Err(unexpected_reply(&other)),
    }
}

/// Reads a reply that is text.
pub fn text(value: Value) -> Result<String> {
    optional_text(value)?.ok_or_else(|| unexpected_reply(&Value::Nil))
}

/// Reads a reply that is text or nil. Bytes that are not UTF-8 are replaced.
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
        other => Err(unexpected_reply(&other)),
    }
}

/// Reads a reply that is a list. Nil is an empty list.
pub fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected_reply(&other)),
    }
}

/// Reads a reply that is a list of texts.
pub fn texts(value: Value) -> Result<Vec<String>> {
    list(value)?.into_iter().map(text).collect()
}

/// Reads a list of texts as pairs.
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
            panic!("{text} is not an error reply");
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
            ("NOREPLICAS Not enough good replicas to write.", Code::Unavailable, true),
            ("BUSY Redis is busy running a script.", Code::Unavailable, true),
            ("UNBLOCKED force unblock from blocking operation", Code::Unavailable, true),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Code::Unavailable, true),
            ("DENIED Redis is running in protected mode", Code::Unavailable, false),
            ("CLUSTERDOWN The cluster is down", Code::Unavailable, false),
            ("CROSSSLOT Keys in request don't hash to the same slot", Code::Unavailable, false),
            ("ASK 3999 127.0.0.1:6381", Code::Unavailable, false),
            ("NOAUTH Authentication required.", Code::Unavailable, false),
            ("WRONGPASS invalid username-password pair", Code::Unavailable, false),
            ("NOPERM User x has no permissions", Code::Unavailable, false),
            ("ERR The user executing the script can't run this command or subcommand", Code::Unavailable, false),
            ("MOVED 3999 127.0.0.1:6381", Code::Unavailable, false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Code::Type, false),
            (
                "ERR ACL failure in script: No permissions to access a key script: x, on @user_script:1.",
                Code::Unavailable,
                false,
            ),
            ("ERR unknown command 'XADD'", Code::Invalid, false),
        ] {
            let error = error(text);
            assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{text}");
        }
    }

    #[test]
    fn errors_of_commands_inside_scripts_of_redis_6_are_those_of_the_commands() {
        let wrapped = |text: &str| {
            error(&format!("ERR Error running script (call to f_0123): @user_script:12: @user_script: 12: {text}"))
        };
        for (text, code, retryable) in [
            ("-READONLY You can't write against a read only replica.", Code::Unavailable, true),
            ("-OOM command not allowed when used memory > 'maxmemory'.", Code::Unavailable, true),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Code::Type, false),
            ("The user executing the script can't access at least one of the keys", Code::Unavailable, false),
            ("ERR value is not an integer or out of range", Code::Invalid, false),
        ] {
            let error = wrapped(text);
            assert_eq!((error.code(), error.is_retryable()), (code, retryable), "{text}: {error}");
        }
        // The code and the text of the cause are what the message has, and what decisions depend on.
        for (text, code, says) in [
            ("-BUSYGROUP Consumer Group name exists", "BUSYGROUP", "BUSYGROUP Consumer Group name exists"),
            ("NVENT_OTHER a b", "NVENT_OTHER", "NVENT_OTHER a b"),
            ("Unknown Redis command", "ERR", "ERR Unknown Redis command"),
            ("x: 1: lost", "ERR", "ERR x: 1: lost"),
            ("7: lost", "ERR", "ERR 7: lost"),
            ("E x", "ERR", "ERR E x"),
        ] {
            let error = wrapped(text);
            assert_eq!(server_code(&error), Some(code), "{text}");
            assert!(error.message().contains(&format!("replied {says} (")), "{text}: {error}");
        }
        let unmarked = error("ERR Error running script (call to f_0123): @user_script:12: a: b");
        assert!(unmarked.message().contains("replied ERR a: b ("), "{unmarked}");
        let other = error("WRONGTYPE Error running script (call to f_0): @user_script:1: OOM x");
        assert_eq!(other.code(), Code::Type);
    }

    #[test]
    fn names_in_an_error_do_not_change_its_meaning() {
        for name in [
            "READONLY",
            "-OOM",
            "max number of clients",
            "permission",
            "WRONGTYPE",
            "BUSYGROUP",
            "ACL failure in script",
        ] {
            let refused = error(&format!("NVENT_TYPE key \"{name}\": the value there is no number"));
            assert_eq!(refused.code(), Code::Type, "{name}");
            let unknown = error(&format!("ERR no such thing as {name}"));
            assert_eq!((unknown.code(), unknown.is_retryable()), (Code::Invalid, false), "{name}");
            assert_eq!(server_code(&unknown), Some("ERR"));
        }
    }
}
