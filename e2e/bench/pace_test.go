package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// pace publishes one mail, with nothing but amqp091, for each that an smtp-sink takes.
type pace struct {
	s         *stage
	conn      *amqp091.Connection
	channel   *amqp091.Channel
	counts    string       // file that the sink writes how many mails it has taken to
	confirmed atomic.Int64 // mails
	done      chan struct{}
	ended     chan struct{}
}

// startPace starts an smtp-sink and publishes at its pace until stop.
func (s *stage) startPace(tools *rig.Container, sink string) *pace {
	s.b.Helper()
	rig.Docker(s.b, "exec", "-d", tools.Name, "sh", "-c", "smtp-sink -L -c -u nobody "+sink+" 1000 >/tmp/counts")
	conn, err := amqp091.Dial(s.broker.URLAt(s.broker.Address()))
	if err != nil {
		s.b.Fatal(err)
	}
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		s.b.Fatal(err)
	}
	p := &pace{
		s: s, conn: conn, channel: channel, counts: fmt.Sprintf("/proc/%d/root/tmp/counts", s.pidOf(tools)),
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	pending := make(chan *amqp091.DeferredConfirmation, behindPostfix)
	go p.settle(pending)
	go p.publish(pending)
	return p
}

// publish looks what the sink has taken every few milliseconds, and publishes as much.
func (p *pace) publish(pending chan<- *amqp091.DeferredConfirmation) {
	defer close(pending)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	body := make([]byte, mailSize)
	for published := int64(0); ; {
		for taken := p.taken(); published < taken; published++ {
			c, err := p.channel.PublishWithDeferredConfirm("spam", "spam.mails", true, false, amqp091.Publishing{
				DeliveryMode: amqp091.Persistent, ContentType: "message/rfc822", Body: body,
			})
			if err != nil {
				p.s.b.Errorf("publish at the sink's pace: %v", err)
				return
			}
			pending <- c
		}
		select {
		case <-tick.C:
		case <-p.done:
			return
		}
	}
}

// settle counts what the broker has confirmed.
func (p *pace) settle(pending <-chan *amqp091.DeferredConfirmation) {
	defer close(p.ended)
	for c := range pending {
		if ok, err := c.WaitContext(p.s.b.Context()); err != nil || !ok {
			p.s.b.Errorf("a mail at the sink's pace was not confirmed: %v", err)
			return
		}
		p.confirmed.Add(1)
	}
}

// taken returns how many mails the sink has taken. It writes "mesg=N" and a carriage return after each.
func (p *pace) taken() int64 {
	file, err := os.Open(p.counts)
	if err != nil {
		return 0 // it has not begun
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	last := make([]byte, 256)
	n, _ := file.ReadAt(last, max(0, info.Size()-int64(len(last)))) // what is missing comes with the next look
	text, _, whole := cutLast(string(last[:n]), "\r")
	_, count, found := cutLast(text, "mesg=")
	if !whole || !found {
		return 0
	}
	taken, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return 0
	}
	return taken
}

// cutLast cuts a text at the last separator in it.
func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}

// await waits until so many mails are confirmed.
func (p *pace) await(mails int) {
	p.s.b.Helper()
	rig.Eventually(p.s.b, time.Minute, "what the sink has taken is published", func() bool { return p.confirmed.Load() >= int64(mails) })
}

func (p *pace) stop() {
	close(p.done)
	<-p.ended
	_ = p.conn.Close()
}
