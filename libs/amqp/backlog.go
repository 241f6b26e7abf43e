package amqp

import (
	"fmt"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// growingLooks is for how many looks in a row a backlog must have grown, with nobody to drain it, before that is said.
const growingLooks = 3

// backlog judges the depth of the queue, look by look: one that grows and has no consumer will fill the broker's disk, and
// the time to say so is long before its alarm.
type backlog struct {
	last  int // messages at the last look
	grown int // looks in a row with more messages and no consumer
}

// look takes one observation and tells whether the backlog is growing unattended.
func (b *backlog) look(messages, consumers int) (unattended bool) {
	switch {
	case consumers > 0 || messages < b.last:
		b.grown = 0
	case messages > b.last:
		b.grown++
	}
	b.last = messages
	return b.grown >= growingLooks
}

// watchBacklog looks at the backlog queue now and then, and at the topology when a message was returned, until the session
// ends.
func (p *Publisher) watchBacklog(s *session) {
	ticker := time.NewTicker(p.backlogEvery)
	defer ticker.Stop()
	ask := &scratch{conn: s.conn}
	var seen backlog
	for {
		var err error
		select {
		case <-ticker.C:
			err = p.lookAtBacklog(s, ask, &seen)
		case <-s.doubted:
			err = p.mend(s)
		case <-s.ended:
			return
		}
		if err != nil {
			s.fail(err)
		}
	}
}

func (p *Publisher) lookAtBacklog(s *session, ask *scratch, seen *backlog) error {
	if s.cfg.Queue == "" {
		return nil
	}
	found, err := s.lookUp(ask, s.cfg.Queue)
	switch {
	case answered(err, amqp091.NotFound):
		return p.bind(s) // somebody has deleted it
	case err != nil:
		return s.topologyFault(fmt.Sprintf("look at queue %q", s.cfg.Queue), "", err)
	}
	p.metrics.messages.Set(float64(found.Messages))
	p.metrics.consumers.Set(float64(found.Consumers))
	if !seen.look(found.Messages, found.Consumers) {
		p.backlog.Store(nil)
		return nil
	}
	word := fmt.Sprintf("queue %q grows and has no consumer: %d messages", s.cfg.Queue, found.Messages)
	if p.backlog.Swap(&word) == nil {
		p.log.Warn().Str("queue", s.cfg.Queue).Int("messages", found.Messages).Msg("amqp: the backlog queue grows and has no consumer")
	}
	return nil
}

// mend looks at the topology again after a return: whoever deleted the queue or its binding may have meant to, but mail needs a
// home. With one that is ours to bind, the next try need not wait.
func (p *Publisher) mend(s *session) error {
	if err := p.bind(s); err != nil {
		return err
	}
	if s.cfg.Queue != "" && !p.forbidden.Load() {
		p.door.hopes()
	}
	return nil
}
