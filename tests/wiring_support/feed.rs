//! A coordinator that follows the feed of a store, as its tests start it.

use std::sync::Arc;

use nvent_native::store::StoreBackend;
use nvent_native::time::system_clock;
use nvent_native::wiring::channels::ChannelOptions;
use nvent_native::wiring::coordinator::{CONSUMER, CoordinatorOptions, FeedCoordinator};
use nvent_native::wiring::{Publisher, Wiring};
use tokio::runtime::Handle;

pub(crate) fn options() -> CoordinatorOptions {
    CoordinatorOptions::new(ChannelOptions { flow_events: false, ..ChannelOptions::new("me") })
}

pub(crate) async fn started(
    store: &Arc<dyn StoreBackend>,
    stream: &Arc<impl Publisher>,
    options: CoordinatorOptions,
) -> FeedCoordinator {
    let (runtime, clock) = (Handle::current(), system_clock());
    let coordinator = FeedCoordinator::new(store.clone(), stream.clone(), CONSUMER, options, runtime, clock).unwrap();
    coordinator.start().await.unwrap();
    coordinator
}
