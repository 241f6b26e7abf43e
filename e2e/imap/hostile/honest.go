package hostile

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Honest answers a command as a server should (RFC 3501, with the extensions of its capabilities).
func (s *Session) Honest(c *Command) {
	switch c.Name {
	case "CAPABILITY":
		s.Send("* CAPABILITY %s\r\n", s.capabilities())
		s.OK(c, "done")
	case "ID":
		s.Send("* ID (\"name\" \"hostile\")\r\n")
		s.OK(c, "done")
	case "NOOP", "CHECK", "ENABLE":
		s.OK(c, "done")
	case "NAMESPACE":
		s.Send("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n")
		s.OK(c, "done")
	case "LOGOUT":
		s.Send("* BYE see you\r\n")
		s.OK(c, "done")
	case "STARTTLS":
		s.startTLS(c)
	case "LOGIN", "AUTHENTICATE":
		s.logIn(c)
	default:
		if !s.loggedIn {
			s.Bad(c, "log in first")
			return
		}
		s.inside(c)
	}
}

func (s *Session) startTLS(c *Command) {
	s.mu.Lock()
	offered := s.tls != nil
	s.mu.Unlock()
	if !offered {
		s.Bad(c, "no TLS here")
		return
	}
	s.OK(c, "go ahead")
	s.StartTLS()
}

func (s *Session) logIn(c *Command) {
	if s.has("LOGINDISABLED") {
		s.problem("%s although LOGINDISABLED", c.Name)
		s.No(c, "[PRIVACYREQUIRED] not on this connection")
		return
	}
	user, password, err := s.credentials(c)
	switch {
	case err != nil:
		s.Bad(c, err.Error())
	case user != s.User || password != s.Password:
		s.No(c, "[AUTHENTICATIONFAILED] wrong user or password")
	default:
		s.loggedIn = true
		s.OK(c, "[CAPABILITY "+s.capabilities()+"] welcome")
	}
}

// credentials reads LOGIN, and PLAIN with or without an initial response.
func (s *Session) credentials(c *Command) (user, password string, err error) {
	words := fields(c.Args)
	if c.Name == "LOGIN" {
		if len(words) != 2 {
			return "", "", fmt.Errorf("LOGIN takes two arguments")
		}
		return words[0], words[1], nil
	}
	if len(words) == 0 || !strings.EqualFold(words[0], "PLAIN") {
		return "", "", fmt.Errorf("no such mechanism")
	}
	var encoded string
	if len(words) > 1 {
		encoded = words[1]
	} else {
		s.Send("+ \r\n")
		s.Flush()
		if encoded, err = s.read.ReadString('\n'); err != nil {
			return "", "", err
		}
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	parts := bytes.Split(raw, []byte{0})
	if err != nil || len(parts) != 3 {
		return "", "", fmt.Errorf("that is not PLAIN")
	}
	return string(parts[1]), string(parts[2]), nil
}

func (s *Session) inside(c *Command) {
	switch c.Name {
	case "LIST", "LSUB":
		s.list(c)
	case "STATUS":
		s.status(c)
	case "SELECT", "EXAMINE":
		s.selects(c)
	case "CREATE":
		s.create(c)
	case "IDLE":
		s.idle(c)
	default:
		if s.selected == nil {
			s.Bad(c, "select first")
			return
		}
		s.selectedOnly(c)
	}
}

func (s *Session) selectedOnly(c *Command) {
	switch c.Name {
	case "CLOSE", "UNSELECT":
		s.selected = nil
		s.OK(c, "done")
	case "UID SEARCH", "SEARCH":
		s.search(c)
	case "UID FETCH", "FETCH":
		s.fetch(c)
	case "UID STORE", "STORE":
		s.store(c)
	case "UID COPY", "COPY":
		s.copyOrMove(c, false)
	case "UID MOVE", "MOVE":
		s.copyOrMove(c, true)
	case "UID EXPUNGE", "EXPUNGE":
		s.expunge(c)
	default:
		s.problem("unknown command %s", c.Name)
		s.Bad(c, "no such command")
	}
}

func (s *Session) list(c *Command) {
	words := fields(c.Args)
	if len(words) > 0 && strings.HasPrefix(words[0], "(") { // selection options (RFC 5258)
		words = words[1:]
	}
	if len(words) < 2 {
		s.Bad(c, "LIST takes a reference and a pattern")
		return
	}
	if words[1] == "" {
		s.Send("* LIST (\\Noselect) \"/\" \"\"\r\n")
		s.OK(c, "done")
		return
	}
	patterns := []string{words[1]}
	if strings.HasPrefix(words[1], "(") {
		patterns = fields(strings.Trim(words[1], "()"))
	}
	s.mu.Lock()
	folders := slices.Clone(s.folders)
	s.mu.Unlock()
	for _, f := range folders {
		if slices.ContainsFunc(patterns, func(p string) bool { return matches(p, f.Name) }) {
			attrs := f.Attrs
			if !s.has("SPECIAL-USE") {
				attrs = ""
			}
			s.Send("* LIST (%s) \"/\" %q\r\n", attrs, f.Name)
		}
	}
	s.OK(c, "done")
}

func matches(pattern, name string) bool {
	p := regexp.QuoteMeta(pattern)
	p = strings.NewReplacer(`\*`, ".*", "%", "[^/]*").Replace(p)
	return regexp.MustCompile("(?i)^" + p + "$").MatchString(name)
}

func (s *Session) folder(name string) *Folder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(name)
}

func (s *Session) status(c *Command) {
	words := fields(c.Args)
	var f *Folder
	if len(words) > 0 {
		f = s.folder(words[0])
	}
	if f == nil {
		s.No(c, "[NONEXISTENT] no such folder")
		return
	}
	s.mu.Lock()
	unseen := 0
	for _, uid := range f.uids {
		if !f.is(uid, `\Seen`) {
			unseen++
		}
	}
	line := fmt.Sprintf("* STATUS %q (MESSAGES %d UNSEEN %d RECENT 0 UIDNEXT %d UIDVALIDITY %d)\r\n", f.Name, len(f.uids), unseen, f.next, f.UIDValidity)
	s.mu.Unlock()
	s.Send("%s", line)
	s.OK(c, "done")
}

func (s *Session) selects(c *Command) {
	words := fields(c.Args)
	var f *Folder
	if len(words) > 0 {
		f = s.folder(words[0])
	}
	if f == nil {
		s.selected = nil
		s.No(c, "[NONEXISTENT] no such folder")
		return
	}
	s.mu.Lock()
	s.selected, s.readOnly = f, f.ReadOnly || c.Name == "EXAMINE"
	count, validity, next := len(f.uids), f.UIDValidity, f.next
	s.mu.Unlock()
	s.Send("* FLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft)\r\n* %d EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY %d] valid\r\n* OK [UIDNEXT %d] next\r\n", count, validity, next)
	if s.readOnly {
		s.Send("* OK [PERMANENTFLAGS ()] none\r\n")
		s.OK(c, "[READ-ONLY] selected")
		return
	}
	s.Send("* OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft \\*)] all\r\n")
	s.OK(c, "[READ-WRITE] selected")
}

func (s *Session) create(c *Command) {
	words := fields(c.Args)
	if len(words) == 0 {
		s.Bad(c, "CREATE takes a name")
		return
	}
	if s.folder(words[0]) != nil {
		s.No(c, "[ALREADYEXISTS] it is there")
		return
	}
	s.Add(words[0], "", 1700000099)
	s.OK(c, "done")
}

func (s *Session) idle(c *Command) {
	s.Send("+ idling\r\n")
	s.Flush()
	s.setIdling(true)
	line, err := s.read.ReadString('\n')
	s.setIdling(false)
	if err != nil {
		return
	}
	s.remember("- " + strings.TrimSpace(line))
	s.OK(c, "done")
}

func (s *Session) setIdling(idling bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.idling = idling
}

// SearchResult evaluates a SEARCH as an honest server does.
func (s *Session) SearchResult(c *Command) ([]uint32, error) {
	criteria, _ := splitReturn(c.Args)
	s.mu.Lock()
	defer s.mu.Unlock()
	return evaluate(s.selected, fields(criteria))
}

var returning = regexp.MustCompile(`(?i)^RETURN \(([^)]*)\) ?`)

// splitReturn takes the result options of RFC 4731 off a SEARCH; nil means that there are none.
func splitReturn(args string) (criteria string, options []string) {
	m := returning.FindStringSubmatch(args)
	if m == nil {
		return args, nil
	}
	options = strings.Fields(strings.ToUpper(m[1]))
	if len(options) == 0 {
		options = []string{"ALL"}
	}
	return args[len(m[0]):], options
}

func (s *Session) search(c *Command) {
	found, err := s.SearchResult(c)
	if err != nil {
		s.problem("SEARCH %.100s: %v", c.Args, err)
		s.Bad(c, "that is no search")
		return
	}
	if c.Name == "SEARCH" {
		s.mu.Lock()
		for i, uid := range found {
			found[i] = uint32(s.selected.seq(uid))
		}
		s.mu.Unlock()
	}
	s.SendSearch(c, found)
	s.OK(c, "done")
}

// SendSearch sends the untagged answer to a SEARCH, in the form that was asked for.
func (s *Session) SendSearch(c *Command, found []uint32) {
	_, options := splitReturn(c.Args)
	if options == nil {
		s.Send("* SEARCH")
		for _, n := range found {
			s.Send(" %d", n)
		}
		s.Send("\r\n")
		return
	}
	uid := ""
	if strings.HasPrefix(c.Name, "UID") {
		uid = " UID"
	}
	s.Send("* ESEARCH (TAG %q)%s", c.Tag, uid)
	for _, option := range options {
		switch {
		case option == "COUNT":
			s.Send(" COUNT %d", len(found))
		case len(found) == 0:
		case option == "MIN":
			s.Send(" MIN %d", found[0])
		case option == "MAX":
			s.Send(" MAX %d", found[len(found)-1])
		case option == "ALL":
			s.Send(" ALL %s", formatSet(found))
		}
	}
	s.Send("\r\n")
}

// evaluate finds the UIDs in f that fit all criteria of a SEARCH: as many of them as a collector has a use for.
func evaluate(f *Folder, words []string) ([]uint32, error) {
	found := f.uids
	owned := false
	keep := func(ok func(uid uint32) bool) {
		kept := make([]uint32, 0, min(len(found), 1024))
		for _, uid := range found {
			if ok(uid) {
				kept = append(kept, uid)
			}
		}
		found, owned = kept, true
	}
	for i := 0; i < len(words); i++ {
		word := strings.ToUpper(words[i])
		wanted := true
		if word == "NOT" && i+1 < len(words) {
			wanted = false
			i++
			word = strings.ToUpper(words[i])
		}
		if flag, negated, known := flagKey(word); known {
			keep(func(uid uint32) bool { return f.is(uid, flag) != negated == wanted })
			continue
		}
		switch {
		case word == "ALL":
		case word == "CHARSET":
			i++
		case word == "UID" && i+1 < len(words):
			i++
			picked, err := f.pick(words[i], true)
			if err != nil {
				return nil, err
			}
			// The usual case first: a window, and nothing before it.
			if wanted && !owned {
				found, owned = picked, true
				continue
			}
			keep(func(uid uint32) bool { _, in := slices.BinarySearch(picked, uid); return in == wanted })
		case strings.HasPrefix(word, "("):
			inner, err := evaluate(f, fields(strings.TrimSuffix(words[i][1:], ")")))
			if err != nil {
				return nil, err
			}
			keep(func(uid uint32) bool { _, in := slices.BinarySearch(inner, uid); return in == wanted })
		default:
			picked, err := f.pick(words[i], false)
			if err != nil {
				return nil, err
			}
			if wanted && !owned {
				found, owned = picked, true
				continue
			}
			keep(func(uid uint32) bool { _, in := slices.BinarySearch(picked, uid); return in == wanted })
		}
	}
	return slices.Clone(found), nil
}

func flagKey(word string) (flag string, negated, known bool) {
	name, negated := strings.CutPrefix(word, "UN")
	switch name {
	case "SEEN", "DELETED", "FLAGGED", "ANSWERED", "DRAFT":
		return `\` + name, negated, true
	}
	return "", false, false
}

// bodyItem tells whether a FETCH asks for bodies.
var bodyItem = regexp.MustCompile(`(?i)BODY(\.PEEK)?\[\]`)

// Bodies tells whether a command fetches bodies.
func (c *Command) Bodies() bool {
	return (c.Name == "UID FETCH" || c.Name == "FETCH") && bodyItem.MatchString(c.Args)
}

func (s *Session) fetch(c *Command) {
	set, items, _ := strings.Cut(c.Args, " ")
	s.mu.Lock()
	picked, err := s.selected.pick(set, c.Name == "UID FETCH")
	s.mu.Unlock()
	if err != nil {
		s.Bad(c, err.Error())
		return
	}
	if m := bodyItem.FindStringSubmatch(items); m != nil && m[1] == "" {
		s.problem("BODY[] without PEEK sets \\Seen: %.100s", c.Args)
	}
	for _, uid := range picked {
		mail, there := s.mail(uid, c.Bodies())
		if !there {
			continue
		}
		if c.Bodies() && s.script.Mail != nil && s.script.Mail(s, c, mail) {
			continue
		}
		if !s.SendMail(c, mail) {
			return
		}
	}
	if c.Bodies() && s.script.FetchDone != nil && s.script.FetchDone(s, c) {
		return
	}
	s.OK(c, "done")
}

func (s *Session) mail(uid uint32, withBody bool) (Mail, bool) {
	s.mu.Lock()
	f := s.selected
	m := Mail{Key: Key{f.Name, f.UIDValidity, uid}, Seq: f.seq(uid), Flags: f.flagsOf(uid)}
	size := f.sizes[uid]
	s.mu.Unlock()
	if withBody {
		m.Body = body(s.User, m.Key, size)
	}
	return m, m.Seq > 0
}

const internalDate = "25-Nov-2026 08:00:00 +0000"

// Items are the items of a FETCH that were asked for, without the body.
func (s *Session) Items(c *Command, m Mail) string {
	asked := strings.ToUpper(c.Args)
	items := []string{fmt.Sprintf("UID %d", m.UID)}
	if strings.Contains(asked, "FLAGS") {
		items = append(items, "FLAGS ("+m.Flags+")")
	}
	if strings.Contains(asked, "INTERNALDATE") {
		items = append(items, `INTERNALDATE "`+internalDate+`"`)
	}
	if strings.Contains(asked, "RFC822.SIZE") {
		size := len(m.Body)
		if m.Body == nil {
			size = len(s.Body(m.Key))
		}
		items = append(items, fmt.Sprintf("RFC822.SIZE %d", size))
	}
	return strings.Join(items, " ")
}

// SendMail answers for one mail honestly. It returns false when the client is gone.
func (s *Session) SendMail(c *Command, m Mail) bool {
	if !c.Bodies() {
		s.Send("* %d FETCH (%s)\r\n", m.Seq, s.Items(c, m))
		return true
	}
	s.Send("* %d FETCH (%s BODY[] {%d}\r\n", m.Seq, s.Items(c, m), len(m.Body))
	return s.SendBytes(m.Body) && s.SendBytes([]byte(")\r\n"))
}

var storing = regexp.MustCompile(`(?i)^(\S+) ([+-]?)FLAGS(\.SILENT)? \(?([^)]*)\)?$`)

func (s *Session) store(c *Command) {
	m := storing.FindStringSubmatch(c.Args)
	if m == nil {
		s.problem("STORE %.100s", c.Args)
		s.Bad(c, "that is no STORE")
		return
	}
	if s.readOnly {
		s.No(c, "[NOPERM] read-only")
		return
	}
	s.mu.Lock()
	picked, err := s.selected.pick(m[1], c.Name == "UID STORE")
	var sign byte
	if m[2] != "" {
		sign = m[2][0]
	}
	for _, uid := range picked {
		s.selected.change(uid, sign, strings.Fields(m[4]))
		s.took(uid, sign, m[4])
	}
	s.mu.Unlock()
	if err != nil {
		s.Bad(c, err.Error())
		return
	}
	for _, uid := range picked {
		if mail, there := s.mail(uid, false); there && m[3] == "" {
			s.Send("* %d FETCH (UID %d FLAGS (%s))\r\n", mail.Seq, uid, mail.Flags)
		}
	}
	s.OK(c, "done")
}

// took remembers what became of a mail. The server's mutex is held.
func (s *Session) took(uid uint32, sign byte, flags string) {
	key := Key{s.selected.Name, s.selected.UIDValidity, uid}
	switch flags = strings.ToUpper(flags); {
	case sign == '-':
	case strings.Contains(flags, `\DELETED`):
		s.taken[key] = "deleted"
	case strings.Contains(flags, `\SEEN`) && s.taken[key] == "":
		s.taken[key] = "seen"
	}
}

func (s *Session) copyOrMove(c *Command, move bool) {
	set, name, _ := strings.Cut(c.Args, " ")
	words := fields(name)
	var to *Folder
	if len(words) == 1 {
		to = s.folder(words[0])
	}
	switch {
	case to == nil:
		s.No(c, "[TRYCREATE] no such folder")
		return
	case move && s.readOnly:
		s.No(c, "[NOPERM] read-only")
		return
	}
	s.mu.Lock()
	picked, err := s.selected.pick(set, strings.HasPrefix(c.Name, "UID"))
	code := ""
	if err == nil && len(picked) > 0 {
		first := to.next
		for range picked {
			to.uids, to.next = append(to.uids, to.next), to.next+1
		}
		code = fmt.Sprintf("[COPYUID %d %s %d:%d] ", to.UIDValidity, formatSet(picked), first, to.next-1)
	}
	s.mu.Unlock()
	if err != nil {
		s.Bad(c, err.Error())
		return
	}
	if !move {
		s.OK(c, code+"copied")
		return
	}
	s.Send("* OK %smoved\r\n", code)
	s.remove(picked, "moved")
	s.OK(c, "done")
}

// remove takes mails out of the selected folder and says so.
func (s *Session) remove(uids []uint32, how string) {
	for _, uid := range uids {
		s.mu.Lock()
		f := s.selected
		seq := f.seq(uid)
		if seq > 0 {
			f.uids = slices.Delete(slices.Clone(f.uids), seq-1, seq)
			s.taken[Key{f.Name, f.UIDValidity, uid}] = how
		}
		s.mu.Unlock()
		if seq > 0 {
			s.Send("* %d EXPUNGE\r\n", seq)
		}
	}
}

func (s *Session) expunge(c *Command) {
	if s.readOnly {
		s.No(c, "[NOPERM] read-only")
		return
	}
	s.mu.Lock()
	picked := slices.Clone(s.selected.uids)
	var err error
	if c.Name == "UID EXPUNGE" {
		picked, err = s.selected.pick(c.Args, true)
	}
	picked = slices.DeleteFunc(picked, func(uid uint32) bool { return !s.selected.is(uid, `\Deleted`) })
	s.mu.Unlock()
	if err != nil {
		s.Bad(c, err.Error())
		return
	}
	s.remove(picked, "expunged")
	s.OK(c, "done")
}

// fields splits arguments: atoms, quoted strings without their quotes, lists in their parentheses.
func fields(text string) []string {
	var words []string
	for i := 0; i < len(text); {
		switch text[i] {
		case ' ':
			i++
		case '"':
			var word strings.Builder
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				word.WriteByte(text[i])
			}
			i++
			words = append(words, word.String())
		case '(':
			depth, from := 0, i
			for ; i < len(text); i++ {
				if text[i] == '(' {
					depth++
				}
				if text[i] == ')' {
					if depth--; depth == 0 {
						i++
						break
					}
				}
			}
			words = append(words, text[from:i])
		default:
			from := i
			for i < len(text) && text[i] != ' ' {
				i++
			}
			words = append(words, text[from:i])
		}
	}
	return words
}
