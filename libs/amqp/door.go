package amqp

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// trouble is why nothing can be published, and since when.
type trouble struct {
	what   string // "cannot reach rabbitmq:5672"
	why    string // "connection refused"; may be empty
	reason Reason
	since  time.Time
}

// at puts the trouble into words at a moment: "cannot reach rabbitmq:5672 for 12 s: connection refused".
func (t *trouble) at(now time.Time) string {
	text := fmt.Sprintf("%s for %d s", t.what, max(0, int(now.Sub(t.since).Seconds())))
	if t.why != "" {
		text += ": " + t.why
	}
	return text
}

func (t *trouble) error(now time.Time) *Error {
	return &Error{Reason: t.reason, Err: errors.New("amqp: " + t.at(now))}
}

// stretch is a time for which a session takes messages: it ends with the session, or when the broker raises an alarm.
type stretch struct {
	session *session
	halted  chan struct{} // closed when what is in flight must be given up
	cause   *Error        // why; set before halted is closed
}

// pass is the right to publish one message, for as long as its stretch lasts. Every pass is given back by leave.
type pass struct {
	*stretch
	weight  int64
	probe   bool // the one try that tells whether doubts were justified
	overdue bool // no confirm came in time; guarded by the door's mutex
	alone   bool // nobody waits for the outcome any more; guarded by the door's mutex
}

// door decides who may publish. It keeps the window, by count and by bytes, which is handed out strictly in order of
// arrival so that a large message is not passed by small ones for ever. It is shut while there is no session and while the
// broker has an alarm. After a nack, a return or a missed confirm it is in doubt: some queues may hold that message already, so
// that a thousand messages that each failed and are tried again would become thousands of copies. Then it lets nobody in
// until all that is outside has been resolved, and after that one at a time, with growing pauses, until one passes.
type door struct {
	now    func() time.Time
	jitter func(time.Duration) time.Duration

	mu      sync.Mutex
	stretch *stretch // nil while shut
	shut    *trouble // why, while shut
	since   time.Time
	calm    time.Time // when the last alarm ended
	doubt   *doubt

	maxCount, count int
	maxBytes, bytes int64
	overdue         int // of count: those whose confirm did not come in time
	alone           int // of count: those whose outcome nobody waits for any more
	waiting         list.List
	idle            chan struct{} // closed when nobody waits for an outcome; nil unless someone waits for that
}

// doubt is the state of a door after a message was nacked or returned, or its confirm missed.
type doubt struct {
	trouble
	longest time.Duration // between two tries
	failed  bool          // since the last pause was set
	hoped   bool          // a try has been let out without a pause
	tries   int
	next    time.Time // no try before
}

type waiter struct {
	weight   int64
	admitted chan *pass
	refused  *Error // set before admitted is closed
}

func newDoor(count int, bytes int64, now func() time.Time, jitter func(time.Duration) time.Duration) *door {
	return &door{
		now: now, jitter: jitter, maxCount: count, maxBytes: bytes, since: now(),
		shut: &trouble{what: "not running", reason: ReasonNotRunning, since: now()},
	}
}

// enter waits until there is room for a message of size bytes, and returns the right to publish it. It fails at once while the
// door is shut or in doubt, also when it becomes so in the meantime, and when ctx ends.
func (d *door) enter(ctx context.Context, size int64) (*pass, error) {
	weight := min(size, d.maxBytes) // a larger one goes alone
	d.mu.Lock()
	if err := d.refusal(); err != nil {
		d.mu.Unlock()
		return nil, err
	}
	if d.waiting.Len() == 0 && d.fits(weight) {
		defer d.mu.Unlock()
		return d.admit(weight), nil
	}
	w := &waiter{weight: weight, admitted: make(chan *pass, 1)}
	place := d.waiting.PushBack(w)
	d.mu.Unlock()

	select {
	case p, ok := <-w.admitted:
		if !ok {
			return nil, w.refused
		}
		return p, nil
	case <-ctx.Done():
		d.abandon(place, w)
		return nil, gaveUp(ctx, "waiting for room in the window")
	}
}

func gaveUp(ctx context.Context, doing string) *Error {
	return &Error{Reason: ReasonGaveUp, Err: fmt.Errorf("amqp: gave up %s: %w", doing, context.Cause(ctx))}
}

// abandon takes a waiter out of the queue; one that has been admitted in that moment gives its pass back.
func (d *door) abandon(place *list.Element, w *waiter) {
	d.mu.Lock()
	d.waiting.Remove(place)
	d.letIn() // it may have been the one that did not fit
	d.mu.Unlock()
	select {
	case p, ok := <-w.admitted:
		if ok {
			d.leave(p)
		}
	default:
	}
}

func (d *door) fits(weight int64) bool {
	return d.count < d.maxCount && d.bytes+weight <= d.maxBytes
}

func (d *door) admit(weight int64) *pass {
	d.count++
	d.bytes += weight
	return &pass{stretch: d.stretch, weight: weight, probe: d.doubt != nil}
}

// letIn admits those who wait, first come first served.
func (d *door) letIn() {
	for d.refusal() == nil && d.waiting.Len() > 0 {
		first := d.waiting.Front()
		w := first.Value.(*waiter)
		if !d.fits(w.weight) {
			return
		}
		d.waiting.Remove(first)
		w.admitted <- d.admit(w.weight)
	}
}

// sendAway refuses all who wait.
func (d *door) sendAway() {
	refused := d.refusal()
	for ; d.waiting.Len() > 0; d.waiting.Remove(d.waiting.Front()) {
		w := d.waiting.Front().Value.(*waiter)
		w.refused = refused
		close(w.admitted)
	}
}

// refusal returns why nobody is let in right now, or nil.
func (d *door) refusal() *Error {
	if d.shut != nil {
		return d.shut.error(d.now())
	}
	if d.doubt != nil && (d.count > 0 || d.now().Before(d.doubt.next)) {
		err := d.doubt.error(d.now())
		err.Reason = ReasonProbing
		return err
	}
	return nil
}

// leave gives a pass back: its message has been resolved. It tells whether all that is left are messages whose confirm is
// overdue, so that only the end of the session will resolve them.
func (d *door) leave(p *pass) (stuck bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count--
	d.bytes -= p.weight
	if p.overdue {
		d.overdue--
	}
	if p.alone {
		d.alone--
	}
	if d.count == 0 {
		d.resolved()
	}
	d.rest()
	d.letIn()
	return d.stuck()
}

// forsake notes that nobody waits for the outcome of a message any more; it still occupies its room.
func (d *door) forsake(p *pass) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.alone = true
	d.alone++
	d.rest()
}

// rest tells who waits for it that nobody waits for an outcome.
func (d *door) rest() {
	if d.idle != nil && d.count == d.alone {
		close(d.idle)
		d.idle = nil
	}
}

// resolved sets the pause before the next try, once nothing is outside any more.
func (d *door) resolved() {
	if d.doubt != nil && d.doubt.failed {
		d.doubt.failed = false
		d.doubt.next = d.now().Add(d.jitter(backoff(firstProbe, d.doubt.longest, d.doubt.tries)))
		d.doubt.tries++
	}
}

func (d *door) stuck() bool { return d.overdue > 0 && d.overdue == d.count }

// missed notes that the confirm of a message did not come in time; it still occupies its room. The result is leave's.
func (d *door) missed(p *pass) (stuck bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.overdue = true
	d.overdue++
	return d.stuck()
}

// doubts puts the door in doubt, or keeps it there, because a message failed. Pauses grow up to longest.
func (d *door) doubts(t trouble, longest time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.since = d.now()
	if d.doubt == nil {
		d.doubt = &doubt{}
	} else {
		t.since = d.doubt.since
	}
	d.doubt.trouble, d.doubt.longest, d.doubt.failed = t, longest, true
	d.sendAway()
}

// trusts ends all doubts, because a try has passed; it tells for how long they lasted.
func (d *door) trusts() (lasted time.Duration, had bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt == nil {
		return 0, false
	}
	lasted = d.now().Sub(d.doubt.since)
	d.doubt, d.since = nil, d.now()
	d.letIn()
	return lasted, true
}

// hopes lets the next try go out without a pause, because what was wrong seems to be mended; once, lest hope becomes a loop.
func (d *door) hopes() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt != nil && !d.doubt.hoped {
		d.doubt.hoped, d.doubt.failed, d.doubt.next = true, false, time.Time{}
	}
}

// open lets messages through to a session. It does nothing to a door that is open: what is in flight belongs to its stretch.
func (d *door) open(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stretch != nil {
		return
	}
	if d.shut.reason == ReasonAlarm {
		d.calm = d.now()
	}
	d.stretch, d.shut, d.since = &stretch{session: s, halted: make(chan struct{})}, nil, d.now()
	d.letIn()
}

// close shuts the door and halts what is in flight. A session that is lost during an alarm leaves a doubt, because a broker
// tells of its alarm only those who publish: one message finds out on the next session, not a whole window.
func (d *door) close(t trouble) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.since = d.now()
	if d.shut != nil && d.shut.reason == t.reason {
		t.since = d.shut.since
	}
	if d.shut != nil && d.shut.reason == ReasonAlarm && d.doubt == nil {
		d.doubt = &doubt{longest: longestProbe, trouble: trouble{
			what: "the broker had an alarm when the connection was lost, one try at a time",
			why:  d.shut.why, reason: ReasonAlarm, since: d.shut.since,
		}}
	}
	d.shut = &t
	if d.stretch != nil {
		d.stretch.cause = t.error(d.now())
		close(d.stretch.halted)
		d.stretch = nil
	}
	d.sendAway()
}

// closing shuts the door but leaves what is in flight alone; the channel is closed when nobody waits for any of it.
func (d *door) closing(t trouble) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.since = d.now()
	d.shut = &t
	d.sendAway()
	idle := make(chan struct{})
	d.idle = idle
	d.rest()
	return idle
}

// grace returns how much longer to wait for a confirm whose time is up: an alarm, and what the broker has to catch up with
// after it, do not count.
func (d *door) grace(limit time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut != nil && d.shut.reason == ReasonAlarm {
		return limit
	}
	return max(0, limit-d.now().Sub(d.calm))
}

// alarmed tells whether the door is shut because of an alarm.
func (d *door) alarmed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut != nil && d.shut.reason == ReasonAlarm
}

// ready returns why nobody would be let in now, or nil.
func (d *door) ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	return nil
}

// state returns what keeps messages from being published as they come, or nil, and since when that is so.
func (d *door) state() (*trouble, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.shut != nil:
		t := *d.shut
		return &t, t.since
	case d.doubt != nil:
		t := d.doubt.trouble
		return &t, t.since
	}
	return nil, d.since
}

// load returns how much is in flight.
func (d *door) load() (count int, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count, d.bytes
}
