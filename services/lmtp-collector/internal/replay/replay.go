// Package replay feeds mails out of archives to the broker again, each marked as replayed and with the message id that it had, or that its
// bytes give it. What is behind it stands in a state file, so that it can be ended at any time and go on later.
package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/lmtp-collector/internal/archive"
	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// Publisher is the way to the broker; libs/amqp has one.
type Publisher interface {
	// Publish returns nil only when the broker has the mail for good.
	Publish(ctx context.Context, m amqp091.Publishing) error
	// Ready returns nil when a Publish now would be tried, else why not. It is cheap.
	Ready() error
}

// Replay is one run. Fill in all fields but those that may be nil, and call Run once.
type Replay struct {
	Sources   []archive.Source
	Filter    Filter
	Publisher Publisher // nil: nothing is published, the rest is done all the same
	State     *State    // nil: what is behind is not written down

	// Who replays, for mails of which nothing but the bytes is known.
	App, Collector, Sensor string

	// Window is how many mails may be under way at once, and so how many may be published again after a crash; Bytes is how much of
	// them may be in memory, though a larger mail goes alone.
	Window int
	Bytes  int64

	// Done is called for each mail, in order, when it is behind, and for each source that cannot be read further.
	Done func(Report)
}

// Report is what became of one mail.
type Report struct {
	Name    string
	Size    int64 // of the mail in its source, bytes
	Outcome Outcome
	Err     error               // why it is Bad
	Message *amqp091.Publishing // what was published, or would be; its body is gone. Nil unless it is Replayed
}

// Outcome is what became of a mail.
type Outcome int

// What can become of a mail.
const (
	unfinished Outcome = iota // the run was ended before its turn
	Replayed                  // the broker has it
	Passed                    // it did not pass the filter
	Before                    // an earlier run did it
	Bad                       // it cannot be read, or the broker will never take it
)

// grace is how long mails on their way may still be confirmed when the run is ended.
const grace = 3 * time.Second

// Run replays all there is, and returns nil when all of it is behind, also when some of it was Bad. While the broker is away, it waits. An error
// is that of ctx, or of the state file.
func (r *Replay) Run(ctx context.Context) error {
	if at, _ := r.State.position(); at != "" && !slices.ContainsFunc(r.Sources, func(s archive.Source) bool { return s.Name == at }) {
		return fmt.Errorf("the state file says to go on in %s, which is not there any more", at)
	}
	publishing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, giveUp) })()

	line := newLine(r)
	ended := make(chan error, 1)
	go func() { ended <- line.run() }()
	var workers sync.WaitGroup
	d := dispatcher{Replay: r, line: line, workers: &workers, publishing: publishing, ending: ctx.Done(), memory: semaphore.NewWeighted(max(1, r.Bytes))}
	complete := d.all(ctx)
	workers.Wait()
	close(line.finished)
	err := <-ended
	switch {
	case err != nil:
		return err
	case !complete || line.behind < line.next: // some of the last ones may have been given up
		return context.Cause(ctx)
	}
	return r.State.complete()
}

// dispatcher reads the sources, and starts a worker for each mail.
type dispatcher struct {
	*Replay
	line       *line
	workers    *sync.WaitGroup
	publishing context.Context //nolint:containedctx // of the workers
	ending     <-chan struct{} // closed when the run is to end: what has failed is not tried again
	memory     *semaphore.Weighted
}

// all returns false when ctx, or the state file, ended it.
func (d *dispatcher) all(ctx context.Context) bool {
	resumeAt, after := d.State.position()
	for _, source := range d.Sources {
		if resumeAt != "" && source.Name != resumeAt {
			if !d.line.add(ctx, completion{report: Report{Name: source.Name, Size: source.Bytes, Outcome: Before}}) {
				return false
			}
			continue
		}
		resumeAt = ""
		if !d.one(ctx, source, after) {
			return false
		}
		after = ""
	}
	return true
}

func (d *dispatcher) one(ctx context.Context, source archive.Source, after string) bool {
	for mail, err := range source.Mails() {
		c := completion{source: source.Name, mark: mail.Mark, report: Report{Name: mail.Name, Size: mail.Size}}
		var goOn bool
		switch {
		case err != nil:
			goOn = d.line.add(ctx, completion{report: Report{Name: source.Name, Outcome: Bad, Err: err}})
		case after != "" && mail.Mark <= after:
			c.report.Outcome = Before
			goOn = d.line.add(ctx, c)
		default:
			goOn = d.start(ctx, mail, c)
		}
		if !goOn {
			return false
		}
	}
	return true
}

// start has one mail replayed.
func (d *dispatcher) start(ctx context.Context, mail archive.Mail, c completion) bool {
	number, ok := d.line.enter(ctx)
	if !ok {
		return false
	}
	c.number = number
	record, err := mail.Envelope()
	switch {
	case err != nil:
		c.report.Outcome, c.report.Err = Bad, fmt.Errorf("its envelope: %w", err)
	case record != nil && !d.Filter.takesRecord(record):
		c.report.Outcome = Passed
	}
	if c.report.Outcome != unfinished {
		d.line.leave(c)
		return true
	}
	weight := max(1, min(mail.Size, d.Bytes))
	if d.memory.Acquire(ctx, weight) != nil {
		d.line.leave(c)
		return false
	}
	d.workers.Go(func() {
		defer d.memory.Release(weight)
		d.replay(mail, record, &c.report)
		d.line.leave(c)
	})
	return true
}

func (d *dispatcher) replay(mail archive.Mail, record *maildir.Record, report *Report) {
	message, outcome, err := d.message(mail, record)
	if outcome == unfinished && d.Publisher != nil {
		err = d.publish(message)
		switch failure, _ := errors.AsType[*amqp.Error](err); {
		case err == nil:
		case failure != nil && failure.Permanent:
			outcome = Bad
		default:
			return
		}
	}
	if outcome == unfinished {
		outcome = Replayed
		message.Body = nil
		report.Message = &message
	}
	report.Outcome, report.Err = outcome, err
}

// message reads a mail and returns what is published for it, or else what becomes of it.
func (d *dispatcher) message(mail archive.Mail, record *maildir.Record) (amqp091.Publishing, Outcome, error) {
	body, at, err := mail.Body()
	if err != nil {
		return amqp091.Publishing{}, Bad, err
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	if record != nil {
		if digest != record.Digest() {
			return amqp091.Publishing{}, Bad, maildir.ErrDamaged
		}
		message := record.Message(body)
		message.Headers[envelope.HeaderReplayed] = true
		return message, unfinished, nil
	}
	if len(body) == 0 {
		return amqp091.Publishing{}, Bad, errors.New("it is empty")
	}
	if !d.Filter.takes(at, digest, func() []string { return archive.AddressDomains(body) }) {
		return amqp091.Publishing{}, Passed, nil
	}
	e := envelope.Envelope{
		MessageID: envelope.ReplayMessageID(digest), MailID: envelope.MailID("", digest), App: d.App, Collector: d.Collector, Sensor: d.Sensor,
		SHA256: digest, ContentHash: envelope.ContentHash(body), Size: int64(len(body)), ReceivedAt: at, Replayed: true,
	}
	message, err := e.Publishing(body)
	if err != nil {
		return amqp091.Publishing{}, Bad, err
	}
	return message, unfinished, nil
}

// publish tries until the broker has the mail, or never takes it, or the run ends.
func (d *dispatcher) publish(message amqp091.Publishing) error {
	for {
		err := d.Publisher.Publish(d.publishing, message)
		if failure, ok := errors.AsType[*amqp.Error](err); err == nil || (ok && failure.Permanent) {
			return err
		}
		if !d.await() {
			return err
		}
	}
}

// lookEvery is how often a worker asks whether the publisher is ready again.
const lookEvery = 100 * time.Millisecond

// await waits until a publish may be tried again.
func (d *dispatcher) await() bool {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if d.Publisher.Ready() == nil {
				return true
			}
		case <-d.ending:
			return false
		}
	}
}
