package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/lmtp-collector/internal/archive"
	"spamtraps.internal/lmtp-collector/internal/maildir"
	"spamtraps.internal/lmtp-collector/internal/replay"
)

// source is one of so many mails, with the numbers of the bad ones.
func source(name string, mails int, bad ...int) archive.Source {
	return archive.Source{Name: name, Mails: func() iter.Seq2[archive.Mail, error] {
		return func(yield func(archive.Mail, error) bool) {
			for number := range mails {
				mail := archive.Mail{
					Name: fmt.Sprintf("%s/%d", name, number), Mark: fmt.Sprintf("%06d", number), Size: 1,
					Envelope: func() (*maildir.Record, error) { return nil, nil }, //nolint:nilnil // there is none
					Body: func() ([]byte, time.Time, error) {
						if slices.Contains(bad, number) {
							return nil, time.Time{}, errors.New("broken")
						}
						return fmt.Appendf(nil, "%s %d", name, number), time.Unix(1_700_000_000, 0), nil
					},
				}
				if !yield(mail, nil) {
					return
				}
			}
		}
	}}
}

// broker takes each mail after a while, in whatever order, and can stop to.
type broker struct {
	mu     sync.Mutex
	copies map[string]int
	limit  int // of mails it takes; then it is away
	away   func()
}

func (b *broker) Ready() error { return nil }

func (b *broker) Publish(ctx context.Context, m amqp091.Publishing) error {
	time.Sleep(rand.N(time.Millisecond)) // so that mails overtake each other
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case strings.Contains(string(m.Body), "never"):
		return &amqp.Error{Permanent: true, Reason: amqp.ReasonTooLarge, Err: errors.New("too large")}
	case b.limit == 0:
		b.away()
		return &amqp.Error{Reason: amqp.ReasonDown, Err: errors.New("away")}
	}
	b.limit--
	b.copies[string(m.Body)]++
	return ctx.Err()
}

func state(t *testing.T, path string) *replay.State {
	t.Helper()
	s, err := replay.OpenState(path, "a job")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// What is behind is reported in order, and no run repeats more than a window of what was under way when the one before it ended.
func TestGoesOn(t *testing.T) {
	const window, mails = 8, 200
	path := filepath.Join(t.TempDir(), "state")
	b := &broker{copies: make(map[string]int)}
	runs, reported := 0, 0
	for ; ; runs++ {
		b.limit = 57
		ctx, cancel := context.WithCancel(t.Context())
		b.away = cancel
		s := state(t, path)
		last := -1
		r := &replay.Replay{
			Sources: []archive.Source{source("a", mails, 3, 100), source("b", mails), source("never", 2)}, Publisher: b, State: s, Window: window, Bytes: 4,
			Done: func(report replay.Report) {
				if report.Outcome == replay.Before {
					return
				}
				if at := place(t, report.Name); at <= last {
					t.Errorf("%s comes too late", report.Name)
				} else {
					last = at
				}
				reported++
			},
		}
		err := r.Run(ctx)
		cancel()
		_ = s.Close()
		if err == nil {
			break
		}
	}
	extra := 0
	for _, n := range b.copies {
		extra += n - 1
	}
	if len(b.copies) != 2*mails-2 || extra > runs*window || reported != 2*mails+2 {
		t.Errorf("%d mails in %d runs, %d again, %d reported", len(b.copies), runs, extra, reported)
	}
	s := state(t, path)
	if n, complete := s.Before(); n != 2*mails+2 || !complete {
		t.Errorf("%d behind, complete %v", n, complete)
	}
}

// place returns where a mail stands among all, by its name.
func place(t *testing.T, name string) int {
	t.Helper()
	source, number, _ := strings.Cut(name, "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{"a": 0, "b": 1000, "never": 2000}[source] + n
}

// A state file that cannot be written ends the run: it could not go on later.
func TestStateOnAFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	path := filepath.Join(disk, "state")
	s := state(t, path)
	if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &broker{copies: make(map[string]int), limit: 1000}
	r := &replay.Replay{Sources: []archive.Source{source("a", 500)}, Publisher: b, State: s, Window: 8, Bytes: 8, Done: func(replay.Report) {}}
	err := r.Run(t.Context())
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("the run ends with %v", err)
	}
	if n := len(b.copies); n > 16 {
		t.Errorf("%d mails were published that nobody will know of", n)
	}
}

func TestStateOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := state(t, path)
	if _, err := replay.OpenState(path, "a job"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a state file in use: %v", err)
	}
	b := &broker{copies: make(map[string]int), limit: 5}
	r := &replay.Replay{Sources: []archive.Source{source("a", 5)}, Publisher: b, State: s, Window: 2, Bytes: 2, Done: func(replay.Report) {}}
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := &replay.Replay{Sources: []archive.Source{source("b", 5)}, Publisher: b, State: s, Window: 2, Bytes: 2, Done: func(replay.Report) {}}
	if err := gone.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "go on in a,") {
		t.Errorf("the source is gone: %v", err)
	}
	_ = s.Close()
	for job, text := range map[string]string{"another job": "", "a job": "{"} {
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := replay.OpenState(path, job); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s, %q: %v", job, text, err)
		}
	}
}
