package maildir

import (
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	stored, kept, delivered, asideNew, asideOld, dropped prometheus.Counter
	errors                                               *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, m *Maildir) metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "spamtraps_maildir_" + name, Help: help})
	}
	gauge := func(name, help string, value func(Stats) float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "spamtraps_maildir_" + name, Help: help}, func() float64 { return value(m.Stats()) })
	}
	gauge("waiting", "Mails that the broker does not have yet.", func(s Stats) float64 { return float64(s.Waiting) })
	gauge("waiting_bytes", "Bytes of the mails that the broker does not have yet.", func(s Stats) float64 { return float64(s.WaitingBytes) })
	gauge("oldest_seconds", "How long the oldest of them has waited.", func(s Stats) float64 {
		if s.Oldest.IsZero() {
			return 0
		}
		return time.Since(s.Oldest).Seconds()
	})
	gauge("aside", "Mails that were set aside because they can never pass.", func(s Stats) float64 { return float64(s.Aside) })
	gauge("unknown_versions", "Mails whose envelope a newer version has written, and that are left alone.", func(s Stats) float64 { return float64(s.Unknown) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "spamtraps_maildir_free_bytes", Help: "Bytes that are free on the disk of the maildir; -1 when it does not say."},
		m.free)
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "spamtraps_maildir_min_free_bytes", Help: "With less free than this no mail is taken (MAILDIR_MIN_FREE)."},
		func() float64 { return float64(m.cfg.MinFree) })
	gauge("copies", "Copies of mails that the broker has.", func(s Stats) float64 { return float64(s.Copies) })
	gauge("copies_bytes", "Bytes of the copies.", func(s Stats) float64 { return float64(s.CopiesBytes) })
	vec := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "spamtraps_maildir_errors_total", Help: "Failures of the disk, by kind: full for want of room, disk for any other.",
	}, []string{"kind"})
	for _, kind := range []string{"full", "disk"} {
		vec.WithLabelValues(kind)
	}
	aside := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "spamtraps_maildir_set_aside_total", Help: "Mails that were set aside because they can never pass, by where they came from: just taken, or waiting in the maildir.",
	}, []string{"from"})
	return metrics{
		stored:    counter("stored_total", "Mails that were stored to wait for the broker."),
		kept:      counter("kept_total", "Mails of which a copy was kept when the broker had confirmed them."),
		delivered: counter("delivered_total", "Mails that waited, and that the broker has now."),
		asideNew:  aside.WithLabelValues("taken"),
		asideOld:  aside.WithLabelValues("waiting"),
		dropped:   counter("dropped_copies_total", "Copies that were deleted because of their age, MAILDIR_MAX_BYTES or want of room."),
		errors:    vec,
	}
}

func (m *Maildir) free() float64 {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(m.cfg.Path, &disk); err != nil {
		return -1
	}
	return float64(int64(disk.Bavail) * disk.Bsize)
}
