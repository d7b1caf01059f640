//! What the adapter counts, and the macro with which every part of Carillon declares its metrics.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

#[doc(hidden)]
pub use prometheus;

/// What is known about one metric; the reference page is made from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    /// The name, with prefix and unit.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// What is measured.
    pub help: &'static str,
}

/// A type that the macro [`metrics!`](crate::metrics!) can declare.
pub trait Metric: Collector + Clone + Sized + 'static {
    /// `counter`, `gauge` or `histogram`.
    const KIND: &'static str;

    /// Makes the metric, without any sample yet.
    fn build(info: &MetricInfo, buckets: &[f64]) -> prometheus::Result<Self>;
}

macro_rules! plain_metric {
    ($($type:ty: $kind:literal;)*) => {$(
        impl Metric for $type {
            const KIND: &'static str = $kind;

            fn build(info: &MetricInfo, _buckets: &[f64]) -> prometheus::Result<Self> {
                Self::with_opts(Opts::new(info.name, info.help))
            }
        }
    )*};
}

macro_rules! labelled_metric {
    ($($type:ty: $kind:literal;)*) => {$(
        impl Metric for $type {
            const KIND: &'static str = $kind;

            fn build(info: &MetricInfo, _buckets: &[f64]) -> prometheus::Result<Self> {
                Self::new(Opts::new(info.name, info.help), info.labels)
            }
        }
    )*};
}

plain_metric! {
    IntCounter: "counter";
    IntGauge: "gauge";
}

labelled_metric! {
    IntCounterVec: "counter";
    IntGaugeVec: "gauge";
}

fn histogram_opts(info: &MetricInfo, buckets: &[f64]) -> HistogramOpts {
    let opts = HistogramOpts::new(info.name, info.help);
    if buckets.is_empty() { opts } else { opts.buckets(buckets.to_vec()) }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn build(info: &MetricInfo, buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(histogram_opts(info, buckets))
    }
}

impl Metric for HistogramVec {
    const KIND: &'static str = "histogram";

    fn build(info: &MetricInfo, buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(histogram_opts(info, buckets), info.labels)
    }
}

/// Makes a metric and adds it to the registry.
pub fn register<M: Metric>(
    registry: &Registry,
    info: &MetricInfo,
    buckets: &[f64],
) -> prometheus::Result<M> {
    let metric = M::build(info, buckets)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Declares a struct of metrics. The doc comment of a field is the help text of its metric.
///
/// The struct can be cloned, is made by `register(&Registry)`, and lists its metrics by `inventory()`.
///
/// ```
/// adapter::metrics! {
///     /// What the kitchen counts.
///     pub struct KitchenMetrics {
///         /// Meals served, by kind.
///         pub meals: IntCounterVec = "carillon_kitchen_meals_total", ["kind"];
///         /// Time from order to table.
///         pub waiting: Histogram = "carillon_kitchen_waiting_seconds", buckets [1.0, 5.0, 25.0];
///         /// Orders that wait.
///         pub orders: IntGauge = "carillon_kitchen_orders";
///     }
/// }
///
/// let registry = adapter::metrics::prometheus::Registry::new();
/// let metrics = KitchenMetrics::register(&registry).expect("no name is taken");
/// metrics.meals.with_label_values(&["soup"]).inc();
/// assert_eq!(KitchenMetrics::inventory()[0].help, "Meals served, by kind.");
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])*
                $field_vis:vis $field:ident: $type:ident = $metric:literal
                    $(, [$($label:literal),* $(,)?])?
                    $(, buckets [$($bucket:expr),* $(,)?])?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(
                $(#[doc = $help])*
                $field_vis $field: $crate::metrics::prometheus::$type,
            )*
        }

        impl $name {
            const INVENTORY: &'static [$crate::metrics::MetricInfo] = &[
                $($crate::metrics::MetricInfo {
                    name: $metric,
                    kind: <$crate::metrics::prometheus::$type as $crate::metrics::Metric>::KIND,
                    labels: &[$($($label),*)?],
                    help: concat!($($help),*).trim_ascii(),
                },)*
            ];

            /// Makes the metrics and adds them to the registry.
            $vis fn register(
                registry: &$crate::metrics::prometheus::Registry,
            ) -> $crate::metrics::prometheus::Result<Self> {
                let mut inventory = Self::INVENTORY.iter();
                let mut next = || inventory.next().expect("one entry for each field");
                Ok(Self {
                    $($field: $crate::metrics::register(registry, next(), &[$($($bucket),*)?])?,)*
                })
            }

            /// What is known about the metrics, in the order of the fields.
            $vis fn inventory() -> &'static [$crate::metrics::MetricInfo] {
                Self::INVENTORY
            }
        }
    };
}

crate::metrics! {
    /// What the adapter counts.
    pub struct AdapterMetrics {
        /// 1 while the link to Redis is up, else 0.
        pub redis_link_up: IntGauge = "carillon_redis_link_up";
        /// Time from publishing a probe to receiving it back.
        pub redis_probe_seconds: Histogram = "carillon_redis_probe_seconds",
            // From a loopback to what is as good as a miss.
            buckets [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0];
        /// Probes that did not come back in time.
        pub redis_probe_misses_total: IntCounter = "carillon_redis_probe_misses_total";
        /// How often a lost link to Redis was established again.
        pub redis_reconnects_total: IntCounter = "carillon_redis_reconnects_total";
        /// Messages for other nodes by result: accepted by Redis, refused by it, sent without an answer
        /// (unknown), not sent because the link was down (link_down), the queue full (queue_full), or the
        /// wait too long (expired), or not fit to be sent (invalid, too_large).
        pub cluster_published_total: IntCounterVec = "carillon_cluster_published_total", ["result"];
        /// Messages from other nodes by result: delivered, for a room without members here (no_room), our
        /// own echo (own), of a kind that is not served or an answer that nobody waits for (ignored), not
        /// understood (malformed), for another namespace (foreign), dropped because the queue was full
        /// (overflow) or because of their size (too_large), or not taken because too much was asked at
        /// once (refused).
        pub cluster_received_total: IntCounterVec = "carillon_cluster_received_total", ["result"];
        /// Messages that wait to be published or for Redis to answer.
        pub publish_queue_depth: IntGauge = "carillon_cluster_publish_queue_depth_frames";
        /// How many messages may wait to be published.
        pub publish_queue_limit: IntGauge = "carillon_cluster_publish_queue_limit_frames";
        /// Messages of other nodes that wait to be delivered, over all namespaces.
        pub receive_queue_depth: IntGauge = "carillon_cluster_receive_queue_depth_frames";
        /// How many messages of other nodes may wait in one namespace.
        pub receive_queue_limit: IntGauge = "carillon_cluster_receive_queue_limit_frames";
        /// Requests of this node to all others by result: everybody has answered (complete), not everybody
        /// did in time (timeout), there was no link (link_down), too much waited for answers (overload), not
        /// fit to be sent (invalid), or the caller had gone (abandoned).
        pub cluster_requests_total: IntCounterVec = "carillon_cluster_requests_total", ["result"];
        /// Requests of this node that wait for answers.
        pub requests_pending: IntGauge = "carillon_cluster_requests_pending";
        /// How many requests may wait for answers.
        pub requests_pending_limit: IntGauge = "carillon_cluster_requests_pending_limit";
        /// Answers of other servers by result: taken, to a request of this node that is over (late), to a
        /// request of another server (foreign), a second one of the same server or socket (duplicate), of
        /// another kind than was asked for (unfit), more than is kept (overflow), or not understood
        /// (malformed).
        pub cluster_responses_total: IntCounterVec = "carillon_cluster_responses_total", ["result"];
        /// Answers of this node to other servers by result: queued to be published, empty because too much
        /// was asked at once (refused), empty because of their size (too_large), or not sent (lost).
        pub cluster_answers_total: IntCounterVec = "carillon_cluster_answers_total", ["result"];
        /// Questions of other servers whose answer takes time.
        pub answers_pending: IntGauge = "carillon_cluster_answers_pending";
        /// How many such questions there may be at once.
        pub answers_pending_limit: IntGauge = "carillon_cluster_answers_pending_limit";
        /// Channels of rooms that this node follows.
        pub rooms_followed: IntGauge = "carillon_cluster_rooms_followed";
        /// How often another node was found to have the tag of this one.
        pub tag_collisions_total: IntCounter = "carillon_cluster_tag_collisions_total";
        /// How often messages of other nodes may have been lost, by cause.
        pub gaps_total: IntCounterVec = "carillon_cluster_gaps_total", ["cause"];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_is_what_the_registry_shows() {
        let registry = Registry::new();
        let metrics = AdapterMetrics::register(&registry).expect("no name is taken");
        metrics.cluster_published_total.with_label_values(&["accepted"]).inc();
        metrics.cluster_received_total.with_label_values(&["own"]).inc();
        metrics.gaps_total.with_label_values(&["overflow"]).inc();
        metrics.cluster_requests_total.with_label_values(&["complete"]).inc();
        metrics.cluster_responses_total.with_label_values(&["taken"]).inc();
        metrics.cluster_answers_total.with_label_values(&["queued"]).inc();
        let mut shown: Vec<_> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let mut listed: Vec<_> = AdapterMetrics::inventory().iter().map(|info| info.name).collect();
        shown.sort_unstable();
        listed.sort_unstable();
        assert_eq!(shown, listed);
        assert!(listed.iter().all(|name| name.starts_with("carillon_")));
    }

    #[test]
    fn help_texts_are_one_line() {
        let info = AdapterMetrics::inventory()[4];
        assert_eq!((info.kind, info.labels), ("counter", &["result"][..]));
        assert!(info.help.starts_with("Messages for other nodes by result: accepted by Redis"));
        assert!(!info.help.contains('\n') && !info.help.contains("  "));
    }
}
