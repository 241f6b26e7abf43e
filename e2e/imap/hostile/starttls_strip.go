package hostile

func starttlsStrip() Scenario {
	return Scenario{
		About:   "A server, or somebody before it, does not offer STARTTLS.",
		Account: `tls: starttls`,
		Want:    Want{Nothing: true, Logins: -1, Faults: -1},
	}
}
