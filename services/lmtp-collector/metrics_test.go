package main

import (
	"testing"

	"spamtraps.internal/libs/daemon/daemontest"
	"spamtraps.internal/libs/rig"
)

func TestMetrics(t *testing.T) {
	daemontest.LintMetrics(t, service)
	in := boot(t, rig.SharedBroker(t).URL(), "MAILDIR="+t.TempDir())
	_, page := in.log.ask(t, "/metrics")
	daemontest.Documented(t, service, page)
}

// balanced checks that each mail which was answered 250 is somewhere, by counts that are made at different places. Nothing may be on its way.
func (c *console) balanced(t *testing.T) {
	t.Helper()
	accepted := c.metric(t, "spamtraps_lmtp_accepted_total")
	confirmed := c.metric(t, "spamtraps_amqp_confirmed_total") - c.metric(t, "spamtraps_spool_replayed_total")
	spooled, aside := c.metric(t, "spamtraps_maildir_stored_total"), c.metric(t, `spamtraps_maildir_set_aside_total{from="taken"}`)
	if accepted == 0 || accepted != confirmed+spooled+aside {
		t.Errorf("%g mails were accepted, and %g confirmed at once, %g spooled, %g set aside", accepted, confirmed, spooled, aside)
	}
}
