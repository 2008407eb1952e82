//! Collects the alarms in the log of this thread.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry::Registry,
};

/// The texts of the alarms so far.
pub struct Alarms {
    texts: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Alarms {
    /// Collects the alarms of this thread until this value is dropped.
    pub fn collect() -> Self {
        let texts = Arc::new(Mutex::default());
        let subscriber = Registry::default().with(Listener(texts.clone()));
        Self { texts, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Returns the alarms since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().unwrap())
    }
}

struct Listener(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        event.record(&mut Message(&mut text));
        if text.contains("ALERT") {
            self.0.lock().unwrap().push(text);
        }
    }
}

struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}
