package amqp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the families of one publisher, spamtraps_amqp_….
type metrics struct {
	published   prometheus.Counter
	confirmed   prometheus.Counter
	bytes       prometheus.Counter // of confirmed
	late        prometheus.Counter
	failed      *prometheus.CounterVec
	latency     prometheus.Histogram
	connections prometheus.Counter
	messages    prometheus.Gauge
	consumers   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, p *Publisher) *metrics {
	const namespace, subsystem = "spamtraps", "amqp"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	gaugeOpts := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	m := &metrics{
		published: counter("published_total", "Messages sent to the broker, tries included."),
		confirmed: counter("confirmed_total", "Messages that the broker has confirmed and routed."),
		bytes:     counter("confirmed_bytes_total", "Bytes of the messages that the broker has confirmed and routed."),
		late:      counter("late_confirmed_total", "Messages that the broker confirmed when nobody waited for that any more: they come twice."),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "failed_total", Help: "Publishes that failed, by reason.",
		}, []string{"reason"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "confirm_seconds", Help: "Time from sending a message to its confirm.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		connections: counter("connections_total", "Connections made to a broker."),
		messages:    prometheus.NewGauge(gaugeOpts("backlog_messages", "Messages ready in the backlog queue, as last seen.")),
		consumers:   prometheus.NewGauge(gaugeOpts("backlog_consumers", "Consumers of the backlog queue, as last seen.")),
	}
	reg.MustRegister(
		m.published, m.confirmed, m.bytes, m.late, m.failed, m.latency, m.connections, m.messages, m.consumers,
		prometheus.NewGaugeFunc(gaugeOpts("in_flight", "Messages that wait for the broker's confirm."), func() float64 {
			count, _ := p.door.load()
			return float64(count)
		}),
		prometheus.NewGaugeFunc(gaugeOpts("in_flight_bytes", "Bytes of messages that wait for the broker's confirm."), func() float64 {
			_, bytes := p.door.load()
			return float64(bytes)
		}),
		prometheus.NewGaugeFunc(gaugeOpts("in_flight_limit", "The most messages that may wait for the broker's confirm (AMQP_IN_FLIGHT)."), func() float64 {
			return float64(p.cfg.InFlight)
		}),
		prometheus.NewGaugeFunc(gaugeOpts("in_flight_limit_bytes", "The most bytes of messages that may wait for the broker's confirm (AMQP_IN_FLIGHT_BYTES)."), func() float64 {
			return float64(p.cfg.InFlightBytes)
		}),
		prometheus.NewGaugeFunc(gaugeOpts("state_since_timestamp_seconds", "When spamtraps_amqp_ready became what it is."), func() float64 {
			return unixSeconds(p.State().Since)
		}),
		prometheus.NewGaugeFunc(gaugeOpts("ready", "Whether messages are published as they come (1), or something keeps them (0)."), func() float64 {
			if p.State().OK {
				return 1
			}
			return 0
		}),
	)
	return m
}

// unixSeconds is a time as a metric shows it; 0 is none.
func unixSeconds(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMilli()) / 1000
}
