package maildir

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// run runs a maildir and returns what ends that and waits for it.
func run(t testing.TB, m *Maildir) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// copiesOf returns how many mails lie in new/, and how many envelopes of copies.
func copiesOf(t testing.TB, m *Maildir) (mails, envelopes int) {
	t.Helper()
	for _, name := range files(t, m) {
		switch {
		case strings.HasPrefix(name, newFolder+"/"):
			mails++
		case strings.HasPrefix(name, doneFolder+"/"):
			envelopes++
		default:
			t.Errorf("%s is left", name)
		}
	}
	return mails, envelopes
}

// Copies that wait to be written are bounded by bytes: whoever comes then waits for the disk, and no copy is dropped.
func TestCopiesWaitForTheDisk(t *testing.T) {
	const limit, size = 10_000, 1000
	m := openAt(t, t.TempDir(), keepAll, func(c *Config) { c.Unwritten = limit })
	body := strings.Repeat("x", size)
	m.copies.mu.Lock() // the disk hangs: nobody learns where the envelope of a copy belongs
	fits := 0
	for first := message(t, body); int64(fits+1)*copySize(&first) <= limit; fits++ {
		m.Keep(message(t, body))
	}
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		m.Keep(message(t, body))
	}()
	select {
	case <-passed:
		t.Errorf("a copy was taken beyond %d bytes", limit)
	case <-time.After(100 * time.Millisecond):
	}
	m.copies.mu.Unlock()
	<-passed
	m.Keep(message(t, strings.Repeat("x", 2*limit))) // goes alone
	m.writer.wait()
	if mails, envelopes := copiesOf(t, m); mails != fits+2 || envelopes != fits+2 {
		t.Errorf("%d mails and %d envelopes, want %d", mails, envelopes, fits+2)
	}
	if m.writer.bytes != 0 {
		t.Errorf("%d bytes still count", m.writer.bytes)
	}
}

// The end of Run is the end of all copies that were taken before it.
func TestRunWritesAllCopies(t *testing.T) {
	m := openAt(t, t.TempDir(), keepAll)
	stop := run(t, m)
	const copies = 200
	for i := range copies {
		m.Keep(message(t, fmt.Sprint(i)))
	}
	stop()
	if mails, envelopes := copiesOf(t, m); mails != copies || envelopes != copies {
		t.Errorf("%d mails and %d envelopes, want %d", mails, envelopes, copies)
	}
}

// What the broker has is deleted, also when a crash came before that, and counts as delivered until then. Copies stay.
func TestGoneIsDeleted(t *testing.T) {
	m := openAt(t, filepath.Join(t.TempDir(), "maildir"))
	for i := range 5 {
		store(t, m, fmt.Sprint(i))
	}
	delivered := next(t, m)
	if err := m.Delivered(delivered); err != nil {
		t.Fatal(err)
	}
	v := view(t, m)
	if e, err := v.Find(delivered.Name); err != nil || e.State != StateDelivered {
		t.Errorf("a mail that is to be deleted is %+v, %v", e, err)
	}
	if all := entries(t, v, StateDelivered); len(all) != 1 {
		t.Errorf("%d mails are delivered, want 1", len(all))
	}
	m.crash()
	m = openAt(t, m.cfg.Path)
	for range 2 {
		if err := m.Delivered(next(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	stop := run(t, m)
	for range 2 { // while it runs
		if err := m.Delivered(next(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(files(t, m)) > 0 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	stop()
	if left := files(t, m); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// What is to be deleted anyway goes before mail is refused for want of room, and before copies do.
func TestGoneGoesBeforeCopies(t *testing.T) {
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=40m"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	body := strings.Repeat("x", 1<<20)
	m := openAt(t, path, keepAll)
	m.Keep(message(t, body))
	m.writer.wait()
	m.crash()
	m = openAt(t, path)
	m.countAll(t.Context())
	for range 30 {
		store(t, m, body)
		if err := m.Delivered(next(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	m.cfg.MinFree = 20 << 20
	if err := m.Ready(); err != nil {
		t.Errorf("not ready though mails could be deleted: %v", err)
	}
	store(t, m, body)
	if s := m.Stats(); s.Copies != 1 {
		t.Errorf("%d copies are left, want 1", s.Copies)
	}
}
