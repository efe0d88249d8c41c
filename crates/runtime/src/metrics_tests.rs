use super::*;
use crate::{cache::Cache, testing::FakeApi};

#[tokio::test(start_paused = true)]
async fn shows_the_age_of_every_kind() {
    let cache = Cache::start(FakeApi::new().client(), &tokio_util::sync::CancellationToken::new());
    let ages = SnapshotAge::new(cache.snapshots().clone()).unwrap();
    let values = || -> Vec<f64> { ages.collect()[0].get_metric().iter().map(|m| m.get_gauge().get_value()).collect() };
    assert_eq!(values(), [f64::INFINITY; 7]);
    crate::testing::eventually("fresh", || cache.snapshots().fresh().ok()).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(values().iter().all(|age| (4.0..=6.0).contains(age)), "{:?}", values());
}
