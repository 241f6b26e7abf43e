package main

import (
	"fmt"
	"strings"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/libs/daemon"
)

// statusOf is what the status page shows: all mailboxes.
func statusOf(boxes *collector.Collector) daemon.Status {
	looked := boxes.Look()
	page := daemon.Status{
		Hide: addressHider(looked),
		Facts: []daemon.Fact{
			{Name: "Mails found", Metric: "spamtraps_imap_found_total"},
			{Name: "Confirmed by the broker", Metric: "spamtraps_imap_confirmed_total"},
			{Name: "Bytes confirmed", Metric: "spamtraps_imap_confirmed_bytes_total"},
			{Name: "Marked, deleted or moved", Metric: "spamtraps_imap_marked_total"},
			{Name: "In hand", Metric: "spamtraps_imap_in_hand"},
			{Name: "Stale mailboxes", Metric: "spamtraps_imap_stale_mailboxes"},
		},
	}
	table := daemon.Table{
		Title: "Mailboxes", Empty: "There is none for this process.",
		Columns: []daemon.Column{
			{Key: "mailbox", Title: "Mailbox"},
			{Key: "state", Title: "State"},
			{Key: "last_look", Title: "Last look"},
			{Key: "last_mail", Title: "Last mail"},
			{Key: "found", Title: "Found"},
			{Key: "confirmed", Title: "Confirmed"},
			{Key: "left", Title: "Left there"},
			{Key: "reason", Title: "Reason"},
		},
	}
	for i, m := range looked {
		state := string(m.Doing)
		if m.Stale {
			state = "stale, " + state
		}
		name := shownName(i, &m.Account)
		table.Rows = append(table.Rows, []daemon.Cell{
			{Value: name},
			{Value: state, Bad: m.Stale},
			{Value: m.LastLook},
			{Value: m.LastMail},
			{Value: int64(m.Found)},
			{Value: int64(m.Published)},
			{Value: int64(m.Oversize + m.Parked)},
			{Value: withoutAddress(m.Problem, &m.Account, name), Bad: m.Problem != ""},
		})
	}
	page.Tables = []daemon.Table{table}
	return page
}

// shownName is the name that a mailbox was given. One without a name goes by its address elsewhere; here, where people take pictures, by its
// number and its server.
func shownName(i int, a *account.Account) string {
	if strings.Contains(a.Name, a.Username) {
		return fmt.Sprintf("no. %d at %s", i+1, a.Host)
	}
	return a.Name
}

// addressHider returns what puts the shown names of mailboxes in the place of their addresses.
func addressHider(all []collector.Looked) func(string) string {
	return func(text string) string {
		for i := range all {
			a := &all[i].Account
			if strings.Contains(text, a.Username) && strings.Contains(a.Name, a.Username) {
				text = withoutAddress(text, a, shownName(i, a))
			}
		}
		return text
	}
}

// withoutAddress takes out of a server's words who we are there.
func withoutAddress(text string, a *account.Account, name string) string {
	text = strings.ReplaceAll(text, a.Username+"@"+a.Host, name)
	return strings.ReplaceAll(text, a.Username, name)
}
