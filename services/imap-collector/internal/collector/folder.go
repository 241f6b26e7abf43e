package collector

import (
	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/imap-collector/internal/state"
)

const (
	// mostTries is how often a mail is fetched alone before it is parked.
	mostTries = 3
	// mostDrops is how often the network may have failed in doing so, which more often has nothing to do with the mail.
	mostDrops = 6
	// bareAfter is after how many of those tries nothing but the body is asked for.
	bareAfter = 2
)

// folder is what is known of one folder of a mailbox from one connection to the next. It belongs to the mailbox's goroutine.
type folder struct {
	name     string
	junk     bool
	validity uint32
	kept     *state.Folder // on disk

	// known are mails that are not to be taken up, whatever a search finds: they are in hand, done with, too large, or parked.
	known uidSet
	// unmarked are mails that the broker has, and that are not marked yet. They are marked by the next connection if this one breaks.
	unmarked uidSet
	// left are those of known that are too large or parked; counted are those that were counted as found.
	left, counted uidSet
	troubled      map[uint32]*trouble
	bare          bool // the server chokes on more than bodies
	askedAgain    bool // in this connection, to mark what it did not let us mark before

	complained map[string]bool // what the log has been told
	high       uint32          // messages at the last look
	expunged   uint32          // as the session had counted them then
}

// trouble is what happened to a mail that is fetched alone from now on.
type trouble struct {
	tries  int // the server did not give it, or something else
	drops  int // the connection ended instead
	absent int // the server did not mention it
}

func (t *trouble) hopeless() bool {
	return t.tries >= mostTries || t.drops >= mostDrops || t.absent >= mostTries
}

func (t *trouble) wantsBare() bool { return t.tries >= bareAfter || t.drops >= bareAfter }

// alone returns the trouble of a mail, which is fetched alone from now on.
func (f *folder) alone(uid uint32) *trouble {
	t := f.troubled[uid]
	if t == nil {
		t = &trouble{}
		if f.troubled == nil {
			f.troubled = make(map[uint32]*trouble)
		}
		f.troubled[uid] = t
	}
	return t
}

// first tells whether the log has not been told this yet.
func (f *folder) first(what string) bool {
	if f.complained[what] {
		return false
	}
	if f.complained == nil {
		f.complained = make(map[string]bool)
	}
	f.complained[what] = true
	return true
}

// open is called when the folder was selected. It forgets everything if its UIDs mean other mails than before.
func (f *folder) open(m *mailbox, sel session.Selected) error {
	if f.validity != sel.UIDValidity {
		if f.validity != 0 {
			m.log.Warn().Str("folder", f.name).Uint32("uidvalidity", sel.UIDValidity).Uint32("before", f.validity).
				Msg("the folder's UIDVALIDITY has changed: all its mail counts as new, and what was collected before may come again")
			m.metrics.uidValidity.Inc()
		}
		*f = folder{name: f.name, junk: f.junk, validity: sel.UIDValidity}
	}
	if f.kept != nil {
		return nil
	}
	kept, err := m.shared.store.Folder(m.account.ID, f.name, f.validity)
	if err != nil {
		return &session.Error{Kind: session.Refused, Doing: "read what was published", Err: err, Answered: true}
	}
	f.kept = kept
	return nil
}

// search returns what to look for.
func (f *folder) search(a *account.Account, canExpunge bool) session.Search {
	q := session.Search{Unseen: a.Fetch == account.FetchUnseen}
	if a.After.Kind == account.AfterDelete || a.After.Kind == account.AfterMove {
		// What is only marked \Deleted stays in the folder, and is done with.
		q.Undeleted = !q.Unseen && !canExpunge && !a.Expunge
	}
	return q
}

// markable tells whether the folder lets us do with a mail what is to be done.
func markable(kind account.AfterKind, sel *session.Selected) bool {
	switch kind {
	case account.AfterSeen:
		return sel.Keeps(`\Seen`)
	case account.AfterDelete:
		return sel.Keeps(`\Deleted`)
	case account.AfterMove:
		return !sel.ReadOnly
	}
	return false
}

// remember keeps on disk what was published.
func (f *folder) remember(m *mailbox, uids []uint32) {
	if err := f.kept.Add(uids); err != nil && f.first("disk") {
		m.log.Error().Err(err).Str("folder", f.name).Msg("what was published cannot be remembered on disk: after a restart it will be published again")
	}
}

// forget drops what is known of mails that a search through the whole folder does not find any more: they are marked, or gone. It returns what is found
// though it was marked.
func (f *folder) forget(found *uidSet) (sticky []state.Range) {
	for _, set := range []*uidSet{&f.known, &f.left, &f.counted} {
		set.keep(found)
	}
	for uid := range f.troubled {
		if !found.has(uid) {
			delete(f.troubled, uid)
		}
	}
	return f.kept.Missing(f.left.without(f.known.ranges))
}
