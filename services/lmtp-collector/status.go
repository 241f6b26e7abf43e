package main

import (
	"spamtraps.internal/libs/daemon"
)

// status is what the status page shows: what flows, what waits, and who sends.
func (p *parts) status() daemon.Status {
	page := daemon.Status{
		Facts: []daemon.Fact{
			{Name: "Mails received", Metric: "spamtraps_lmtp_received_total"},
			{Name: "Answered 250", Metric: "spamtraps_lmtp_accepted_total"},
			{Name: "Confirmed by the broker", Metric: "spamtraps_amqp_confirmed_total"},
			{Name: "On their way", Metric: "spamtraps_amqp_in_flight"},
			{Name: "Deferred", Metric: "spamtraps_lmtp_deferred_total"},
			{Name: "Rejected", Metric: "spamtraps_lmtp_rejected_total"},
			{Name: "Connections", Metric: "spamtraps_lmtp_open_connections"},
			{Name: "In the backlog queue", Metric: "spamtraps_amqp_backlog_messages"},
		},
	}
	if p.disk != nil {
		stats := p.disk.Stats()
		page.Facts = append(page.Facts,
			daemon.Fact{Name: "Waiting in the spool", Value: stats.Waiting},
			daemon.Fact{Name: "Bytes waiting", Value: stats.WaitingBytes},
			daemon.Fact{Name: "Spooled so far", Metric: "spamtraps_maildir_stored_total"},
			daemon.Fact{Name: "Replayed", Metric: "spamtraps_spool_replayed_total"},
			daemon.Fact{Name: "Set aside", Value: stats.Aside, Bad: stats.Aside > 0},
			daemon.Fact{Name: "Free on its disk, bytes", Metric: "spamtraps_maildir_free_bytes"})
		if stats.Waiting > 0 {
			page.Facts = append(page.Facts, daemon.Fact{Name: "The oldest came", Value: stats.Oldest})
		}
	}
	peers := daemon.Table{
		Title: "Last peers", Empty: "No mail came yet.",
		Columns: []daemon.Column{{Key: "peer", Title: "Peer"}, {Key: "mails", Title: "Mails"}, {Key: "bytes", Title: "Bytes"}, {Key: "last_mail", Title: "Last mail"}},
	}
	for _, peer := range p.server.Peers() {
		name := peer.Address
		if name == "" {
			name = "unix socket"
		}
		peers.Rows = append(peers.Rows, []daemon.Cell{{Value: name}, {Value: peer.Mails}, {Value: peer.Bytes}, {Value: peer.LastMail}})
	}
	page.Tables = []daemon.Table{peers}
	return page
}
