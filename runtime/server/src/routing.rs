//! Which queues an event goes to.

use std::sync::{PoisonError, RwLock};

use gristmill_core::{Event, QueueName, Subscription};

/// The subscriptions of every handler, as they are now.
#[derive(Debug, Default)]
pub struct Router {
    routes: RwLock<Vec<Route>>,
}

/// A handler's queue, and what it subscribes to.
pub type Route = (QueueName, Vec<Subscription>);

impl Router {
    /// Every handler's queue with what it subscribes to.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self { routes: RwLock::new(routes.into_iter().collect()) }
    }

    /// The queues that want `event`, each once, in the order of configuration.
    #[must_use]
    pub fn route(&self, event: &Event) -> Vec<QueueName> {
        let wants = |subscriptions: &[Subscription]| subscriptions.iter().any(|wanted| wanted.matches(event));
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.iter().filter(|(_, subscriptions)| wants(subscriptions)).map(|(queue, _)| queue.clone()).collect()
    }

    /// Whether a handler works on this queue.
    #[must_use]
    pub fn serves(&self, queue: &QueueName) -> bool {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).iter().any(|(served, _)| served == queue)
    }

    /// Other subscriptions take the place of all that there are: an event goes by the old ones or by the new ones.
    pub fn set(&self, routes: impl IntoIterator<Item = Route>) {
        let routes = routes.into_iter().collect();
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }
}

#[cfg(test)]
mod tests {
    use gristmill_core::Pattern;

    use super::*;

    #[test]
    fn an_event_goes_once_to_every_queue_that_wants_it() {
        let on = |ty: &str| Subscription { ty: Some(Pattern::new(ty)), ..Subscription::default() };
        let name = |name: &str| QueueName::new(name).unwrap();
        let router = Router::new([
            (name("all"), vec![on("order.*"), on("*")]),
            (name("paid"), vec![on("order.paid")]),
            (name("none"), vec![]),
        ]);
        assert_eq!(router.route(&Event::new("1", "/", "order.paid")), [name("all"), name("paid")]);
        assert_eq!(router.route(&Event::new("1", "/", "refund")), [name("all")]);
        router.set([(name("none"), vec![on("refund")])]);
        assert_eq!(router.route(&Event::new("1", "/", "refund")), [name("none")]);
    }
}
