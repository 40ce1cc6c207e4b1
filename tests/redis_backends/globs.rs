//! Our globs against the matcher of a real Redis.

use nvent_native::topic::Glob;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Raw, TestRedis};

#[test]
fn globs_agree_with_a_real_redis() {
    let redis = TestRedis::start();
    let connection = std::cell::RefCell::new(Raw::connect(redis.port()));
    // With one key in the database, KEYS is exactly one call of its matcher.
    let script =
        "redis.call('SET', KEYS[1], ''); local n = #redis.call('KEYS', ARGV[1]); redis.call('DEL', KEYS[1]); return n";
    let pattern = "[ab:*?\\[\\]^\\\\\u{e4}-]{0,8}";
    let mut runner = TestRunner::new(Config { cases: 3_000, failure_persistence: None, ..Config::default() });
    runner
        .run(&(pattern, "[ab:*?\\[\\]^\\\\\u{e4}-]{1,6}"), |(pattern, topic)| {
            let reply = connection.borrow_mut().call(&["EVAL", script, "1", &topic, &pattern]);
            prop_assert_eq!(
                redis::Value::Int(Glob::new(&pattern).matches(&topic).into()),
                reply,
                "{:?} on {:?}",
                pattern,
                topic
            );
            Ok(())
        })
        .unwrap();
}
