package account

import (
	"fmt"
	"strings"
	"time"

	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/libs/daemon"
)

// Rules are what holds for all mailboxes.
type Rules struct {
	// Defaults is what an entry says that says nothing, but for what names a mailbox.
	Defaults Entry
	// MaxMessageBytes is the largest mail that the broker takes.
	MaxMessageBytes int64
	// StaleAfter is how long a mailbox may go without a look.
	StaleAfter time.Duration
	// Expunge allows to expunge what others have marked \Deleted.
	Expunge bool
	// Forgets tells that nothing is remembered beyond the process, Continuous that the process goes on looking.
	Forgets, Continuous bool
}

// Load reads the mailboxes of a file, mailboxes.yml. It blocks on the disk. Every problem is one sentence that begins with file, line and key;
// when there is one, the accounts are of no use.
func Load(path string, rules Rules, tokens *auth.Tokens) ([]Account, []string) {
	list := daemon.ReadList(path, func() Entry { return rules.Defaults })
	accounts := make([]Account, 0, len(list.Items))
	var seen doubles
	for _, item := range list.Items {
		entry := &item.Value
		rules.check(entry, item.Bad)
		seen.check(entry, fmt.Sprintf("line %d", item.Line), item.Bad)
		accounts = append(accounts, entry.account(tokens, rules.Expunge))
	}
	problems := list.Problems()
	if len(accounts) == 0 && len(problems) == 0 {
		problems = []string{path + " must hold at least one mailbox"}
	}
	return accounts, problems
}

// One returns the one mailbox of an entry that comes from elsewhere, and reports what is wrong with it by the names of its fields.
func One(entry Entry, rules Rules, tokens *auth.Tokens, bad func(name, problem string)) Account {
	entry.Validate(bad)
	rules.check(&entry, bad)
	return entry.account(tokens, rules.Expunge)
}

// check reports what only the whole configuration shows.
func (r Rules) check(e *Entry, bad func(name, problem string)) {
	if r.MaxMessageBytes > 0 && e.MaxMessageBytes > r.MaxMessageBytes {
		bad("MAX_MESSAGE_BYTES", fmt.Sprintf("must be at most AMQP_MAX_MESSAGE_BYTES (%d), or mail is fetched that the broker never takes, not %d",
			r.MaxMessageBytes, e.MaxMessageBytes))
	}
	if r.StaleAfter > 0 && e.PollInterval >= r.StaleAfter {
		bad("POLL_INTERVAL", fmt.Sprintf("must be less than IMAP_STALE_AFTER (%s), or the mailbox counts as stale between two looks, not %s", r.StaleAfter, e.PollInterval))
	}
	if !r.Forgets {
		return
	}
	switch {
	case e.Fetch == FetchNew:
		bad("FETCH", "can be new only with IMAP_STATE, a folder to remember in what was published")
	case e.After.Kind == AfterNothing && (r.Continuous || e.Fetch != FetchAll):
		bad("AFTER", "can be nothing only with IMAP_STATE, a folder to remember in what was published, or each look publishes all again")
	}
}

// doubles finds mailboxes that are there twice. Where they are is told by the first place.
type doubles struct {
	boxes, ids, names map[string]string
}

func (d *doubles) check(e *Entry, place string, bad func(name, problem string)) {
	if d.boxes == nil {
		d.boxes, d.ids, d.names = make(map[string]string), make(map[string]string), make(map[string]string)
	}
	if e.Host == "" || e.Username == "" {
		return // that is complained of already
	}
	box := fmt.Sprintf("%s\x00%d\x00%s", strings.ToLower(e.Host), e.Port, e.Username)
	switch {
	case d.boxes[box] != "":
		bad("USERNAME", fmt.Sprintf("and host are those of %s: the same mailbox is there twice", d.boxes[box]))
	case d.ids[e.ID] != "":
		bad("ID", fmt.Sprintf("is %q as in %s: if these are two mailboxes, give one of them another id, else take one out", e.ID, d.ids[e.ID]))
	case d.names[e.Name] != "":
		bad("NAME", fmt.Sprintf("is %q as in %s: each mailbox needs its own", e.Name, d.names[e.Name]))
	default:
		d.ids[e.ID], d.names[e.Name] = place, place
	}
	if d.boxes[box] == "" {
		d.boxes[box] = place
	}
}
