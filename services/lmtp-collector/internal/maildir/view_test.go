package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// entries returns the mails in a state.
func entries(t testing.TB, v *View, state State) []Entry {
	t.Helper()
	var all []Entry
	for e, err := range v.Entries(state) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func view(t testing.TB, m *Maildir) *View {
	t.Helper()
	v, err := NewView(m.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func setAside(t testing.TB, m *Maildir, body string) {
	t.Helper()
	if err := m.StoreAside(message(t, body), "too large"); err != nil {
		t.Fatal(err)
	}
}

func TestView(t *testing.T) {
	m := openAt(t, filepath.Join(t.TempDir(), "maildir"), keepAll)
	store(t, m, "waits\r\n")
	setAside(t, m, "aside\r\n")
	if err := m.Keep(message(t, "copy\r\n")); err != nil {
		t.Fatal(err)
	}
	v := view(t, m)
	for state, body := range map[State]string{StateWaiting: "waits\r\n", StateAside: "aside\r\n", StateDelivered: "copy\r\n"} {
		all := entries(t, v, state)
		if len(all) != 1 || all[0].Err != nil || all[0].State != state || all[0].Size != int64(len(body)) || time.Since(all[0].Since) > time.Minute {
			t.Fatalf("%s: %+v", state, all)
		}
		if got, err := v.Body(all[0]); string(got) != body || err != nil {
			t.Errorf("%s: %q, %v", state, got, err)
		}
		if e, err := v.Find(all[0].Name); err != nil || e.State != state {
			t.Errorf("%s: found %+v, %v", state, e, err)
		}
	}
	if _, err := v.Find("nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := NewView(t.TempDir()); err == nil {
		t.Error("an empty folder passes for a maildir")
	}
}

// A mail that is retried waits again, as it was; whatever instant a retry ends at, another one makes it whole.
func TestRetry(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, m *Maildir, e Entry){
		"never":                    func(*testing.T, *Maildir, Entry) {},
		"when the mail has moved":  func(t *testing.T, m *Maildir, e Entry) { t.Helper(); moveMail(t, m, e) },
		"before the bucket is out": func(t *testing.T, m *Maildir, e Entry) { t.Helper(); moveMail(t, m, e); leaveBucket(t, m, e) },
	} {
		t.Run("ends "+name, func(t *testing.T) {
			m := openAt(t, filepath.Join(t.TempDir(), "maildir"))
			setAside(t, m, "aside\r\n")
			v := view(t, m)
			all := entries(t, v, StateAside)
			crash(t, m, all[0])
			if n, err := v.Retry(all); n != 1 || err != nil {
				t.Fatalf("%d retried, %v", n, err)
			}
			got, err := m.Load(next(t, m))
			if err != nil || string(got.Body) != "aside\r\n" || got.MessageId != message(t, "aside\r\n").MessageId {
				t.Errorf("%+v, %v", got, err)
			}
			if left := entries(t, v, StateAside); len(left) != 0 {
				t.Errorf("still aside: %+v", left)
			}
			if waiting := entries(t, v, StateWaiting); len(waiting) != 1 || waiting[0].Record.Aside != "" {
				t.Errorf("waiting: %+v", waiting)
			}
		})
	}
}

func moveMail(t testing.TB, m *Maildir, e Entry) {
	t.Helper()
	mustRename(t, m.path(asideFolder, e.Name+mailSuffix), m.path(newFolder, e.Name))
}

func leaveBucket(t testing.TB, m *Maildir, e Entry) {
	t.Helper()
	bucket := m.path(tmpFolder, bucketName(time.Now()))
	if err := os.Mkdir(bucket, 0o700); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(bucket, e.Name+envelopeSuffix), "{}")
}

// A mail that is being stored is not there yet, whatever there is of its envelope.
func TestViewOfWhatIsBeingStored(t *testing.T) {
	m := openAt(t, t.TempDir())
	store(t, m, "mail")
	w := next(t, m)
	mustRename(t, m.path(newFolder, w.Name), m.path(tmpFolder, w.Name))
	overwrite(t, m.envelopeOf(w), "{")
	v := view(t, m)
	if all := entries(t, v, StateWaiting); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if e, err := v.Find(w.Name); !errors.Is(err, ErrUnknown) {
		t.Errorf("found %+v, %v", e, err)
	}
}

// A retry that ended when its mail waited already, and was delivered since, leaves an envelope that tries nothing any more.
func TestRetryOfWhatIsDelivered(t *testing.T) {
	m := openAt(t, filepath.Join(t.TempDir(), "maildir"))
	setAside(t, m, "aside\r\n")
	v := view(t, m)
	all := entries(t, v, StateAside)
	data, err := v.Envelope(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Retry(all); err != nil {
		t.Fatal(err)
	}
	overwrite(t, all[0].path, string(data)) // as if it had not come to that
	if err := m.Delivered(next(t, m)); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Retry(entries(t, v, StateAside)); n != 0 || !errors.Is(err, ErrGone) {
		t.Errorf("%d retried, %v", n, err)
	}
	none(t, m)
}

// What cannot be retried stays where it is, and so do all that were to be retried with it.
func TestRetryIsAllOrNothing(t *testing.T) {
	m := openAt(t, filepath.Join(t.TempDir(), "maildir"))
	setAside(t, m, "one\r\n")
	setAside(t, m, "two\r\n")
	v := view(t, m)
	all := entries(t, v, StateAside)
	overwrite(t, m.path(asideFolder, all[1].Name+mailSuffix), "changed")
	if n, err := v.Retry(all); n != 0 || !errors.Is(err, ErrDamaged) {
		t.Errorf("%d retried, %v", n, err)
	}
	none(t, m)
	if left := entries(t, v, StateAside); len(left) != 2 {
		t.Errorf("%d are aside", len(left))
	}
	if n := len(files(t, m)); slices.Contains(files(t, m), tmpFolder) || n == 0 {
		t.Errorf("files: %q", files(t, m))
	}
}

// A bucket that a retry has left behind is swept when it is old; before that it may be somebody's who is at work.
func TestLeftBucketIsSwept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maildir")
	m := openAt(t, path)
	var buckets []string
	for _, age := range []time.Duration{0, 2 * time.Hour} {
		bucket := m.path(tmpFolder, bucketName(time.Now()))
		if err := os.Mkdir(bucket, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(bucket, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		buckets = append(buckets, bucket)
	}
	m.crash()
	openAt(t, path)
	for i, want := range []bool{true, false} {
		if _, err := os.Stat(buckets[i]); (err == nil) != want {
			t.Errorf("bucket %d: %v", i, err)
		}
	}
}
