package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

// mta sends numbered mails over some sessions at once and does what an MTA does: a mail that was not answered 250 is sent
// again until it is.
type mta struct {
	socket string
	faults int // how often something happened that lets a mail of the maildir be published once more; 0 without a maildir

	mu       sync.Mutex
	started  int           // mails that were begun; their numbers are below
	tries    map[int]int   // of each mail, those that came as far as its body
	accepted map[int]bool  // mails that were answered 250
	progress chan struct{} // closed and renewed at each 250
	enough   bool          // no further mails

	sessions sync.WaitGroup
}

// retryAfter is how long the mta waits before it tries again.
const retryAfter = 50 * time.Millisecond

func startMTA(t *testing.T, socket string, sessions int) *mta {
	t.Helper()
	m := &mta{socket: socket, tries: make(map[int]int), accepted: make(map[int]bool), progress: make(chan struct{})}
	stop := make(chan struct{})
	for range sessions {
		m.sessions.Go(func() { m.work(stop) })
	}
	t.Cleanup(func() {
		close(stop)
		m.stop()
	})
	return m
}

func (m *mta) work(stop <-chan struct{}) {
	var c *lmtptest.Client
	defer func() { hangUp(c) }()
	for number, ok := m.next(); ok; number, ok = m.next() {
		for !m.try(&c, number) {
			select {
			case <-stop:
				return
			case <-time.After(retryAfter):
			}
		}
		m.accept(number)
	}
}

func (m *mta) next() (number int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.enough {
		return 0, false
	}
	m.started++
	return m.started - 1, true
}

// try sends a mail once and tells whether it was answered 250.
func (m *mta) try(c **lmtptest.Client, number int) bool {
	if *c == nil {
		var err error
		if *c, err = hello(m.socket); err != nil {
			*c = nil
			return false
		}
	}
	m.mu.Lock()
	m.tries[number]++
	m.mu.Unlock()
	replies, err := (*c).Deliver(sender(number), []string{"b@y.example"}, content(number))
	var refused *lmtptest.RefusedError
	switch {
	case errors.As(err, &refused):
		return false
	case err != nil:
		hangUp(*c)
		*c = nil
		return false
	}
	return strings.HasPrefix(replies[0], "250 ")
}

func hangUp(c *lmtptest.Client) {
	if c != nil {
		_ = c.Close()
	}
}

func (m *mta) accept(number int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accepted[number] = true
	close(m.progress)
	m.progress = make(chan struct{})
}

// await waits until count mails more than now were accepted, and returns how long that took.
func (m *mta) await(t *testing.T, count int) time.Duration {
	t.Helper()
	began, late := time.Now(), time.After(time.Minute)
	m.mu.Lock()
	want := len(m.accepted) + count
	m.mu.Unlock()
	for {
		m.mu.Lock()
		done, progress := len(m.accepted) >= want, m.progress
		m.mu.Unlock()
		if done {
			return time.Since(began)
		}
		select {
		case <-progress:
		case <-late:
			t.Fatalf("%d mails were not accepted within a minute", count)
		}
	}
}

// finish lets every mail that was begun be accepted, and compares them with those in the queue: each must be there as it was
// sent, and only one that was tried again may be there twice, then under the same message id.
func (m *mta) finish(t *testing.T, broker *rig.Broker) {
	t.Helper()
	m.stop()
	m.compare(t, drain(t, broker))
}

// stop lets every mail that was begun be accepted.
func (m *mta) stop() {
	m.mu.Lock()
	m.enough = true
	m.mu.Unlock()
	m.sessions.Wait()
}

// compare compares the mails that were accepted with those that arrived.
func (m *mta) compare(t *testing.T, arrived []mail) {
	t.Helper()
	copies := make(map[string]int)
	ids := make(map[string]string)
	for _, mail := range arrived {
		from := mail.LMTP.MailFrom
		copies[from]++
		if id, seen := ids[from]; seen && id != mail.MessageID {
			t.Errorf("%s came as %s and as %s", from, id, mail.MessageID)
		}
		ids[from] = mail.MessageID
		var number int
		if _, err := fmt.Sscanf(from, "mail-%d@", &number); err != nil || !bytes.Equal(mail.body, content(number)) {
			t.Errorf("%s arrived changed: %.100q", from, mail.body)
		}
	}
	var missing []string
	duplicates := 0
	for number := range m.accepted {
		n := copies[sender(number)]
		if n == 0 {
			missing = append(missing, sender(number))
		}
		if n > m.tries[number]+m.faults {
			t.Errorf("mail %d is there %d times after %d tries and %d faults", number, n, m.tries[number], m.faults)
		}
		duplicates += max(0, n-1)
	}
	slices.Sort(missing)
	t.Logf("%d accepted, %d missing, %d duplicates", len(m.accepted), len(missing), duplicates)
	if most := window*m.faults + m.retries(); duplicates > most {
		t.Errorf("%d duplicates are more than the window of %d times %d faults and what was sent again", duplicates, window, m.faults)
	}
	if len(missing) > 0 {
		t.Errorf("answered 250 and gone: %.500s", strings.Join(missing, " "))
	}
}

// retries returns how many tries failed. The caller has seen to it that there are no more of them.
func (m *mta) retries() int {
	n := 0
	for _, tries := range m.tries {
		n += tries - 1
	}
	return n
}

func sender(number int) string { return fmt.Sprintf("mail-%d@x.example", number) }

func content(number int) []byte {
	return fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", number, strings.Repeat("spam ", 400))
}
