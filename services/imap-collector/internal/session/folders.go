package session

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

const (
	// mostFolders is how many folders a mailbox may have.
	mostFolders = 20_000
	// folderText is what one of them may take in the answer to LIST.
	folderText = 1 << 10
)

// Folder is one folder of a mailbox, as LIST tells of it.
type Folder struct {
	Name  string
	Delim rune // between the levels of names; 0: there are none
	Attrs []imap.MailboxAttr
}

func (f *Folder) has(attr string) bool {
	return slices.ContainsFunc(f.Attrs, func(a imap.MailboxAttr) bool { return strings.EqualFold(string(a), attr) })
}

// selectable tells whether there can be mail in it.
func (f *Folder) selectable() bool {
	return !f.has(string(imap.MailboxAttrNoSelect)) && !f.has(string(imap.MailboxAttrNonExistent))
}

// last returns the last level of its name.
func (f *Folder) last() string {
	if f.Delim == 0 {
		return f.Name
	}
	return f.Name[strings.LastIndex(f.Name, string(f.Delim))+1:]
}

// depth returns how many levels there are above it.
func (f *Folder) depth() int {
	if f.Delim == 0 {
		return 0
	}
	return strings.Count(f.Name, string(f.Delim))
}

// Folders asks for all folders of the mailbox, with their special uses where the server tells (RFC 6154). It blocks until it has the answer.
func (s *Session) Folders() ([]Folder, error) {
	var options *imap.ListOptions
	if s.caps.Has(imap.CapSpecialUse) && s.caps.Has(imap.CapListExtended) {
		options = &imap.ListOptions{ReturnSpecialUse: true} // without LIST-EXTENDED a server tells unasked
	}
	const doing = "LIST"
	s.begin(mostFolders*folderText, 0)
	list := s.client.List("", "*", options)
	var folders []Folder
	call := s.start(doing, func() error {
		for data := list.Next(); data != nil; data = list.Next() {
			if len(folders) < mostFolders {
				folders = append(folders, Folder{Name: data.Mailbox, Delim: data.Delim, Attrs: data.Attrs})
			}
		}
		return list.Close()
	}, nil)
	if err := call.Wait(); err != nil {
		return nil, err
	}
	if len(folders) == mostFolders {
		return nil, &Error{Kind: Protocol, Doing: doing, Err: fmt.Errorf("the mailbox has %d folders or more", mostFolders)}
	}
	return folders, nil
}

// Chosen is a folder that is to be looked at, and why.
type Chosen struct {
	Name string
	Junk bool   // it is the mailbox's junk folder
	Why  string // `\Junk by its attribute`, `\Junk by its name`, `matches Trap/*`, "configured"
}

// Choose finds the folders that are meant by names, patterns (* ? %) and special uses (`\Junk`), each once, in the order of wanted. missing has
// those of wanted that mean no folder of the mailbox, but for plain names: these are chosen whether or not LIST shows them, for some servers hide folders.
func Choose(folders []Folder, wanted []string) (chosen []Chosen, missing []string) {
	junk, _, _ := bySpecialUse(folders, `\Junk`)
	seen := make(map[string]bool)
	choose := func(name, why string) {
		if strings.EqualFold(name, "INBOX") {
			name = "INBOX" // RFC 9051 §5.1
		}
		if !seen[name] {
			seen[name] = true
			chosen = append(chosen, Chosen{Name: name, Junk: name == junk && junk != "", Why: why})
		}
	}
	for _, want := range wanted {
		switch {
		case strings.HasPrefix(want, `\`):
			name, why, found := bySpecialUse(folders, want)
			if !found {
				missing = append(missing, want)
				continue
			}
			choose(name, want+" by its "+why)
		case strings.ContainsAny(want, "*%?"):
			matches := matching(folders, want)
			if len(matches) == 0 {
				missing = append(missing, want)
			}
			for _, name := range matches {
				choose(name, "matches "+want)
			}
		default:
			choose(want, "configured")
		}
	}
	return chosen, missing
}

// BySpecialUse finds the one folder of a special use: by its attribute, else by the names that it is known to have.
func BySpecialUse(folders []Folder, use string) (name string, err error) {
	name, _, found := bySpecialUse(folders, use)
	if !found {
		return "", errors.New("the mailbox has no folder for " + use)
	}
	return name, nil
}

func bySpecialUse(folders []Folder, use string) (name, why string, found bool) {
	best := -1
	for i := range folders {
		if f := &folders[i]; f.selectable() && f.has(use) && (best < 0 || less(f, &folders[best])) {
			best = i
		}
	}
	if best >= 0 {
		return folders[best].Name, "attribute", true
	}
	for _, known := range knownNames[strings.ToLower(use)] {
		for i := range folders {
			f := &folders[i]
			if f.selectable() && strings.EqualFold(f.last(), known) && (best < 0 || less(f, &folders[best])) {
				best = i
			}
		}
		if best >= 0 {
			return folders[best].Name, "name", true
		}
	}
	return "", "", false
}

// less tells whether a folder comes before another that would do as well: the one nearer to the top, then by name.
func less(a, b *Folder) bool {
	return cmp.Or(cmp.Compare(a.depth(), b.depth()), cmp.Compare(a.Name, b.Name)) < 0
}

func matching(folders []Folder, pattern string) []string {
	var names []string
	for i := range folders {
		f := &folders[i]
		if f.selectable() && match(pattern, f.Name, f.Delim) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// match tells whether a name fits a pattern: * is anything, % anything but the delimiter, ? one character. It needs time in proportion to both lengths
// multiplied, whatever the pattern.
func match(pattern, name string, delim rune) bool {
	text := []rune(name)
	fits := make([]bool, len(text)+1) // the pattern so far fits the first i characters
	fits[0] = true
	for _, p := range pattern {
		next := make([]bool, len(text)+1)
		for i := range next {
			switch {
			case p == '*':
				next[i] = fits[i] || i > 0 && next[i-1]
			case p == '%':
				next[i] = fits[i] || i > 0 && next[i-1] && text[i-1] != delim
			case i > 0:
				next[i] = fits[i-1] && (p == '?' || p == text[i-1])
			}
		}
		fits = next
	}
	return fits[len(text)]
}
