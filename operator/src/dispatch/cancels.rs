//! Wishes to cancel a call, handed on to the edges: the replica that is asked may not be the one that runs it. Kept in memory and only for a moment; a
//! wish that no edge hears has no effect, and its call ends as it would have. Nothing here ends anything itself.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use polity_runtime::internal::{Cancels as Page, CancelsRequest};
use tokio::{sync::Notify, time::Instant};

/// Wishes that are kept. An edge asks again at once, so it is never this far behind.
const KEPT: usize = 1024;

/// The wishes of this epoch.
#[derive(Debug, Default)]
pub struct Cancels {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    last: i64,
    keys: VecDeque<(i64, String)>,
}

impl Cancels {
    /// Tells every edge that asks.
    pub fn tell(&self, key: String) {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.last += 1;
            let seq = kept.last;
            kept.keys.push_back((seq, key));
            if kept.keys.len() > KEPT {
                kept.keys.pop_front();
            }
        }
        self.news.notify_waiters();
    }

    /// The wishes after a position, as soon as there is one or the time is over. A position of another epoch is the beginning.
    pub async fn after(&self, request: &CancelsRequest, epoch: i64, longest: Duration) -> Page {
        let after = if request.epoch == epoch { request.after } else { 0 };
        let deadline = Instant::now() + longest;
        loop {
            // Before looking, so that nothing told in between is missed.
            let news = self.news.notified();
            let page = self.page(after, epoch);
            if !page.keys.is_empty() || tokio::time::timeout_at(deadline, news).await.is_err() {
                return page;
            }
        }
    }

    fn page(&self, after: i64, epoch: i64) -> Page {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = kept.keys.iter().filter(|(seq, _)| *seq > after).map(|(_, key)| key.clone()).collect();
        Page { epoch, next: kept.last.max(after), keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn from(epoch: i64, after: i64) -> CancelsRequest {
        CancelsRequest { epoch, after, wait: 0 }
    }

    #[tokio::test]
    async fn a_wish_is_told_to_who_waits_and_to_who_comes_a_little_later() {
        let cancels = Cancels::default();
        assert_eq!(cancels.after(&from(4, 0), 4, Duration::ZERO).await, Page { epoch: 4, next: 0, keys: vec![] });
        let (waiting, later) = (from(4, 0), from(4, 1));
        let (page, ()) = tokio::join!(cancels.after(&waiting, 4, LONG), async { cancels.tell("a".into()) });
        assert_eq!(page, Page { epoch: 4, next: 1, keys: vec!["a".into()] });
        cancels.tell("b".into());
        assert_eq!(cancels.after(&later, 4, LONG).await.keys, ["b"]);
        assert_eq!(cancels.after(&from(4, 2), 4, Duration::ZERO).await, Page { epoch: 4, next: 2, keys: vec![] });
    }

    #[tokio::test]
    async fn a_position_of_another_epoch_is_the_beginning() {
        let cancels = Cancels::default();
        cancels.tell("a".into());
        assert_eq!(cancels.after(&from(3, 9), 4, LONG).await, Page { epoch: 4, next: 1, keys: vec!["a".into()] });
    }

    #[tokio::test]
    async fn only_so_many_are_kept() {
        let cancels = Cancels::default();
        (0..KEPT + 2).for_each(|n| cancels.tell(n.to_string()));
        let page = cancels.after(&from(1, 0), 1, LONG).await;
        assert_eq!((page.keys.len(), page.keys[0].as_str()), (KEPT, "2"));
    }
}
