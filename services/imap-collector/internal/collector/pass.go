package collector

import (
	"context"
	"errors"
	"time"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/imap-collector/internal/state"
)

const (
	// window is how many messages one search is about, and wideWindow where the server answers in ranges.
	window, wideWindow = 5_000, 20_000
	// sizesAtOnce is for how many mails sizes are asked at once: a line of the length that every server takes names so many.
	sizesAtOnce = 500
	// ahead is how many mails should be known, so that the next fetch never waits.
	ahead = 256
	// fetchesAhead is how many commands that fetch mail are in flight.
	fetchesAhead = 3
	// actBatch is how many confirmed mails are worth a command of their own while others are on their way; actMost is how many one names at most.
	actBatch, actMost = 64, 256
	// actPatience is how long a confirmed mail waits for others.
	actPatience = time.Second
	// leastSize is what a mail is thought to have at least.
	leastSize = 1 << 10
	// unknownSize is what a mail is thought to have whose size the server did not tell.
	unknownSize = 64 << 10
	// oversizeFactor is by how much a server may be wrong about a size.
	oversizeFactor = 4
	// widest is how many windows one search takes at most, after searches that found nothing.
	widest = 16
	// mostRefusals is after how many refused fetches in a row the mailbox is left alone for a while: then it has nothing to do with the mails.
	mostRefusals = 5
)

// pass goes through a folder once: it searches, asks for sizes, fetches, publishes and marks, all side by side on one connection. It is
// the pass's own goroutine that talks to the session; mails are published by goroutines that tell it the outcome.
//
// Commands are answered in order, so the pass is a queue of steps: each was sent, and its answer is read in its turn.
type pass struct {
	mailbox *mailbox
	session *session.Session
	folder  *folder
	sel     session.Selected
	soft    context.Context //nolint:containedctx // ends when nothing more is to be taken up
	hard    context.Context //nolint:containedctx // ends when everything must be given up

	query     session.Search
	whole     bool   // it goes through the whole folder
	next      uint32 // first sequence number that was not searched
	searching bool
	stride    int    // windows that the next search takes at once
	found     uidSet // all that the searches have found
	unsized   []uint32
	sizing    bool
	plan      []session.Sized // to be fetched, in batches
	lonely    []session.Sized // to be fetched alone
	retry     []uint32        // to be taken up by another pass
	steps     []step
	fetches   int   // of steps
	reserved  int64 // of memory
	flying    int   // mails that are with publishers
	outcomes  chan outcome
	confirmed []uint32 // to be marked
	impatient bool     // also if they are few
	places    int      // that our confirmed mails have in the window
	removed   uint32   // mails that we have removed from the folder since the last search
	creations map[string]*creation
	trash     []uint32 // where we have moved mails to
	validity  uint32   // of the trash

	took, settled int  // mails
	moved         bool // something changed that keeps a mail from being tried for ever

	fetched  bool       // at least one mail
	refusals int        // since
	blamed   []*trouble // for those
}

// step is a command in flight, and what to do with its answer. An error that done returns ends the session. When the session has ended done
// is called all the same, to clean up.
type step struct {
	wait func() error
	done func(err error) error
}

// errAbandoned is what steps are told that were not answered because an earlier one broke.
var errAbandoned = errors.New("the connection broke before its turn")

func (m *mailbox) newPass(soft, hard context.Context, s *session.Session, f *folder, sel session.Selected, from uint32) *pass {
	return &pass{
		mailbox: m, session: s, folder: f, sel: sel, soft: soft, hard: hard,
		query: f.search(&m.account, s.CanExpunge()), next: max(1, from), whole: from <= 1,
		outcomes: make(chan outcome, m.shared.cfg.Window), confirmed: uidsIn(f.unmarked.ranges),
	}
}

// run goes through the folder, and tells whether another pass is sensible: mails may have come or moved while it went. It blocks until everything that was
// taken up is settled. After an error the session is of no use any more; what the broker has by then is marked by the next.
func (p *pass) run() (again bool, err error) {
	p.mailbox.shared.busy.Add(1)
	defer p.mailbox.shared.busy.Add(-1)
	err = p.loop()
	p.clear(err)
	if err != nil || p.soft.Err() != nil {
		return false, err
	}
	f := p.folder
	f.high, f.expunged = p.upcoming()-1, p.session.Expunged()
	if p.took > 0 || len(p.retry) > 0 {
		return true, nil
	}
	if p.whole {
		p.sticky(f.forget(&p.found))
		f.askedAgain = true
	}
	return false, nil
}

// loop sends what there is room for, reads the oldest answer, and marks what is confirmed.
func (p *pass) loop() error {
	for {
		p.gather()
		if err := p.act(); err != nil {
			return err
		}
		p.refill()
		switch {
		case len(p.steps) > 0:
			if err := p.finishOldest(); err != nil {
				return err
			}
		case p.flying > 0:
			p.awaitOutcome()
		case len(p.confirmed) > 0:
			p.impatient = true
		case p.exhausted():
			return nil
		default:
			p.awaitRoom()
		}
	}
}

// exhausted tells whether there is nothing left to do.
func (p *pass) exhausted() bool {
	return p.soft.Err() != nil || !p.searchable() && len(p.unsized)+len(p.plan)+len(p.lonely) == 0
}

func (p *pass) searchable() bool { return p.upcoming() <= p.session.Messages() }

// upcoming is the first sequence number that was not searched. Mails that we have removed were in front of it.
func (p *pass) upcoming() uint32 { return p.next - min(p.removed, p.next-1) }

func (p *pass) send(wait func() error, done func(error) error) {
	p.steps = append(p.steps, step{wait: wait, done: done})
}

// finishOldest reads the answer that comes next.
func (p *pass) finishOldest() error {
	oldest := p.steps[0]
	err := oldest.wait()
	p.steps = p.steps[1:]
	if problem := oldest.done(err); problem != nil {
		return problem
	}
	if e, ok := errors.AsType[*session.Error](err); err != nil && (!ok || !e.Answered || e.Kind == session.Throttled) {
		return err
	}
	return nil
}

// refill sends what there is room for. Nothing is sent while the broker takes nothing, and when we were told to stop.
func (p *pass) refill() {
	if p.soft.Err() != nil || p.mailbox.shared.gate.ready() != nil {
		return
	}
	if len(p.plan)+len(p.unsized) < ahead && !p.searching && p.searchable() {
		p.search()
	}
	if len(p.unsized) > 0 && len(p.plan) < ahead && !p.sizing {
		p.size()
	}
	for p.fetches < fetchesAhead && p.flying+p.places < p.mailbox.shared.afloat() && len(p.plan) > 0 && p.fetchBatch() {
	}
	if len(p.lonely) > 0 && len(p.steps) == 0 && len(p.plan) == 0 {
		p.fetchAlone()
	}
}

// search looks at the next window of messages.
func (p *pass) search() {
	p.next, p.removed = p.upcoming(), 0
	width := window
	if p.session.Caps().Has(imap.CapESearch) {
		width = wideWindow
	}
	p.stride = max(1, p.stride)
	// As wide as the numbers go, whatever number of messages a server claims.
	last := uint32(min(uint64(p.next)+uint64(p.session.Window(width*p.stride))-1, uint64(p.session.Messages())))
	found := p.session.StartSearch(p.next, last, p.query)
	p.next, p.searching = last+1, true
	p.send(found.Wait, func(err error) error {
		p.searching = false
		if err != nil {
			return err
		}
		// Nothing there: larger steps, so that a mailbox of millions which are seen, or a server that claims billions, is soon passed.
		p.stride = min(2*p.stride, widest)
		if len(found.Ranges) > 0 {
			p.stride = 1
		}
		p.takeUp(found.Ranges)
		return nil
	})
}

// takeUp notes what a search has found, but for what is known already.
func (p *pass) takeUp(found []state.Range) {
	f := p.folder
	for _, r := range found {
		p.found.addRange(r)
	}
	unknown := f.known.without(found)
	fresh := f.kept.Missing(unknown)
	p.askAgain(unknown, fresh)
	uids := uidsIn(fresh)
	for _, uid := range uids {
		f.known.add(uid)
	}
	p.unsized = append(p.unsized, uids...)
	p.took += len(uids)
	if n := count(f.counted.without(fresh)); n > 0 {
		p.mailbox.foundMore(n)
		for _, r := range fresh {
			f.counted.addRange(r)
		}
	}
}

// askAgain takes up, to be marked, what was published according to the disk and is found all the same: once a connection, since the server may let us now.
func (p *pass) askAgain(unknown, fresh []state.Range) {
	a := &p.mailbox.account
	if p.folder.askedAgain || a.Fetch == account.FetchNew || !markable(a.After.Kind, &p.sel) {
		return
	}
	var missing uidSet
	for _, r := range fresh {
		missing.addRange(r)
	}
	for _, uid := range uidsIn(missing.without(unknown)) {
		p.folder.known.add(uid)
		p.folder.unmarked.add(uid)
		p.confirmed = append(p.confirmed, uid)
	}
}

// sticky deals with mails that are found though the server said that they are marked.
func (p *pass) sticky(ranges []state.Range) {
	m := p.mailbox
	removes := m.account.After.Kind == account.AfterDelete || m.account.After.Kind == account.AfterMove
	if len(ranges) == 0 || m.account.Fetch != account.FetchUnseen && !removes {
		return
	}
	p.folder.remember(m, uidsIn(ranges))
	if p.folder.first("sticky") {
		m.log.Warn().Str("folder", p.folder.name).Int("mails", count(ranges)).Stringer("after", m.account.After).
			Msg("the server says that it marks mails and does not: what was published is remembered on disk instead")
	}
}

// size asks how large some mails are.
func (p *pass) size() {
	uids := p.unsized[:min(p.session.Window(sizesAtOnce), len(p.unsized))]
	p.unsized = p.unsized[len(uids):]
	sizes := p.session.StartSizes(uids)
	p.sizing = true
	p.send(sizes.Wait, func(err error) error {
		p.sizing = false
		if e, ok := errors.AsType[*session.Error](err); ok && e.Answered && e.Kind != session.Throttled {
			p.mailbox.log.Warn().Err(err).Str("folder", p.folder.name).Msg("the server does not tell sizes: mails are fetched one by one")
			for _, uid := range uids {
				p.lonely = append(p.lonely, session.Sized{UID: uid, Size: unknownSize})
			}
			return nil
		}
		if err != nil {
			p.retry = append(p.retry, uids...)
			return nil //nolint:nilerr // they are asked for again
		}
		p.planned(uids, sizes.Mails)
		return nil
	})
}

// planned sorts mails by what their sizes say. Of those that the server did not tell of nothing is known: they are fetched alone, like those that had trouble
// before.
func (p *pass) planned(asked []uint32, told []session.Sized) {
	sizes := make(map[uint32]int64, len(told))
	for _, mail := range told {
		sizes[mail.UID] = mail.Size
	}
	for _, uid := range asked {
		size, known := sizes[uid]
		mail := session.Sized{UID: uid, Size: max(size, 0)}
		switch {
		case !known:
			p.lonely = append(p.lonely, session.Sized{UID: uid, Size: unknownSize})
		case size > p.limit()*oversizeFactor: // no server is wrong by so much
			p.oversize(uid, size)
		case p.folder.troubled[uid] != nil:
			p.lonely = append(p.lonely, mail)
		default:
			p.plan = append(p.plan, mail)
		}
	}
}

// limit is the size of the largest mail that is collected.
func (p *pass) limit() int64 {
	return min(p.mailbox.account.MaxMessageBytes, p.mailbox.shared.publisher.MaxMessageBytes())
}

// oversize leaves a mail where it is.
func (p *pass) oversize(uid uint32, size int64) {
	p.mailbox.log.Warn().Str("folder", p.folder.name).Uint32("uid", uid).Int64("size", size).Int64("limit", p.limit()).Str("reason", leftOversize).
		Msg("left: the mail is too large")
	p.leaveMail(uid, leftOversize)
}

// leaveMail notes that a mail is left where it is, until the next start of the program.
func (p *pass) leaveMail(uid uint32, reason string) {
	m := p.mailbox
	p.folder.left.add(uid)
	delete(p.folder.troubled, uid)
	p.moved = true
	m.metrics.left.WithLabelValues(m.account.Name, reason).Inc()
	m.count(func(r *Result) {
		if reason == leftParked {
			r.Parked++
		} else {
			r.Oversize++
		}
	})
}

// gather takes the outcomes that are there.
func (p *pass) gather() {
	for {
		select {
		case result := <-p.outcomes:
			p.settle(result)
		default:
			return
		}
	}
}

// awaitOutcome waits for one, but does not let mails that are confirmed wait for long.
func (p *pass) awaitOutcome() {
	timer := time.NewTimer(actPatience)
	defer timer.Stop()
	select {
	case result := <-p.outcomes:
		p.settle(result)
	case <-timer.C:
		p.impatient = true
	}
}

// settle notes what became of a mail that was published.
func (p *pass) settle(result outcome) {
	p.flying--
	switch {
	case result.never:
		p.leaveMail(result.uid, leftRefused)
	case result.failed:
		p.retry = append(p.retry, result.uid)
	default:
		p.places++
		p.mailbox.count(func(r *Result) {
			r.Published++
			r.Bytes += result.size
		})
		p.settled++
		p.moved = true
		delete(p.folder.troubled, result.uid)
		p.folder.unmarked.add(result.uid)
		p.confirmed = append(p.confirmed, result.uid)
	}
}

// leave gives places in the window back. What an earlier connection has published has none.
func (p *pass) leave(mails int) {
	mails = min(mails, p.places)
	p.places -= mails
	p.mailbox.shared.window.give(int64(mails))
}

// awaitRoom waits until something can be sent, when nothing is in hand.
func (p *pass) awaitRoom() {
	shared := p.mailbox.shared
	if shared.gate.await(p.soft) != nil || len(p.plan)+len(p.lonely) == 0 {
		return // loop sees why
	}
	bytes := p.nextClaim()
	if shared.memory.take(p.soft, bytes) == nil {
		p.reserved = bytes
	}
}

// clear gives up what was not settled. What is with publishers is waited for: the broker may have it, and then it is to be marked and not fetched again.
func (p *pass) clear(err error) {
	for _, left := range p.steps {
		_ = left.done(errAbandoned) // it has nothing to add
	}
	p.steps = nil
	if err != nil {
		for p.flying > 0 {
			p.settle(<-p.outcomes)
		}
	}
	known := &p.folder.known
	for _, uids := range [][]uint32{p.unsized, p.retry} {
		for _, uid := range uids {
			known.remove(uid)
		}
	}
	for _, mails := range [][]session.Sized{p.plan, p.lonely} {
		for _, mail := range mails {
			known.remove(mail.UID)
		}
	}
	p.mailbox.shared.memory.give(p.reserved)
	p.leave(p.places)
}
