package session_test

import (
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/session"
)

func TestChoose(t *testing.T) {
	folder := func(name string, attrs ...imap.MailboxAttr) session.Folder {
		return session.Folder{Name: name, Delim: '/', Attrs: attrs}
	}
	gmail := []session.Folder{
		folder("INBOX"), folder("[Gmail]", imap.MailboxAttrNoSelect), folder("[Gmail]/Alle Nachrichten", imap.MailboxAttrAll),
		folder("[Gmail]/Spam", imap.MailboxAttrJunk), folder("Trap/one"), folder("Trap/two"), folder("Trap/two/deep"),
	}
	for _, c := range []struct {
		name    string
		folders []session.Folder
		wanted  []string
		want    []string // Junk marked with !
		missing []string
	}{
		{"by attribute", gmail, []string{"INBOX", `\Junk`, `\All`}, []string{"INBOX", "![Gmail]/Spam", "[Gmail]/Alle Nachrichten"}, nil},
		{"by name", []session.Folder{folder("INBOX"), folder("INBOX/Indésirables")}, []string{"inbox", `\junk`}, []string{"INBOX", "!INBOX/Indésirables"}, nil},
		{"the one nearer to the top", []session.Folder{folder("Old/Spam"), folder("Spam")}, []string{`\Junk`}, []string{"!Spam"}, nil},
		{"none", []session.Folder{folder("INBOX")}, []string{"INBOX", `\Junk`}, []string{"INBOX"}, []string{`\Junk`}},
		{"patterns", gmail, []string{"Trap/%"}, []string{"Trap/one", "Trap/two"}, nil},
		{"patterns over levels", gmail, []string{"Tr?p/*"}, []string{"Trap/one", "Trap/two", "Trap/two/deep"}, nil},
		{"each once", gmail, []string{"[Gmail]/Spam", `\Junk`, "*Spam"}, []string{"![Gmail]/Spam"}, nil},
		{"what LIST hides", gmail, []string{"Hidden"}, []string{"Hidden"}, nil},
		{"no match", gmail, []string{"X*"}, nil, []string{"X*"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			chosen, missing := session.Choose(c.folders, c.wanted)
			var got []string
			for _, f := range chosen {
				name := f.Name
				if f.Junk {
					name = "!" + name
				}
				got = append(got, name)
			}
			if !slices.Equal(got, c.want) || !slices.Equal(missing, c.missing) {
				t.Errorf("got %v, missing %v", got, missing)
			}
		})
	}
}
