package bridge

import "github.com/prometheus/client_golang/prometheus"

// metrics are the families of the bridge, spamtraps_bridge_….
type metrics struct {
	published   prometheus.Counter
	confirmed   prometheus.Counter
	unconfirmed prometheus.Counter
	dead        *prometheus.CounterVec
	dropped     prometheus.Counter
	connections prometheus.Counter
	failures    *prometheus.CounterVec
	latency     prometheus.Histogram
	confirm     *prometheus.GaugeVec
	fence       prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, b *Bridge) *metrics {
	const namespace, subsystem = "spamtraps", "bridge"
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	m := &metrics{
		published:   counter("published_total", "Mails written to the hpfeeds broker, tries included; one for all channels."),
		confirmed:   counter("confirmed_total", "Mails that the hpfeeds broker has, as far as BRIDGE_CONFIRM can know."),
		unconfirmed: counter("unconfirmed_total", "Mails that were written and then given back to RabbitMQ, because the connection to the hpfeeds broker was lost."),
		dead:        prometheus.NewCounterVec(prometheus.CounterOpts(opts("dead_lettered_total", "Mails that cannot be published and were put into the dead-letter queue, by reason.")), []string{"reason"}),
		dropped:     counter("dropped_total", "Mails that were too large for the hpfeeds broker and dropped (BRIDGE_OVERSIZE=drop)."),
		connections: counter("connections_total", "Connections made to the hpfeeds broker to publish."),
		failures:    prometheus.NewCounterVec(prometheus.CounterOpts(opts("failures_total", "Connections to the hpfeeds broker that failed or could not be made, by reason.")), []string{"reason"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "confirm_seconds", Help: "Time from taking a mail out of the queue to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		fence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "fence_seconds", Help: "Round trips of the fence: time from sending a token, after the mails that it stands for, to its coming back.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		confirm: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("confirm", "Which way of confirming is in use (1): drained or fence.")), []string{"mode"}),
	}
	m.confirm.WithLabelValues(confirmDrained).Set(0)
	m.confirm.WithLabelValues(confirmFence).Set(0)
	reg.MustRegister(
		m.published, m.confirmed, m.unconfirmed, m.dead, m.dropped, m.connections, m.failures, m.latency, m.confirm, m.fence,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("in_flight", "Mails that are written and not yet confirmed, as last reported.")), func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return float64(b.flying)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("state_since_timestamp_seconds", "When spamtraps_bridge_ready became what it is.")), func() float64 {
			return float64(b.Since().UnixMilli()) / 1000
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("ready", "Whether mails are published as they come (1), or something keeps them (0).")), func() float64 {
			if ok, _ := b.Health(); ok {
				return 1
			}
			return 0
		}),
	)
	return m
}
