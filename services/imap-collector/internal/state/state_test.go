package state

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

const anna = "anna@imap.example"

func open(t *testing.T, path string) (*Store, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	s, err := Open(path, zerolog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

func reopen(t *testing.T, s *Store) (*Store, *bytes.Buffer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.path)
}

func folder(t *testing.T, s *Store, name string, uidValidity uint32) *Folder {
	t.Helper()
	f, err := s.Folder(anna, name, uidValidity)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func add(t *testing.T, f *Folder, list ...uint32) {
	t.Helper()
	if err := f.Add(list); err != nil {
		t.Fatal(err)
	}
}

func only(t *testing.T, s *Store) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.path, "*"+fileSuffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("files: %q, %v", files, err)
	}
	return files[0]
}

func TestRemembered(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "deep", "state"))
	if !s.Durable() {
		t.Error("not durable")
	}
	f := folder(t, s, "INBOX", 7)
	add(t, f, 5, 3, 4, math.MaxUint32)
	add(t, f, 3, 10)
	add(t, f)
	other := folder(t, s, "Junk", 7)
	if other.Has(3) || f != folder(t, s, "INBOX", 7) {
		t.Error("folders are not kept apart")
	}
	s, log := reopen(t, s)
	f = folder(t, s, "INBOX", 7)
	for uid, want := range map[uint32]bool{0: false, 1: false, 2: false, 3: true, 4: true, 5: true, 6: false, 10: true, 11: false, math.MaxUint32: true} {
		if f.Has(uid) != want {
			t.Errorf("Has(%d) is %v", uid, !want)
		}
	}
	if f.Len() != 5 || log.Len() > 0 {
		t.Errorf("%d mails, log %s", f.Len(), log)
	}
	missing := f.Missing([]Range{{8, 12}, {1, 4}, {2, 6}, {math.MaxUint32 - 1, math.MaxUint32}, {9, 3}})
	if want := []Range{{1, 2}, {6, 6}, {8, 9}, {11, 12}, {math.MaxUint32 - 1, math.MaxUint32 - 1}}; !slices.Equal(missing, want) {
		t.Errorf("missing %v, want %v", missing, want)
	}
	text, err := os.ReadFile(only(t, s))
	if err != nil || !strings.HasPrefix(string(text), `spamtraps-imap-state 1 {"account":"anna@imap.example","folder":"INBOX","uidvalidity":7}`+"\n3-5,4294967295 ") {
		t.Errorf("the file holds %s, %v", text, err)
	}
	for path, want := range map[string]os.FileMode{s.path: 0o700, only(t, s): 0o600, filepath.Join(s.path, lockName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// The set of UIDs does what a plain map does.
func TestSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var u uids
		plain := make(map[uint32]bool)
		for range 30 {
			list := make([]uint32, random.IntN(5))
			for i := range list {
				list[i] = 1 + random.Uint32N(60)
				plain[list[i]] = true
			}
			fresh := setOfUIDs(list).without(u)
			u = u.union(fresh)
		}
		for uid := range uint32(64) {
			if u.has(uid) != plain[uid] {
				t.Fatalf("has(%d) is %v in %v", uid, !plain[uid], u)
			}
		}
		if u.len() != uint64(len(plain)) {
			t.Fatalf("%d UIDs, want %d", u.len(), len(plain))
		}
		for i := 1; i < len(u); i++ {
			if u[i].First <= u[i-1].Last+1 {
				t.Fatalf("ranges touch: %v", u)
			}
		}
		left := setOf([]Range{{1, 20}, {15, 64}}).without(u)
		if left.len() != 64-uint64(len(plain)) || len(plain) > 0 && left.without(u).len() != left.len() {
			t.Fatalf("without %v leaves %v", u, left)
		}
	}
}

// A crash leaves a file that ends anywhere: every line that is whole counts, the rest is forgotten, and what is added then is safe.
func TestTornTail(t *testing.T) {
	s, _ := open(t, t.TempDir())
	f := folder(t, s, "INBOX", 7)
	add(t, f, 1, 2, 3)
	path := only(t, s)
	first := size(t, path)
	add(t, f, 10, 12)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := first; cut <= int64(len(whole)); cut++ {
		for _, rest := range []string{"", "\x00\x00\x00", "\x00\n", "99 00000000\n"} {
			if err := os.WriteFile(path, append(slices.Clone(whole[:cut]), rest...), 0o600); err != nil {
				t.Fatal(err)
			}
			s, _ = reopen(t, s)
			f := folder(t, s, "INBOX", 7)
			if !f.Has(3) || f.Has(99) || f.Has(12) != (cut == int64(len(whole))) {
				t.Fatalf("cut at %d of %d, then %q: %v", cut, len(whole), rest, f.all)
			}
			add(t, f, 20)
			s, _ = reopen(t, s)
			if f := folder(t, s, "INBOX", 7); !f.Has(3) || !f.Has(20) || f.Has(99) {
				t.Fatalf("cut at %d of %d, then %q, after another Add: %v", cut, len(whole), rest, f.all)
			}
		}
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestUIDValidity(t *testing.T) {
	s, log := open(t, t.TempDir())
	old := folder(t, s, "INBOX", 7)
	add(t, old, 1, 2, 3)
	fresh := folder(t, s, "INBOX", 8)
	if fresh.Has(1) || fresh.Len() != 0 {
		t.Error("a new UIDVALIDITY has the old one's mails")
	}
	if !strings.Contains(log.String(), `"before":7,"uidvalidity":8,"forgotten":3`) {
		t.Errorf("log %s", log)
	}
	if err := old.Add([]uint32{4}); err == nil {
		t.Error("the old one still takes mails")
	}
	// A server that only seemed to have another one, for a moment, costs nothing.
	if again := folder(t, s, "INBOX", 7); !again.Has(3) || again.Has(4) {
		t.Error("the old one's mails were forgotten before anything was added")
	}
	fresh = folder(t, s, "INBOX", 8)
	add(t, fresh, 5)
	s, _ = reopen(t, s)
	if f := folder(t, s, "INBOX", 8); !f.Has(5) || f.Has(1) {
		t.Error("the new one's mails are not remembered")
	}
	if f := folder(t, s, "INBOX", 7); f.Has(1) || f.Has(5) {
		t.Error("the old one's mails are back")
	}
}

func TestOthersFiles(t *testing.T) {
	s, _ := open(t, t.TempDir())
	add(t, folder(t, s, "INBOX", 7), 1)
	path := only(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, text string
		err        string // of Folder; "": the file is set aside, and begun anew
	}{
		{"a later version", strings.Replace(string(whole), " 1 ", " 2 ", 1), "is of version 2, which this program does not know: it is left alone"},
		{"another folder's", strings.Replace(string(whole), "INBOX", "Trash", 1), `is that of folder "Trash" of "anna@imap.example"`},
		{"empty", "", ""},
		{"zeros", strings.Repeat("\x00", 4096), ""},
		{"no header", "1-5 00000000\n", ""},
		{"cut header", string(whole[:20]), ""},
		{"a bad header", "spamtraps-imap-state 1 {\n", ""},
		{"an endless line", string(whole) + strings.Repeat("1", 2<<20), ""},
	} {
		if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log *bytes.Buffer
		s, log = reopen(t, s)
		f, err := s.Folder(anna, "INBOX", 7)
		now, _ := os.ReadFile(path)
		if row.err != "" {
			if err == nil || !strings.Contains(err.Error(), row.err) || string(now) != row.text {
				t.Errorf("%s: %v; the file holds %q", row.name, err, now)
			}
			continue
		}
		aside, _ := os.ReadFile(path + badSuffix)
		if err != nil || f.Len() != 0 || string(aside) != row.text || !strings.Contains(log.String(), "set aside") {
			t.Errorf("%s: %v, set aside %q, log %s", row.name, err, aside, log)
			continue
		}
		add(t, f, 2)
		s, _ = reopen(t, s)
		if f := folder(t, s, "INBOX", 7); !f.Has(2) || f.Has(1) {
			t.Errorf("%s: afterwards %v", row.name, f.all)
		}
	}
}

// One bad line, as bad memory or a bad disk makes it, costs its mails and no others.
func TestBadLine(t *testing.T) {
	s, _ := open(t, t.TempDir())
	f := folder(t, s, "INBOX", 7)
	add(t, f, 1)
	add(t, f, 3)
	add(t, f, 5)
	path := only(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(whole, []byte("\n3 "), []byte("\n4 "), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s, log := reopen(t, s)
	if f := folder(t, s, "INBOX", 7); !f.Has(1) || f.Has(3) || f.Has(4) || !f.Has(5) || !strings.Contains(log.String(), `"lines":1`) {
		t.Errorf("%v, log %s", f.all, log)
	}
}

// A UIDVALIDITY that is not the one that was written makes other mails of all UIDs: none of them counts as published.
func TestBadUIDValidity(t *testing.T) {
	s, _ := open(t, t.TempDir())
	add(t, folder(t, s, "INBOX", 7), 1, 2, 3)
	path := only(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(whole, []byte(`"uidvalidity":7`), []byte(`"uidvalidity":6`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s, log := reopen(t, s)
	if f := folder(t, s, "INBOX", 6); f.Len() != 0 || !strings.Contains(log.String(), `"lines":1`) {
		t.Errorf("%v, log %s", f.all, log)
	}
}

func TestOneProcessAFolder(t *testing.T) {
	s, _ := open(t, t.TempDir())
	_, err := Open(s.path, zerolog.Nop())
	want := fmt.Sprintf(`the folder of the state %s is in use by another process ("%d"): each needs its own`, s.path, os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	reopen(t, s)
}

func TestPeek(t *testing.T) {
	s, _ := open(t, t.TempDir())
	add(t, folder(t, s, "INBOX", 7), 1)
	path := only(t, s)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	peek := Peek(s.path, zerolog.Nop()) // while s has it
	f := folder(t, peek, "INBOX", 7)
	add(t, f, 2)
	if !f.Has(1) || peek.Durable() {
		t.Error("it does not see what is there")
	}
	folder(t, peek, "Junk", 7)
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := folder(t, Peek(s.path, zerolog.Nop()), "INBOX", 7); f.Len() != 0 {
		t.Errorf("%v", f.all)
	}
	if after, err := os.ReadFile(only(t, s)); err != nil || string(after) != "x" {
		t.Errorf("%q became %q, %v", before, after, err)
	}
	if f := folder(t, Peek("/nonexistent", zerolog.Nop()), "INBOX", 7); f.Len() != 0 {
		t.Errorf("%v", f.all)
	}
}

func TestNamesAreNotTheServers(t *testing.T) {
	s, _ := open(t, t.TempDir())
	for _, name := range []string{"../../etc/passwd", "/", "", "a\x00b", strings.Repeat("x", 5000), "INBOX\n1-9 00000000"} {
		f := folder(t, s, name, 1)
		add(t, f, 1)
	}
	s, log := reopen(t, s)
	for _, name := range []string{"../../etc/passwd", "/", "", "a\x00b", strings.Repeat("x", 5000), "INBOX\n1-9 00000000"} {
		if f := folder(t, s, name, 1); f.Len() != 1 {
			t.Errorf("%q has %d mails", name, f.Len())
		}
	}
	if fileName("ab", "c") == fileName("a", "bc") || log.Len() > 0 {
		t.Errorf("log %s", log)
	}
}

func TestNothingIsKeptWithoutAFolder(t *testing.T) {
	s, log := open(t, "")
	f := folder(t, s, "INBOX", 1)
	add(t, f, 1, 2)
	if s.Durable() || !f.Has(2) || folder(t, s, "INBOX", 1) != f {
		t.Error("it forgets while the process lives")
	}
	if folder(t, s, "INBOX", 2).Has(2) || !strings.Contains(log.String(), `"forgotten":2`) {
		t.Errorf("log %s", log)
	}
}

// 100,000 mails in batches, every second UID first so that nothing joins: the file stays in proportion.
func TestManyMails(t *testing.T) {
	const mails = 100_000
	s, _ := open(t, t.TempDir())
	f := folder(t, s, "INBOX", 1)
	largest := int64(0)
	for begin := uint32(0); begin < mails; begin += 1000 {
		list := make([]uint32, 0, 1000)
		for i := range uint32(1000) {
			list = append(list, 1+2*(begin+i))
		}
		add(t, f, list...)
		largest = max(largest, f.size)
	}
	if largest > 2_500_000 || f.size != size(t, only(t, s)) {
		t.Errorf("the file had %d bytes, has %d", largest, f.size)
	}
	s, _ = reopen(t, s)
	f = folder(t, s, "INBOX", 1)
	if f.Len() != mails || f.Has(2) || !f.Has(1) || !f.Has(2*mails-1) {
		t.Errorf("%d mails", f.Len())
	}
	// The gaps filled, 64 at a time: all is one range.
	for begin := uint32(0); begin < mails; begin += 6400 {
		var list []uint32
		for i := range uint32(6400) {
			list = append(list, min(2+2*(begin+i), 2*mails))
		}
		add(t, f, list...)
	}
	if !slices.Equal(f.all, uids{{1, 2 * mails}}) {
		t.Errorf("%d ranges", len(f.all))
	}
}

func TestConcurrentUse(t *testing.T) {
	s, _ := open(t, t.TempDir())
	var group sync.WaitGroup
	for worker := range uint32(8) {
		group.Go(func() {
			f, err := s.Folder(anna, fmt.Sprint(worker%2), 1)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range uint32(20) {
				if err := f.Add([]uint32{1 + worker*100 + i}); err != nil {
					t.Error(err)
				}
				if !f.Has(1+worker*100+i) || len(f.Missing([]Range{{1, 10_000}})) == 0 {
					t.Error("not remembered")
				}
			}
		})
	}
	group.Wait()
	s, _ = reopen(t, s)
	if n := folder(t, s, "0", 1).Len() + folder(t, s, "1", 1).Len(); n != 160 {
		t.Errorf("%d mails", n)
	}
}

func FuzzRead(f *testing.F) {
	h := header{anna, "INBOX", 7}
	whole := setOf([]Range{{1, 5}, {7, 7}}).appendLines(h.line(), h)
	f.Add(whole)
	f.Add([]byte("spamtraps-imap-state 1 {}\n1 00000000\n"))
	f.Add([]byte("spamtraps-imap-state 9 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := read(bytes.NewReader(data))
		if err != nil {
			return
		}
		// What was read is written and read as the same.
		again, err := read(bytes.NewReader(found.all.appendLines(found.header.line(), found.header)))
		if err != nil || again.bad > 0 || !slices.Equal(again.all, found.all) || again.header != found.header {
			t.Errorf("%+v became %+v, %v", found, again, err)
		}
		if found.size != int64(len(data)) {
			t.Errorf("%d bytes were read as %d", len(data), found.size)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	s, err := Open(b.TempDir(), zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	f, err := s.Folder(anna, "INBOX", 1)
	if err != nil {
		b.Fatal(err)
	}
	next := uint32(1)
	for b.Loop() {
		list := make([]uint32, 64)
		for i := range list {
			list[i] = next
			next += 2
		}
		if err := f.Add(list); err != nil {
			b.Fatal(err)
		}
	}
}
