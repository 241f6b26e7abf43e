package collector

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a mail was left where it is: the values of the label reason.
const (
	leftOversize = "oversize" // larger than IMAP_MAX_MESSAGE_BYTES, or than the broker takes
	leftRefused  = "refused"  // the broker never takes it
	leftParked   = "parked"   // it could not be fetched several times
)

// families are the metrics of all mailboxes together.
type families struct {
	found, fetched, confirmed, confirmedBytes *prometheus.CounterVec
	marked, unmarked, uidValidity             *prometheus.CounterVec
	left, failures                            *prometheus.CounterVec
	connected, since, lastLook, lastMail      *prometheus.GaugeVec
}

// mailboxMetrics are those of one mailbox, looked up once.
type mailboxMetrics struct {
	*families
	found, fetched, confirmed, confirmedBytes prometheus.Counter
	marked, unmarked, uidValidity             prometheus.Counter
	connected, since, lastLook, lastMail      prometheus.Gauge
}

func newFamilies(reg prometheus.Registerer, c *Collector) *families {
	auto := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "spamtraps_imap_" + name, Help: help}, append([]string{"mailbox"}, labels...))
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return auto.NewGaugeVec(prometheus.GaugeOpts{Name: "spamtraps_imap_" + name, Help: help}, []string{"mailbox"})
	}
	reading := func(name, help string, read func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "spamtraps_imap_" + name, Help: help}, read)
	}
	reading("memory_bytes", "Bytes of mail that are in memory, or reserved for what was asked for.", func() float64 { return float64(c.shared.memory.load()) })
	reading("in_hand", "Mails that are published, or about to be, and not yet marked in their mailbox: as many may come twice after a crash.", func() float64 { return float64(c.shared.window.load()) })
	reading("memory_limit_bytes", "The most bytes of mail that may be in memory (IMAP_MEMORY).", func() float64 { return float64(c.shared.cfg.Memory) })
	reading("in_hand_limit", "The most mails that may be in hand (AMQP_IN_FLIGHT).", func() float64 { return float64(c.shared.cfg.Window) })
	reg.MustRegister(staleness{c})
	reading("mailboxes", "Mailboxes that are worked on.", func() float64 { return float64(len(c.mailboxes)) })
	reading("stale_mailboxes", "Mailboxes without a successful look for IMAP_STALE_AFTER.", func() float64 { return float64(len(c.stale(time.Now()))) })
	return &families{
		found:          counter("found_total", "Mails that were found and are to be collected."),
		fetched:        counter("fetched_total", "Mails that were fetched whole, those fetched again included."),
		confirmed:      counter("confirmed_total", "Mails that the broker has confirmed."),
		confirmedBytes: counter("confirmed_bytes_total", "Bytes of the mails that the broker has confirmed."),
		marked:         counter("marked_total", "Mails that were marked, deleted, moved or remembered after the confirm."),
		unmarked:       counter("unmarked_total", "Mails that the broker has and the server did not let us mark, delete or move."),
		uidValidity:    counter("uidvalidity_changes_total", "Times that the UIDs of a folder turned out to mean other mails."),
		left:           counter("left_total", "Mails that are left where they are, by reason.", "reason"),
		failures:       counter("failures_total", "Ends of a connection, and tries to connect, that nobody wanted, by kind.", "kind"),
		connected:      gauge("connected", "Whether there is a connection that is logged in (1)."),
		since:          gauge("connected_since_timestamp_seconds", "When spamtraps_imap_connected became what it is; 0 is never."),
		lastMail:       gauge("last_mail_timestamp_seconds", "When the broker last confirmed a mail of it, since the process began; 0 is never."),
		lastLook:       gauge("last_look_timestamp_seconds", "When all folders were last looked at with success."),
	}
}

func (f *families) of(name string) mailboxMetrics {
	for _, reason := range []string{leftOversize, leftRefused, leftParked} {
		f.left.WithLabelValues(name, reason)
	}
	return mailboxMetrics{
		families: f,
		found:    f.found.WithLabelValues(name), fetched: f.fetched.WithLabelValues(name), confirmed: f.confirmed.WithLabelValues(name),
		confirmedBytes: f.confirmedBytes.WithLabelValues(name), marked: f.marked.WithLabelValues(name), unmarked: f.unmarked.WithLabelValues(name),
		uidValidity: f.uidValidity.WithLabelValues(name), connected: f.connected.WithLabelValues(name), since: f.since.WithLabelValues(name), lastMail: f.lastMail.WithLabelValues(name),
		lastLook: f.lastLook.WithLabelValues(name),
	}
}

// setConnected notes whether there is a connection.
func (m *mailboxMetrics) setConnected(yes float64) {
	m.connected.Set(yes)
	m.since.SetToCurrentTime()
}

// staleness tells of each mailbox whether it is stale. That depends on the time, so it is found out when it is asked for.
type staleness struct{ collector *Collector }

var staleDesc = prometheus.NewDesc("spamtraps_imap_stale", "Whether there was no successful look for IMAP_STALE_AFTER (1).", []string{"mailbox"}, nil)

// Describe tells which metric there is.
func (staleness) Describe(descs chan<- *prometheus.Desc) { descs <- staleDesc }

// Collect looks at each mailbox.
func (s staleness) Collect(metrics chan<- prometheus.Metric) {
	now := time.Now()
	for _, m := range s.collector.mailboxes {
		value := 0.
		if _, stale := m.stale(now, s.collector.shared.cfg.StaleAfter); stale {
			value = 1
		}
		metrics <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, value, m.account.Name)
	}
}
