package collector

import (
	"errors"
	"slices"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/session"
)

// act marks mails that the broker has, when there are enough of them, or nothing else is going on.
func (p *pass) act() error {
	alone := len(p.steps) == 0 && p.flying == 0
	if len(p.confirmed) == 0 || len(p.confirmed) < p.mailbox.shared.enough() && !alone && !p.impatient {
		return nil
	}
	p.impatient = false
	slices.Sort(p.confirmed)
	p.confirmed = slices.Compact(p.confirmed)
	for len(p.confirmed) > 0 {
		uids := p.confirmed[:min(len(p.confirmed), p.session.Window(actMost))]
		p.confirmed = p.confirmed[len(uids):]
		p.mark(uids)
	}
	return nil
}

// mark does with mails what is to be done after their confirm. Each answer of the server is checked; what it does not let us do is remembered on disk, so that
// the mails are not published for ever.
func (p *pass) mark(uids []uint32) {
	m, f := p.mailbox, p.folder
	after := m.after(f.name)
	if m.account.Fetch == account.FetchNew || after.Kind == account.AfterNothing {
		f.remember(m, uids)
	}
	switch {
	case after.Kind == account.AfterNothing:
		p.marked(uids)
	case !markable(after.Kind, &p.sel):
		p.unmarkable(uids, errReadOnly)
	case after.Kind == account.AfterSeen:
		call := p.session.StartStore(uids, imap.FlagSeen)
		p.send(call.Wait, p.verdict(uids, false))
	case after.Kind == account.AfterMove:
		p.move(uids, after.Folder, nil)
	case m.trash != "" && m.trash != f.name:
		p.move(uids, m.trash, p.intoTrash)
	default:
		p.remove(uids)
	}
}

var errReadOnly = errors.New("the folder is read-only for us")

// verdict returns what to do with the last answer about mails.
func (p *pass) verdict(uids []uint32, removed bool) func(error) error {
	return func(err error) error {
		if e, ok := errors.AsType[*session.Error](err); ok && e.Answered && e.Kind != session.Throttled {
			p.unmarkable(uids, err)
			return nil
		}
		if err != nil {
			return nil //nolint:nilerr // the next connection marks them
		}
		if removed {
			p.removed += uint32(len(uids))
		}
		p.marked(uids)
		return nil
	}
}

// marked notes that all is done for mails.
func (p *pass) marked(uids []uint32) {
	for _, uid := range uids {
		p.folder.unmarked.remove(uid)
	}
	p.leave(len(uids))
	p.mailbox.metrics.marked.Add(float64(len(uids)))
}

// unmarkable notes that the server does not let us do what is to be done.
func (p *pass) unmarkable(uids []uint32, err error) {
	m, f := p.mailbox, p.folder
	f.remember(m, uids)
	for _, uid := range uids {
		f.unmarked.remove(uid)
	}
	p.leave(len(uids))
	m.metrics.unmarked.Add(float64(len(uids)))
	m.count(func(r *Result) { r.Unmarked += len(uids) })
	if f.first("unmarkable") {
		m.log.Warn().Err(err).Str("folder", f.name).Int("mails", len(uids)).Stringer("after", m.account.After).Bool("on_disk", m.shared.store.Durable()).
			Msg("the broker has these mails, but they cannot be marked: it is remembered that they were published")
	}
}

// remove deletes mails, and no others.
func (p *pass) remove(uids []uint32) {
	m, f := p.mailbox, p.folder
	switch {
	case p.session.CanExpunge():
		var marked error
		store := p.session.StartStore(uids, imap.FlagDeleted)
		p.send(store.Wait, func(err error) error {
			marked = err
			return nil
		})
		expunge := p.session.StartExpunge(uids)
		done := p.verdict(uids, true)
		p.send(expunge.Wait, func(err error) error {
			if err == nil {
				err = marked
			}
			return done(err)
		})
	case m.account.Expunge:
		store := p.session.StartStore(uids, imap.FlagDeleted)
		p.send(store.Wait, func(err error) error {
			if err != nil {
				return p.verdict(uids, false)(err)
			}
			expunge := p.session.StartExpungeAll()
			p.send(expunge.Wait, p.verdict(uids, true))
			return nil
		})
	default:
		if f.first("expunge") {
			m.log.Warn().Str("folder", f.name).
				Msg("mails are only marked \\Deleted: the server cannot expunge single mails (UIDPLUS), and expunging all would take what others have marked, too; IMAP_EXPUNGE=always allows it")
		}
		store := p.session.StartStore(uids, imap.FlagSeen, imap.FlagDeleted)
		p.send(store.Wait, p.verdict(uids, false))
	}
}

// move moves mails to another folder, which is made if it does not exist. arrived is told where they are now.
func (p *pass) move(uids []uint32, target string, arrived func(*session.Moved)) {
	if !p.session.CanMove() {
		p.copy(uids, target, true)
		return
	}
	moved, err := p.session.StartMove(uids, target)
	if err != nil {
		p.unmarkable(uids, err)
		return
	}
	p.send(moved.Wait, p.creating(target, func(err error) error {
		if err == nil && arrived != nil {
			arrived(moved)
		}
		return p.verdict(uids, true)(err)
	}, func() { p.move(uids, target, arrived) }))
}

// copy is a move in three steps (RFC 6851 §3.3), each of which waits for the one before: a mail is deleted only when its copy is there.
func (p *pass) copy(uids []uint32, target string, mayCreate bool) {
	call := p.session.StartCopy(uids, target)
	p.send(call.Wait, p.creating(target, func(err error) error {
		if err != nil {
			return p.verdict(uids, false)(err)
		}
		p.remove(uids)
		return nil
	}, func() { p.copy(uids, target, mayCreate) }))
}

// creation is a folder that a pass makes, since mails are to be moved there.
type creation struct {
	tried   bool     // the server has answered
	waiting []func() // moves that were in flight, to be tried again then
}

// creating handles the answer that the target does not exist: it is made, once in a pass, and then what was sent before is tried again.
func (p *pass) creating(target string, done func(error) error, again func()) func(error) error {
	before := p.creations[target]
	behind := before != nil && before.tried
	return func(err error) error {
		e, ok := errors.AsType[*session.Error](err)
		if !ok || !e.Answered || e.Code != imap.ResponseCodeTryCreate || behind {
			return done(err)
		}
		c := p.creations[target]
		if c == nil {
			c = p.create(target)
		}
		if c.tried {
			again()
		} else {
			c.waiting = append(c.waiting, again)
		}
		return nil
	}
}

// create makes a folder.
func (p *pass) create(target string) *creation {
	c := &creation{}
	if p.creations == nil {
		p.creations = make(map[string]*creation)
	}
	p.creations[target] = c
	call := p.session.StartCreate(target)
	p.send(call.Wait, func(err error) error {
		if e, ok := errors.AsType[*session.Error](err); err != nil && (!ok || !e.Answered) {
			return nil // the connection has ended, and the next one marks the mails
		}
		p.mailbox.log.Info().AnErr("cause", err).Str("folder", target).Msg("made the folder that mails are moved to")
		c.tried = true
		for _, again := range c.waiting {
			again() // when it could not be made, the server says so once more
		}
		return nil
	})
	return c
}

// intoTrash notes mails that were moved into the trash, to be expunged there.
func (p *pass) intoTrash(moved *session.Moved) {
	if p.validity != 0 && p.validity != moved.UIDValidity {
		p.trash = nil
	}
	p.validity = moved.UIDValidity
	p.trash = append(p.trash, moved.UIDs...)
}
