package maildir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/envelope"
)

var update = flag.Bool("update", false, "write the golden files anew")

// message returns a mail as the collector publishes it.
func message(t testing.TB, body string) amqp091.Publishing {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	digest := hex.EncodeToString(sum[:])
	rcpts := []string{"trap@example.org", "\"a b\"@example.org", "b\xfcro@example.org"}
	e := envelope.Envelope{
		MessageID: envelope.LMTPMessageID("4QhX2j0Zq5z1B", digest, "a@x.example", rcpts), App: "lmtp-collector/1.0.0", Sensor: "sensor-1",
		Collector: "lmtp-collector", SHA256: digest, Size: int64(len(body)), ReceivedAt: time.Date(2026, 11, 24, 8, 0, 0, 123e6, time.UTC),
		MTAReceivedAt: time.Date(2026, 11, 21, 9, 0, 1, 0, time.UTC), MailID: envelope.MailID("4QhX2j0Zq5z1B", digest),
		LMTP: &envelope.LMTP{
			MailFrom: "a@x.example", RcptTo: rcpts, LHLO: "mx.example.org", Peer: "172.20.0.3",
			ClientAddr: "192.0.2.7", ClientPort: 52144, ClientName: "host.spam.example", ClientHELO: "<b>&\x01", ClientProto: "ESMTP", QueueID: "4QhX2j0Zq5z1B",
		},
	}
	m, err := e.Publishing([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// openAt opens a maildir that nobody runs.
func openAt(t testing.TB, path string, change ...func(*Config)) *Maildir {
	t.Helper()
	cfg := Defaults()
	cfg.Path, cfg.Keep, cfg.MinFree = path, KeepUndelivered, 0
	for _, c := range change {
		c(&cfg)
	}
	m, err := Open(cfg, zerolog.Nop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.lock.Close() })
	return m
}

// crash ends the use of a maildir as a SIGKILL would.
func (m *Maildir) crash() { _ = m.lock.Close() }

func keepAll(c *Config) { c.Keep = KeepAll }

func store(t testing.TB, m *Maildir, body string) {
	t.Helper()
	if err := m.Store(message(t, body)); err != nil {
		t.Fatal(err)
	}
}

// next returns the next mail, which there must be.
func next(t testing.TB, m *Maildir) Waiting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := m.Next(ctx)
	if err != nil {
		t.Fatal("no mail waits")
	}
	return w
}

// none fails if there is a mail that waits.
func none(t testing.TB, m *Maildir) {
	t.Helper()
	if w, ok := m.queue.pop(m); ok {
		t.Errorf("%s waits", w.Name)
	}
}

// files returns what lies in the maildir but the lock, relative, sorted, after what is delivered has been deleted.
func files(t testing.TB, m *Maildir) []string {
	t.Helper()
	if err := m.emptyGone(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all []string
	err := filepath.WalkDir(m.cfg.Path, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && entry.Name() != lockFile {
			relative, _ := filepath.Rel(m.cfg.Path, path)
			all = append(all, relative)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mustRename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// What comes out is what went in: bytes, properties, headers; in the order in which it came, also after a restart.
func TestWhatIsStoredIsPublished(t *testing.T) {
	m := openAt(t, filepath.Join(t.TempDir(), "a", "maildir"))
	bodies := []string{"", "Subject: 1\r\n\r\n", "\x00\xff\r\n.\r\n", strings.Repeat("x", 1<<20)}
	for _, body := range bodies {
		store(t, m, body)
	}
	m.crash()
	m = openAt(t, m.cfg.Path)
	for _, body := range bodies {
		w := next(t, m)
		got, err := m.Load(w)
		if err != nil {
			t.Fatal(err)
		}
		if want := message(t, body); !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v, want %#v", got, want)
		}
		if err := m.Delivered(w); err != nil {
			t.Fatal(err)
		}
	}
	none(t, m)
	if left := files(t, m); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if s := m.Stats(); s.Waiting != 0 || s.WaitingBytes != 0 {
		t.Errorf("%+v", s)
	}
}

// While the envelope of a mail that could not be stored cannot be removed, the mail's file stays, and the next start removes both.
func TestUndoneInOrder(t *testing.T) {
	m := openAt(t, t.TempDir())
	store(t, m, "mail")
	w := next(t, m)
	envelope := m.envelopeOf(w)
	mustRename(t, m.path(newFolder, w.Name), m.path(tmpFolder, w.Name))
	mustRename(t, envelope, m.path("away"))
	if err := os.Mkdir(envelope, 0o700); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(envelope, "in the way"), "x")
	m.undo(w)
	if _, err := os.Stat(m.path(tmpFolder, w.Name)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(envelope); err != nil {
		t.Fatal(err)
	}
	mustRename(t, m.path("away"), envelope)
	none(t, m)
	m.crash()
	m = openAt(t, m.cfg.Path)
	none(t, m)
	if left := files(t, m); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A mail that is given back comes again, before younger ones, and is not lost by a restart.
func TestReturned(t *testing.T) {
	m := openAt(t, t.TempDir())
	for i := range 4 {
		store(t, m, fmt.Sprint(i))
	}
	first, second, third := next(t, m), next(t, m), next(t, m)
	m.Return(third)
	m.Return(first)
	if got := next(t, m); got.Name != first.Name {
		t.Error("the oldest does not come first")
	}
	if got := next(t, m); got.Name != third.Name {
		t.Error("a returned mail does not come before a younger one")
	}
	m.crash()
	m = openAt(t, m.cfg.Path)
	for _, want := range []Waiting{first, second, third} {
		if got := next(t, m); got.Name != want.Name {
			t.Errorf("%s comes, want %s", got.Name, want.Name)
		}
	}
}

// What a crash leaves at each instant, and what the next start makes of it.
func TestCrashes(t *testing.T) {
	stored := func(m *Maildir) (name, bucket string) {
		t.Helper()
		store(t, m, "mail")
		w := next(t, m)
		return w.Name, w.bucket
	}
	cases := []struct {
		name  string
		leave func(t *testing.T, m *Maildir)
		waits bool
	}{
		{"half a mail", func(t *testing.T, m *Maildir) {
			t.Helper()
			if err := os.WriteFile(m.path(tmpFolder, m.newName(time.Now(), 100)), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"mail and envelope in tmp", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(newFolder, name), m.path(tmpFolder, name))
			mustRename(t, m.path(pendingFolder, bucket, name+envelopeSuffix), m.path(tmpFolder, name+envelopeSuffix))
		}, false},
		{"half a mail and half an envelope", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(newFolder, name), m.path(tmpFolder, name))
			overwrite(t, m.path(tmpFolder, name), "ma")
			overwrite(t, m.path(pendingFolder, bucket, name+envelopeSuffix), `{"version": 1, "mess`)
		}, false},
		{"half of the rename", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, _ := stored(m)
			if err := os.Link(m.path(newFolder, name), m.path(tmpFolder, name)); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"the envelope has its name, the mail not", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, _ := stored(m)
			mustRename(t, m.path(newFolder, name), m.path(tmpFolder, name))
		}, false},
		{"both have their names", func(_ *testing.T, m *Maildir) { stored(m) }, true},
		{"delivered, and to be deleted", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(pendingFolder, bucket, name+envelopeSuffix), m.path(goneFolder, name+envelopeSuffix))
		}, false},
		{"delivered, and to be deleted elsewhere", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(pendingFolder, bucket, name+envelopeSuffix), m.path(goneFolder, name+envelopeSuffix))
			mustRename(t, m.path(newFolder, name), m.path(curFolder, name+":2,Sa"))
		}, false},
		{"delivered, and to be deleted, with flags in new", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(pendingFolder, bucket, name+envelopeSuffix), m.path(goneFolder, name+envelopeSuffix))
			mustRename(t, m.path(newFolder, name), m.path(newFolder, name+":2,S"))
		}, false},
		{"delivered and deleted, but for the envelope", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, bucket := stored(m)
			mustRename(t, m.path(pendingFolder, bucket, name+envelopeSuffix), m.path(goneFolder, name+envelopeSuffix))
			if err := os.Remove(m.path(newFolder, name)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"set aside, but for its envelope in pending", func(t *testing.T, m *Maildir) {
			t.Helper()
			name, _ := stored(m)
			mustRename(t, m.path(newFolder, name), m.path(asideFolder, name+mailSuffix))
		}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := openAt(t, t.TempDir())
			c.leave(t, m)
			m.crash()
			m = openAt(t, m.cfg.Path)
			if !c.waits {
				none(t, m)
				if left := files(t, m); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
				return
			}
			w := next(t, m)
			got, err := m.Load(w)
			if err != nil || string(got.Body) != "mail" {
				t.Errorf("%q, %v", got.Body, err)
			}
			if err := m.Delivered(w); err != nil {
				t.Error(err)
			}
			if left := files(t, m); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// Files of mail programs in tmp/ are not ours to sweep.
func TestForeignFilesStay(t *testing.T) {
	m := openAt(t, t.TempDir())
	store(t, m, "mail")
	foreign := []string{"tmp/1700000000.1.host", "new/1700000000.1.host", "cur/1700000000.1.host:2,S", "dovecot.index", "pending/README", "cur/1.json"}
	for _, name := range foreign {
		if err := os.WriteFile(m.path(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.crash()
	m = openAt(t, m.cfg.Path)
	if err := m.Delivered(next(t, m)); err != nil {
		t.Fatal(err)
	}
	none(t, m)
	slices.Sort(foreign)
	if left := files(t, m); !slices.Equal(left, foreign) {
		t.Errorf("left: %q, want %q", left, foreign)
	}
}

// A mail is found by its base name wherever a mail program has put it.
func TestMovedAbout(t *testing.T) {
	for _, to := range []string{"cur/NAME", "cur/NAME:2,", "cur/NAME:2,S", "cur/NAME:2,FRS", "cur/NAME:2,DFPRST", "cur/NAME:2,Sab", "new/NAME:2,a", "cur/NAME:1,x"} {
		for _, keep := range []string{KeepUndelivered, KeepAll} {
			t.Run(to+" "+keep, func(t *testing.T) {
				m := openAt(t, t.TempDir(), func(c *Config) { c.Keep = keep })
				store(t, m, "mail")
				w := next(t, m)
				mustRename(t, m.path(newFolder, w.Name), m.path(strings.ReplaceAll(to, "NAME", w.Name)))
				if got, err := m.Load(w); err != nil || string(got.Body) != "mail" {
					t.Fatalf("%q, %v", got.Body, err)
				}
				if err := m.Delivered(w); err != nil {
					t.Fatal(err)
				}
				m.dropUntil(func(time.Time) bool { return false })
				if left := files(t, m); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		}
	}
}

// What is wrong with a mail is said, and the mail is set aside with all that there is of it, over restarts.
func TestWhatCannotBePublished(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(t *testing.T, mail, envelope string)
		want  error
		mails int
	}{
		{"changed", func(t *testing.T, mail, _ string) { t.Helper(); overwrite(t, mail, "mail with a virus removed") }, ErrDamaged, 1},
		{"emptied", func(t *testing.T, mail, _ string) { t.Helper(); overwrite(t, mail, "") }, ErrDamaged, 1},
		{"deleted", func(t *testing.T, mail, _ string) {
			t.Helper()
			if err := os.Remove(mail); err != nil {
				t.Fatal(err)
			}
		}, ErrGone, 0},
		{"envelope cut off", func(t *testing.T, _, envelope string) { t.Helper(); overwrite(t, envelope, `{"version": 1, "mess`) }, ErrDamaged, 1},
		{"envelope without headers", func(t *testing.T, _, envelope string) {
			t.Helper()
			overwrite(t, envelope, `{"version": 1, "message_id": "x"}`)
		}, ErrDamaged, 1},
		{"envelope with a foreign value", func(t *testing.T, _, envelope string) {
			t.Helper()
			overwrite(t, envelope, `{"version": 1, "message_id": "x", "headers": {"a": 1.5}}`)
		}, ErrDamaged, 1},
		{"newer", func(t *testing.T, _, envelope string) {
			t.Helper()
			overwrite(t, envelope, `{"version": 2, "message_id": {}}`)
		}, ErrVersion, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := openAt(t, t.TempDir())
			store(t, m, "first")
			store(t, m, "second")
			w := next(t, m)
			c.spoil(t, m.path(newFolder, w.Name), m.envelopeOf(w))
			if _, err := m.Load(w); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if errors.Is(c.want, ErrVersion) {
				if m.Stats().Unknown != 1 || m.Stats().Waiting != 2 {
					t.Errorf("%+v", m.Stats())
				}
				next(t, m) // the other one
				none(t, m)
				if len(files(t, m)) != 4 {
					t.Errorf("left: %q", files(t, m))
				}
				return
			}
			if err := m.SetAside(w, "for a reason"); err != nil {
				t.Fatal(err)
			}
			if m.Stats().Aside != 1 || m.Stats().Waiting != 1 {
				t.Errorf("%+v", m.Stats())
			}
			m.crash()
			m = openAt(t, m.cfg.Path)
			if got, err := m.Load(next(t, m)); err != nil || string(got.Body) != "second" {
				t.Errorf("the other mail: %q, %v", got.Body, err)
			}
			none(t, m)
			mails, _ := filepath.Glob(m.path(asideFolder, "*"+mailSuffix))
			envelopes, _ := filepath.Glob(m.path(asideFolder, "*"+envelopeSuffix))
			if len(mails) != c.mails || len(envelopes) != 1 {
				t.Errorf("set aside: %q, %q", mails, envelopes)
			}
		})
	}
}

func overwrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Mails that somebody deleted cost one look through the folders together, not one each.
func TestManyDeleted(t *testing.T) {
	m := openAt(t, t.TempDir())
	for i := range 50 {
		store(t, m, fmt.Sprint(i))
	}
	first := next(t, m) // all are in line now
	for _, name := range files(t, m) {
		if strings.HasPrefix(name, newFolder+"/") {
			if err := os.Remove(m.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := m.Load(first); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
	looked := m.index.began
	for range 49 {
		if _, err := m.Load(next(t, m)); !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
	}
	if m.index.began != looked {
		t.Error("the folders were looked through more than once")
	}
}

// One process writes to a maildir at a time.
func TestLock(t *testing.T) {
	m := openAt(t, t.TempDir())
	_, err := Open(m.cfg, zerolog.Nop(), prometheus.NewRegistry())
	if want := fmt.Sprintf("process %q writes to it already", fmt.Sprint(os.Getpid())); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("a second Open: %v, want %s", err, want)
	}
	m.crash()
	openAt(t, m.cfg.Path)
}

// A symbolic link in the maildir could have us write anywhere.
func TestNoSymbolicLinks(t *testing.T) {
	path, elsewhere := t.TempDir(), t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(path, "new")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: path}, zerolog.Nop(), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("got %v", err)
	}
}

// When a step fails, the error says so, and nothing of the mail is left.
func TestEachStepCanFail(t *testing.T) {
	for _, folder := range []string{tmpFolder, newFolder, pendingFolder} {
		t.Run(folder, func(t *testing.T) {
			m := openAt(t, t.TempDir())
			mustRename(t, m.path(folder), m.path("away"))
			err := m.Store(message(t, "mail"))
			failure, ok := errors.AsType[*Error](err)
			if !ok || failure.Full {
				t.Fatalf("got %v", err)
			}
			if m.Ready() == nil {
				t.Error("it is ready right afterwards")
			}
			mustRename(t, m.path("away"), m.path(folder))
			if left := files(t, m); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			none(t, m)
			store(t, m, "mail")
			next(t, m)
		})
	}
}

// Copies of delivered mail go, oldest first: the old, the many; mail that waits stays whatever its age and size.
func TestCopiesGo(t *testing.T) {
	path := t.TempDir()
	m := openAt(t, path, keepAll)
	for i := range 10 {
		if err := m.Keep(message(t, fmt.Sprintf("copy %d", i))); err != nil {
			t.Fatal(err)
		}
	}
	store(t, m, "waits")
	store(t, m, "delivered")
	waits, delivered := next(t, m), next(t, m)
	if err := m.Delivered(delivered); err != nil {
		t.Fatal(err)
	}
	m.crash()
	m = openAt(t, path, keepAll, func(c *Config) { c.MaxBytes = 6*3 + 9 })
	m.countAll(t.Context())
	if s := m.Stats(); s.Copies != 11 || s.CopiesBytes != 6*10+9 || s.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	m.dropCopies(t.Context())
	if s := m.Stats(); s.Copies != 4 || s.CopiesBytes != 6*3+9 || s.Waiting != 1 {
		t.Errorf("%+v", s)
	}
	m.cfg.MaxBytes, m.cfg.MaxAge = 0, time.Nanosecond
	m.dropCopies(t.Context())
	if s := m.Stats(); s.Copies != 0 || s.CopiesBytes != 0 || s.Waiting != 1 {
		t.Errorf("%+v", s)
	}
	want := []string{"new/" + waits.Name, "pending/" + waits.bucket + "/" + waits.Name + envelopeSuffix}
	if left := files(t, m); !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
}

// When the disk is full, copies go before any mail is refused, and mail that waits never.
func TestCopiesGoBeforeMailIsRefused(t *testing.T) {
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	m := openAt(t, path, keepAll, func(c *Config) { c.MinFree = 1 << 20 })
	body := strings.Repeat("x", 100_000)
	for m.room(200_000) == nil {
		if err := m.Keep(message(t, body)); err != nil {
			t.Fatal(err)
		}
	}
	copies := m.Stats().Copies
	if err := m.Ready(); err != nil {
		t.Errorf("not ready though copies could go: %v", err)
	}
	stored := int64(0)
	var err error
	for err == nil {
		if err = m.Store(message(t, body)); err == nil {
			stored++
		}
	}
	failure, ok := errors.AsType[*Error](err)
	if !ok || !failure.Full || !strings.Contains(err.Error(), "MAILDIR_MIN_FREE") {
		t.Errorf("got %v", err)
	}
	if s := m.Stats(); s.Copies != 0 || s.Waiting != stored || stored < copies {
		t.Errorf("%d copies made room for %d mails: %+v", copies, stored, s)
	}
	for err = nil; err == nil; {
		err = m.Store(message(t, "small"))
	}
	if err := m.Ready(); err == nil {
		t.Error("ready, without room")
	}
}

// Mail programs see a maildir: here Python's own module, as the package that we replace used it.
func TestPythonReadsIt(t *testing.T) {
	m := openAt(t, t.TempDir())
	store(t, m, "Subject: one\r\n\r\nbody\r\n")
	const program = `
import mailbox, sys
box = mailbox.Maildir(sys.argv[1], create=False)
print([message["Subject"] for message in box])
for key, message in box.items():
    message.set_subdir("cur"); message.set_flags("FS"); box[key] = message
`
	out, err := exec.CommandContext(t.Context(), "python3", "-c", program, m.cfg.Path).CombinedOutput()
	if err != nil || string(out) != "['one']\n" {
		t.Fatalf("%q, %v", out, err)
	}
	// Python writes a mail that it changes anew, with its own line ends.
	if _, err := m.Load(next(t, m)); err != nil && !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// The envelope file is a contract with versions to come, and with people.
func TestEnvelopeFile(t *testing.T) {
	record := newRecord(func() *amqp091.Publishing { m := message(t, "Subject: you won\r\n\r\n"); return &m }())
	got, err := record.encode()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "envelope.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	again, err := Decode(want)
	if err != nil || !reflect.DeepEqual(again, record) {
		t.Errorf("read back: %#v, %v, want %#v", again, err, record)
	}
}

// Whatever stands in an envelope file, reading it neither panics nor changes what was read.
func FuzzDecode(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "envelope.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"message_id":"x","headers":{"a":[1,"b",true,[2]]}}`))
	f.Add([]byte(`{"version":9223372036854775808}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := Decode(data)
		if err != nil {
			return
		}
		written, err := record.encode()
		if err != nil {
			return // a time out of JSON's range
		}
		again, err := Decode(written)
		if err != nil {
			t.Fatalf("%s is written as %s: %v", data, written, err)
		}
		if !reflect.DeepEqual(again.Headers, record.Headers) || again.MessageID != record.MessageID || !again.Timestamp.Equal(record.Timestamp) {
			t.Errorf("%#v was read back as %#v", record, again)
		}
	})
}

// Names sort by time, carry the size, and hold nothing of the mail.
func TestNames(t *testing.T) {
	m := &Maildir{host: `a\072b`}
	earlier := m.newName(time.Unix(1_700_000_000, 999_999_000), 5)
	later := m.newName(time.Unix(1_700_000_001, 0), 4)
	if earlier >= later {
		t.Errorf("%s does not sort before %s", earlier, later)
	}
	at, size, ok := parseName(earlier)
	if !ok || size != 5 || !at.Equal(time.Unix(1_700_000_000, 999_999_000)) {
		t.Errorf("%s is %v, %d, %t", earlier, at, size, ok)
	}
}
