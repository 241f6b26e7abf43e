package maildir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Waiting is a mail that the broker does not have yet.
type Waiting struct {
	Name  string    // base name
	Size  int64     // of the mail, bytes
	Since time.Time // when it was stored

	bucket string
	lined  time.Time // when it was put in line
}

// lookEvery is how often Next looks for mail that another process has put there: `spool retry` does.
const lookEvery = 5 * time.Second

// queue hands out the mails that wait, oldest first. It holds the names of one bucket at a time.
type queue struct {
	mu       sync.Mutex
	taken    map[string]bool // base names that are in line, returned, in somebody's hands, or unknown to us
	line     []Waiting       // of one bucket, oldest first
	returned []Waiting
	counted  map[string]bool // buckets whose mails are in waiting and bytes
	waiting  int64
	bytes    int64
	aside    int64
	unknown  int64
	oldest   time.Time
	wake     chan struct{} // has room for one word: there may be something

	asideAsOf time.Time // when the folder of what was set aside had changed, as of the last count; only Run uses it
}

func newQueue() queue {
	return queue{taken: make(map[string]bool), counted: make(map[string]bool), wake: make(chan struct{}, 1)}
}

// Next returns the oldest mail that waits and is in nobody's hands. It blocks until there is one, or until ctx ends, which
// is its only error. Whoever gets a mail gives it back by Return, Delivered or SetAside.
func (m *Maildir) Next(ctx context.Context) (Waiting, error) {
	if w, ok := m.queue.pop(m); ok {
		return w, nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if w, ok := m.queue.pop(m); ok {
			return w, nil
		}
		select {
		case <-m.queue.wake:
		case <-tick.C:
		case <-ctx.Done():
			return Waiting{}, ctx.Err()
		}
	}
}

// Return gives a mail back that could not be delivered. It is handed out again before younger ones.
func (m *Maildir) Return(w Waiting) {
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	at, _ := slices.BinarySearchFunc(q.returned, w, func(a, b Waiting) int { return strings.Compare(a.Name, b.Name) })
	q.returned = slices.Insert(q.returned, at, w)
	q.signal()
}

// signal wakes a Next.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// hold keeps a mail that is going to be stored from being handed out: its envelope is there before the mail is. It is counted by add, and
// so are all others in its bucket, which is ours.
func (q *queue) hold(w Waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken[w.Name] = true
	q.counted[w.bucket] = true
}

// letGo ends that for a mail that could not be stored.
func (q *queue) letGo(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.taken, name)
}

// add ends it for a mail that was stored.
func (q *queue) add(w Waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.taken, w.Name)
	if q.waiting == 0 {
		q.oldest = w.Since
	}
	q.waiting++
	q.bytes += w.Size
	q.signal()
}

func (q *queue) pop(m *Maildir) (Waiting, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.returned) > 0 {
		w := q.returned[0]
		q.returned = q.returned[1:]
		return w, true
	}
	if len(q.line) == 0 {
		q.refill(m)
	}
	if len(q.line) == 0 {
		return Waiting{}, false
	}
	w := q.line[0]
	q.line = q.line[1:]
	return w, true
}

// refill puts the oldest bucket that has mails in nobody's hands in line. Buckets that are empty and stay so are removed.
func (q *queue) refill(m *Maildir) {
	buckets, err := listFolder(m.path(pendingFolder))
	if err != nil {
		m.log.Error().Err(err).Msg("the maildir's folder of envelopes cannot be read: what waits there has to go on waiting")
		return
	}
	for _, bucket := range buckets {
		mails := q.look(m, bucket)
		fresh := slices.DeleteFunc(mails, func(w Waiting) bool { return q.taken[w.Name] })
		for i := range fresh {
			q.taken[fresh[i].Name] = true
			fresh[i].lined = time.Now()
		}
		if len(fresh) > 0 {
			q.line = fresh
			return
		}
	}
}

// look returns what lies in a bucket, oldest first, and counts it if it has not been yet. The caller holds mu.
func (q *queue) look(m *Maildir, bucket string) []Waiting {
	names, err := listFolder(m.path(pendingFolder, bucket))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Error().Err(err).Msg("a folder of envelopes cannot be read: what waits there has to go on waiting")
		}
		return nil
	}
	var mails []Waiting
	for _, name := range names {
		base, isEnvelope := cut(name, envelopeSuffix)
		since, size, ours := parseName(base)
		if isEnvelope && ours {
			mails = append(mails, Waiting{Name: base, Size: size, Since: since, bucket: bucket})
		}
	}
	if !q.counted[bucket] {
		q.counted[bucket] = true
		for _, w := range mails {
			q.waiting++
			q.bytes += w.Size
		}
	}
	if len(names) == 0 && !m.bucket.isCurrent(bucket) {
		if os.Remove(m.path(pendingFolder, bucket)) == nil { // not while Store is putting a last mail into it
			delete(q.counted, bucket)
		}
	}
	return mails
}

// leave takes a mail out of the queue whose envelope has just been moved away. Until now the mail is in somebody's hands, and so nobody
// else's; its bucket was counted before it was handed out.
func (q *queue) leave(w Waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.taken, w.Name)
	q.waiting--
	q.bytes -= w.Size
}

// leaveAlone notes a mail that a newer version has to deliver. It is not handed out again.
func (q *queue) leaveAlone() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unknown++
}

func (q *queue) asideBy(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.aside += n
}

// findOldest looks since when the oldest mail waits.
func (q *queue) findOldest(m *Maildir) {
	buckets, err := listFolder(m.path(pendingFolder))
	if err != nil {
		return // refill says it
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.oldest = time.Time{}
	for _, bucket := range buckets {
		if mails := q.look(m, bucket); len(mails) > 0 {
			q.oldest = mails[0].Since
			return
		}
	}
}

// countAll counts what lay there before this process.
func (m *Maildir) countAll(ctx context.Context) {
	if buckets, err := listFolder(m.path(pendingFolder)); err == nil { // refill says the error
		for _, bucket := range buckets {
			if ctx.Err() != nil {
				return
			}
			m.queue.mu.Lock()
			m.queue.look(m, bucket)
			m.queue.mu.Unlock()
		}
	}
	m.copies.count(ctx, m.path(doneFolder))
}

// countAside counts what was set aside, when that has changed: `spool retry` is another process.
func (m *Maildir) countAside() {
	info, err := os.Stat(m.path(asideFolder))
	if err != nil || info.ModTime().Equal(m.queue.asideAsOf) {
		return
	}
	names, err := listFolder(m.path(asideFolder))
	if err != nil {
		return
	}
	n := int64(0)
	for _, name := range names {
		if _, isEnvelope := cut(name, envelopeSuffix); isEnvelope {
			n++
		}
	}
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	m.queue.aside, m.queue.asideAsOf = n, info.ModTime()
}

// listFolder returns the names in a folder, sorted.
func listFolder(path string) ([]string, error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	names, err := folder.Readdirnames(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// Stats is what lies in a maildir.
type Stats struct {
	Waiting      int64     // mails that the broker does not have yet
	WaitingBytes int64     // of them
	Oldest       time.Time // when the oldest of them was stored, as of some seconds ago; zero when there is none
	Aside        int64     // mails that were set aside
	Unknown      int64     // of Waiting: mails whose envelope a newer version has written, which are left alone
	Copies       int64     // mails that the broker has
	CopiesBytes  int64     // of them
}

// Stats returns what lies there. What was there at the start joins in as Run counts it.
func (m *Maildir) Stats() Stats {
	copies, bytes := m.copies.stats()
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{
		Waiting: q.waiting, WaitingBytes: q.bytes, Oldest: q.oldest, Aside: q.aside, Unknown: q.unknown,
		Copies: copies, CopiesBytes: bytes,
	}
	if s.Waiting == 0 {
		s.Oldest = time.Time{}
	} else if s.Oldest.IsZero() {
		s.Oldest = time.Now()
	}
	return s
}
