package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
)

// tokenAges tells on /metrics how old the refresh tokens of mailboxes are, and until when they can be used: who lets one end has to log in anew.
type tokenAges struct {
	accounts     []account.Account
	since, until *prometheus.Desc
}

func newTokenAges(accounts []account.Account) *tokenAges {
	return &tokenAges{
		accounts: accounts,
		since: prometheus.NewDesc("spamtraps_imap_refresh_token_since_timestamp_seconds",
			"When the provider gave the refresh token of a mailbox, or when it was last used where each use begins its time anew.", []string{"mailbox"}, nil),
		until: prometheus.NewDesc("spamtraps_imap_refresh_token_until_timestamp_seconds",
			"When the refresh token of a mailbox ends if it is not used.", []string{"mailbox"}, nil),
	}
}

// Describe tells which metrics there are.
func (t *tokenAges) Describe(descs chan<- *prometheus.Desc) {
	descs <- t.since
	descs <- t.until
}

// Collect tells what is known now. It reads the time of a file where the token was not used yet.
func (t *tokenAges) Collect(metrics chan<- prometheus.Metric) {
	for _, a := range t.accounts {
		login, ok := a.Login.(interface{ Lasts() auth.Lasts })
		if !ok {
			continue
		}
		lasts := login.Lasts()
		tell := func(desc *prometheus.Desc, at time.Time) {
			if !at.IsZero() {
				metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(at.Unix()), a.Name)
			}
		}
		tell(t.since, lasts.Since)
		tell(t.until, lasts.Until)
	}
}
