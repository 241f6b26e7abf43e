package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/lmtp-collector/internal/archive"
)

// read is what a test compares of one mail.
type read struct {
	name, body string
	at         time.Time
	enveloped  bool
	err        error
}

// readAll returns the mails of all sources, by name.
func readAll(t testing.TB, limit int64, stdin string, paths ...string) []read {
	t.Helper()
	sources, err := archive.Open(paths, strings.NewReader(stdin), limit)
	if err != nil {
		t.Fatal(err)
	}
	var all []read
	for _, source := range sources {
		last := ""
		for mail, err := range source.Mails() {
			if err != nil {
				all = append(all, read{name: source.Name, err: err})
				continue
			}
			if mail.Mark <= last {
				t.Errorf("%s: the mark %q comes after %q", mail.Name, mail.Mark, last)
			}
			last = mail.Mark
			record, err := mail.Envelope()
			r := read{name: mail.Name, enveloped: record != nil, err: err}
			if err == nil {
				var body []byte
				body, r.at, r.err = mail.Body()
				r.body = string(body)
			}
			all = append(all, r)
		}
	}
	return all
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const header = "Received: by a; Sat, 21 Nov 2026 09:00:01 +0100\nDate: Fri, 20 Nov 2026 10:00:00 +0000\nTo: <trap@Example.ORG>,\n\tb@y.example\n\n"

// Mails as Python's own mailbox module writes them, which the package that we replace used: what it gets is what we read.
func TestWhatPythonWrote(t *testing.T) {
	folder := t.TempDir()
	script := `
import mailbox, sys
mails = [b"Subject: one\n\nFrom here on\n>From there\n>>From far\nno end", b"Subject: two\n\n\n\n", b"Subject: \xff\x80\n\n\x00\r\rbinary \xe4\n", b"no header at all\n"]
box = mailbox.mbox(sys.argv[1] + "/box.mbox"); dir = mailbox.Maildir(sys.argv[1] + "/dir")
for mail in mails:
    box.add(mail); dir.add(mail)
box.close()
seen = dir.get_message(dir.keys()[0]); seen.add_flag("S"); seen.set_subdir("cur"); dir[dir.keys()[0]] = seen
for key in dir.keys():
    sys.stdout.buffer.write(dir.get_bytes(key) + b"\x01")
`
	out, err := exec.CommandContext(t.Context(), "python3", "-c", script, folder).Output()
	if err != nil {
		t.Fatalf("python3, which this test needs: %v", err)
	}
	want := strings.Split(strings.TrimSuffix(string(out), "\x01"), "\x01")
	slices.Sort(want)
	var got []string
	for _, r := range readAll(t, 1000, "", filepath.Join(folder, "dir")) {
		if r.err != nil || time.Since(r.at).Abs() > time.Hour {
			t.Errorf("%+v", r)
		}
		got = append(got, r.body)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the maildir has %q, want %q", got, want)
	}
	got = nil
	for _, r := range readAll(t, 1000, "", filepath.Join(folder, "box.mbox")) {
		if r.err != nil || time.Since(r.at).Abs() > time.Hour {
			t.Errorf("%+v", r)
		}
		got = append(got, r.body)
	}
	// Python ends a mail with a line end, and quotes only lines that begin with "From ": those that were quoted before cannot be told apart.
	want = []string{
		"Subject: one\n\nFrom here on\nFrom there\n>From far\nno end\n", "Subject: two\n\n\n\n", "Subject: \xff\x80\n\n\x00\r\rbinary \xe4\n", "no header at all\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the mbox has\n%q, want\n%q", got, want)
	}
}

func TestMbox(t *testing.T) {
	const from = "From a@b Tue Nov 24 08:00:00 2026\n"
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"one":                      {from + "a\n\n", []string{"a\n"}},
		"no empty line at its end": {from + "a\n" + from + "b", []string{"a\n", "b"}},
		"empty lines before":       {"\n\r\n" + from + "a\n\n", []string{"a\n"}},
		"many at its end":          {from + "a\n\n\n\n" + from + "b\n\n", []string{"a\n\n\n", "b\n"}},
		"CRLF":                     {strings.ReplaceAll(from+"a\n>From b\n\n"+from+"c\n\n", "\n", "\r\n"), []string{"a\r\nFrom b\r\n", "c\r\n"}},
		"empty mail":               {from + "\n" + from, []string{"", ""}},
		"From in a long line":      {from + strings.Repeat("x", 64<<10) + "From a\n\n" + from + "b\n", []string{strings.Repeat("x", 64<<10) + "From a\n", "b\n"}},
		"a long From line":         {from + "a\n\nFrom " + strings.Repeat("x", 200<<10) + "\nb\n", []string{"a\n", "b\n"}},
		"an empty line at 64 KiB":  {from + strings.Repeat("x", 64<<10) + "\n\nb\n", []string{strings.Repeat("x", 64<<10) + "\n\nb\n"}},
		"quoted":                   {from + ">From a\n>>>From b\n> From c\n>Fromage\n\n", []string{"From a\n>>From b\n> From c\n>Fromage\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for i, r := range readAll(t, 1<<20, c.text, "-") {
				if c.text[0] == '\n' { // on stdin that would be one mail
					break
				}
				if r.err != nil || (i == 0 && !r.at.Equal(at)) {
					t.Errorf("%+v", r)
				}
				got = append(got, r.body)
			}
			if c.text[0] != '\n' && !slices.Equal(got, c.want) {
				t.Errorf("got %.200q, want %.200q", got, c.want)
			}
			got = nil
			for _, r := range readAll(t, 1<<20, "", filepath.Dir(write(t, filepath.Join(t.TempDir(), "a.MBOX"), c.text))) {
				got = append(got, r.body)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("from a file %.200q, want %.200q", got, c.want)
			}
		})
	}
}

// A mail over the limit is named, and the next one is whole.
func TestLimit(t *testing.T) {
	const from = "From a@b Tue Nov 24 08:00:00 2026\n"
	large := strings.Repeat("y", 100_000) + "\n"
	folder := t.TempDir()
	box := write(t, filepath.Join(folder, "box"), from+strings.Repeat("x", 999)+"\n\n"+from+large+large+"\n"+from+"b\n\n")
	one := write(t, filepath.Join(folder, "one.eml"), strings.Repeat("x", 1001))
	all := readAll(t, 1000, strings.Repeat("x", 1001), box, one, "-")
	if len(all) != 5 {
		t.Fatalf("%d mails", len(all))
	}
	for i, wrong := range []bool{false, true, false, true, true} {
		if errors.Is(all[i].err, archive.ErrTooLarge) != wrong || (wrong && all[i].body != "") {
			t.Errorf("%s: %v", all[i].name, all[i].err)
		}
	}
	if all[2].body != "b\n" {
		t.Errorf("after the large one comes %q", all[2].body)
	}
}

// Folders are looked through, in an order that stays the same.
func TestFolders(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"b/2.eml": header + "2", "b/1.EML": header + "1", "b/notes.txt": "no mail", "b/c/deep.eml": "no date\n\n", "a/box.mbox": "From x Tue Nov 24 08:00:00 2026\nbox\n",
		"m/new/1700000000.M1P2.host": "new", "m/cur/1600000000.M1P2.host:2,S": "cur", "m/tmp/1500000000.M1P2.host": "unfinished",
		"m/.Junk/new/1650000000.1.host": "junk", "m/.Junk/cur/.hidden": "no mail",
	} {
		write(t, filepath.Join(root, name), text)
	}
	if err := os.Symlink(root, filepath.Join(root, "b", "loop")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 2 {
		var names []string
		for _, r := range readAll(t, 1000, "", root) {
			name, _ := filepath.Rel(root, r.name)
			names = append(names, fmt.Sprint(name, " ", r.at.Unix(), " ", r.err))
		}
		if got != nil && !slices.Equal(got, names) {
			t.Errorf("another order: %q", names)
		}
		got = names
	}
	received := time.Date(2026, 11, 21, 8, 0, 1, 0, time.UTC).Unix()
	want := []string{
		"a/box.mbox (mail 1) 1795507200 <nil>", fmt.Sprintf("b/1.EML %d <nil>", received), fmt.Sprintf("b/2.eml %d <nil>", received), "b/c/deep.eml",
		"m/cur/1600000000.M1P2.host:2,S 1600000000 <nil>", "m/new/1700000000.M1P2.host 1700000000 <nil>", "m/.Junk/new/1650000000.1.host 1650000000 <nil>",
	}
	for i := range want {
		if len(got) != len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestNoArchive(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "x"), "")
	for _, paths := range [][]string{{filepath.Join(t.TempDir(), "absent")}, {path, path}} {
		if _, err := archive.Open(paths, nil, 1000); err == nil {
			t.Errorf("%q: no error", paths)
		}
	}
	all := readAll(t, 1000, "", filepath.Dir(write(t, filepath.Join(t.TempDir(), "no.mbox"), "Subject: s\n\n")))
	if len(all) != 1 || all[0].err == nil || !strings.Contains(all[0].err.Error(), "it is no mbox") {
		t.Errorf("%+v", all)
	}
}

func TestAddressDomains(t *testing.T) {
	got := archive.AddressDomains([]byte("Subject: @no.example\r\nTo: \"x@y\" <a@B.example>, (c)\r\n c@d.example\r\nGarbage\r\nX-Original-To: e@f.example\r\n\r\nTo: body@no.example\r\n"))
	if want := []string{"y", "b.example", "d.example", "f.example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzMbox makes an mbox of mails and reads it, and reads what is none.
func FuzzMbox(f *testing.F) {
	f.Add("a\n\nFrom b\n", ">From c")
	f.Add("\r\n\r\n", "From \n>>From x\n\n")
	f.Fuzz(func(t *testing.T, one, two string) {
		readAll(t, 1<<20, one+two, "-")
		var box bytes.Buffer
		var want []string
		for _, mail := range []string{one, two} {
			fmt.Fprint(&box, "From x Tue Nov 24 08:00:00 2026\n")
			var whole strings.Builder
			for line := range strings.Lines(mail) {
				whole.WriteString(line)
				if strings.HasPrefix(strings.TrimLeft(line, ">"), "From ") {
					box.WriteByte('>')
				}
				box.WriteString(line)
			}
			if !strings.HasSuffix(mail, "\n") {
				whole.WriteByte('\n')
				box.WriteByte('\n')
			}
			box.WriteByte('\n')
			want = append(want, whole.String())
		}
		var got []string
		for _, r := range readAll(t, 1<<20, box.String(), "-") {
			if r.err != nil {
				t.Fatal(r.err)
			}
			got = append(got, r.body)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q became %q", want, got)
		}
	})
}
