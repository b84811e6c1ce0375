//! Which queues an event goes to.

use gristmill_core::{Event, QueueName, Subscription};

/// The subscriptions of every handler.
#[derive(Clone, Debug, Default)]
pub struct Router {
    routes: Vec<(QueueName, Vec<Subscription>)>,
}

impl Router {
    /// Every handler's queue with what it subscribes to.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = (QueueName, Vec<Subscription>)>) -> Self {
        Self { routes: routes.into_iter().collect() }
    }

    /// The queues that want `event`, each once, in the order of configuration.
    #[must_use]
    pub fn route(&self, event: &Event) -> Vec<QueueName> {
        let wants = |subscriptions: &[Subscription]| subscriptions.iter().any(|wanted| wanted.matches(event));
        self.routes.iter().filter(|(_, subscriptions)| wants(subscriptions)).map(|(queue, _)| queue.clone()).collect()
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
    }
}
