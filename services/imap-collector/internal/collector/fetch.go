package collector

import (
	"errors"
	"sync"

	"spamtraps.internal/imap-collector/internal/session"
)

// nextBatch returns how many mails of the plan to ask for at once: as many as the busy mailboxes can have room for, one at least.
func (p *pass) nextBatch() []session.Sized {
	mostMails, mostBytes := p.mailbox.shared.batch()
	n, bytes := 0, int64(0)
	for n < len(p.plan) && n < p.session.Window(mostMails) {
		bytes += max(p.plan[n].Size, leastSize)
		if n > 0 && bytes > mostBytes {
			break
		}
		n++
	}
	return p.plan[:n]
}

// claimFor returns the memory that mails need, if their sizes are true.
func (p *pass) claimFor(mails []session.Sized) int64 {
	bytes := int64(0)
	for _, mail := range mails {
		bytes += min(max(mail.Size, leastSize), p.limit())
	}
	return p.mailbox.shared.memory.weigh(bytes)
}

// nextClaim returns the memory that is needed to go on.
func (p *pass) nextClaim() int64 {
	if len(p.plan) > 0 {
		return p.claimFor(p.nextBatch())
	}
	return p.claimFor(p.lonely[:1])
}

// reserve takes memory, of what was waited for if there is such.
func (p *pass) reserve(bytes int64) bool {
	memory := p.mailbox.shared.memory
	had := p.reserved
	p.reserved = 0
	if had >= bytes {
		memory.give(had - bytes)
		return true
	}
	memory.give(had)
	return memory.try(bytes)
}

// fetchBatch asks for the next mails of the plan, if there is room for them.
func (p *pass) fetchBatch() bool {
	batch := p.nextBatch()
	memory := p.claimFor(batch)
	if !p.reserve(memory) {
		return false
	}
	p.plan = p.plan[len(batch):]
	p.fetch(batch, memory, p.folder.bare, nil)
	return true
}

// fetchAlone asks for one mail that had trouble, if there is room for it.
func (p *pass) fetchAlone() {
	mail := p.lonely[0]
	memory := p.claimFor(p.lonely[:1])
	if !p.reserve(memory) {
		return
	}
	p.lonely = p.lonely[1:]
	t := p.folder.alone(mail.UID)
	p.fetch([]session.Sized{mail}, memory, p.folder.bare || t.wantsBare(), t)
}

// fetch asks for mails. trouble is that of a mail which is fetched alone.
func (p *pass) fetch(batch []session.Sized, memory int64, bare bool, trouble *trouble) {
	hold := &holding{pass: p, left: memory, each: make(map[uint32]int64, len(batch))}
	uids, planned := make([]uint32, len(batch)), int64(0)
	for i, mail := range batch {
		uids[i] = mail.UID
		planned += mail.Size
	}
	fetched := p.session.StartFetch(uids, planned, bare, hold.take)
	p.fetches++
	p.send(fetched.Wait, func(err error) error {
		p.fetches--
		defer hold.release()
		if err != nil {
			return p.fetchFailed(batch, fetched, trouble, err)
		}
		if len(fetched.Differs) > 0 && p.folder.first("differs") {
			p.mailbox.log.Warn().Str("folder", p.folder.name).Uints32("uids", fetched.Differs).
				Msg("the server answers with different mails for one UID: none of them counts, and it is asked again")
		}
		switch {
		case trouble == nil && len(fetched.Missing) > 0:
			// Something is not as it should be, and what came may be out of place too: ask for each alone.
			p.lonely = append(p.lonely, batch...)
			return nil
		case trouble != nil && bare && !p.folder.bare && len(fetched.Mails) > 0:
			p.folder.bare = true
			p.mailbox.log.Warn().Str("folder", p.folder.name).Msg("the server chokes on what it tells beside bodies: only bodies are asked for")
		}
		p.accept(batch, fetched, trouble, hold)
		return nil
	})
}

// holding is the memory of a batch.
type holding struct {
	pass *pass
	mu   sync.Mutex       // a server that answers twice is read by two goroutines
	left int64            // of what was reserved
	each map[uint32]int64 // what mails have
}

// take makes room for a mail whose size is now known. When it is larger than planned and there is no more room, it is fetched again later,
// with the true size; it does not wait, for it holds what others wait for.
func (h *holding) take(uid uint32, size int64) []byte {
	if size > h.pass.limit() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.each == nil {
		return nil // it is given up
	}
	memory := h.pass.mailbox.shared.memory
	weight := memory.weigh(size)
	if weight > h.left {
		if !memory.try(weight - h.left) {
			return nil
		}
		h.left = weight
	}
	h.left -= weight
	h.each[uid] += weight
	return make([]byte, size)
}

// hand hands the memory of a mail to whoever publishes it.
func (h *holding) hand(uid uint32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	weight := h.each[uid]
	delete(h.each, uid)
	return weight
}

// release gives back what nobody has taken over.
func (h *holding) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, weight := range h.each {
		h.left += weight
	}
	h.pass.mailbox.shared.memory.give(h.left)
	h.left, h.each = 0, nil
}

// accept publishes what came whole, with a clean answer.
func (p *pass) accept(batch []session.Sized, fetched *session.Fetched, trouble *trouble, hold *holding) {
	sizes := make(map[uint32]int64, len(batch))
	for _, mail := range batch {
		sizes[mail.UID] = mail.Size
	}
	for _, mail := range fetched.Mails {
		if len(mail.Body) == 0 && sizes[mail.UID] > 0 { // it is no mail
			p.absent(mail.UID)
			continue
		}
		p.fetched, p.refusals, p.blamed = true, 0, nil
		p.mailbox.metrics.fetched.Inc()
		p.flying++
		go p.publish(mail, hold.hand(mail.UID))
	}
	for _, mail := range fetched.Passed {
		switch {
		case mail.Size > p.limit():
			p.oversize(mail.UID, mail.Size)
		case trouble != nil:
			p.lonely = append(p.lonely, mail)
		default:
			p.plan = append(p.plan, mail)
		}
	}
	for _, uid := range fetched.Missing {
		p.absent(uid)
	}
}

// absent notes that the server did not give a mail that it was asked for alone. It is done with only when it is not found any more.
func (p *pass) absent(uid uint32) {
	t := p.folder.alone(uid)
	t.absent++
	p.blame(uid, t)
}

// blame parks a mail with which nothing can be done, and has any other tried again.
func (p *pass) blame(uid uint32, t *trouble) {
	p.moved = true
	if !t.hopeless() {
		p.retry = append(p.retry, uid)
		return
	}
	p.mailbox.log.Warn().Str("folder", p.folder.name).Uint32("uid", uid).Int("refused", t.tries).Int("dropped", t.drops).Int("absent", t.absent).
		Str("reason", leftParked).Msg("left: the mail could not be fetched; it is tried again after a restart")
	p.leaveMail(uid, leftParked)
}

// fetchFailed decides whose fault it was that a command brought nothing.
func (p *pass) fetchFailed(batch []session.Sized, fetched *session.Fetched, trouble *trouble, err error) error {
	e, ok := errors.AsType[*session.Error](err)
	if !ok || e.Kind == session.Stopped || e.Kind == session.Throttled {
		p.later(batch)
		return nil
	}
	if trouble == nil {
		p.suspect(batch, fetched, e)
		return nil
	}
	uid := batch[0].UID
	switch {
	case e.Answered:
		return p.refusedAlone(uid, trouble, e)
	case e.Kind == session.Protocol:
		trouble.tries++
	default:
		trouble.drops++
	}
	p.mailbox.log.Info().Err(err).Str("folder", p.folder.name).Uint32("uid", uid).Msg("the connection ended in a mail that was fetched alone")
	p.blame(uid, trouble)
	return nil
}

// later has mails found again.
func (p *pass) later(batch []session.Sized) {
	for _, mail := range batch {
		p.retry = append(p.retry, mail.UID)
	}
}

// suspect has those mails of a batch fetched alone that may have been the reason for its end: those that had not come whole by then.
func (p *pass) suspect(batch []session.Sized, fetched *session.Fetched, e *session.Error) {
	if e.Answered {
		p.lonely = append(p.lonely, batch...)
		return
	}
	whole := make(map[uint32]bool, len(fetched.Mails))
	for i := range fetched.Mails {
		whole[fetched.Mails[i].UID] = true
	}
	for _, mail := range batch {
		if !whole[mail.UID] {
			p.folder.alone(mail.UID)
		}
	}
	p.later(batch)
}

// refusedAlone notes that the server said no to one mail. When it does so all the time, it has nothing to do with the mails.
func (p *pass) refusedAlone(uid uint32, t *trouble, e *session.Error) error {
	t.tries++
	p.blamed = append(p.blamed, t)
	p.refusals++
	if p.refusals >= mostRefusals && !p.fetched {
		for _, t := range p.blamed {
			t.tries--
		}
		p.retry = append(p.retry, uid)
		return e
	}
	p.blame(uid, t)
	return nil
}
