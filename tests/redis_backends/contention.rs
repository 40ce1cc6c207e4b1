//! Many processes on one entry: real processes, each this test binary run again.

use crate::conformance::name;
use std::process::{Command, Stdio};

use nvent_native::store::StoreBackend;
use serde_json::json;

use crate::support::TestRedis;
use crate::{connection_to, object, store_on, value};

const PORT: &str = "NVENT_TEST_REDIS_PORT";
const NAME: &str = "NVENT_TEST_PROCESS";

#[tokio::test]
async fn four_processes_with_fifty_simultaneous_updates_each_lose_none() {
    if let (Ok(port), Ok(name)) = (std::env::var(PORT), std::env::var(NAME)) {
        return update_fifty_times(port.parse().unwrap(), &name).await;
    }
    let redis = TestRedis::start();
    let store = store_on(connection_to(redis.port()));
    store.index_add(name("i"), name("run"), 1.0, object(json!({"seen": {}}))).await.unwrap();
    let this = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..4)
        .map(|n| {
            Command::new(&this)
                .args(["--exact", "contention::four_processes_with_fifty_simultaneous_updates_each_lose_none"])
                .env(PORT, redis.port().to_string())
                .env(NAME, format!("p{n}"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
    }
    let metadata = value(&store.index_get(name("i"), name("run")).await.unwrap().unwrap().metadata);
    assert_eq!((&metadata["version"], &metadata["n"]), (&json!(400), &json!(200)));
    for process in 0..4 {
        assert_eq!(metadata["seen"][format!("p{process}")].as_object().unwrap().len(), 50);
    }
}

async fn update_fifty_times(port: u16, process: &str) {
    let store = store_on(connection_to(port));
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let patch = object(json!({"seen": {process: {format!("u{n}"): n}}}));
            (
                store.index_update(name("i"), name("run"), patch, None),
                store.index_increment(name("i"), name("run"), name("n"), 1.0),
            )
        })
        .collect();
    for (update, increment) in calls {
        assert!(update.await.unwrap());
        increment.await.unwrap();
    }
}
