package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Folder is one folder. Its mails are made from their names, so that millions of them cost four bytes each.
type Folder struct {
	Name, Attrs string
	UIDValidity uint32
	ReadOnly    bool

	next  uint32
	uids  []uint32
	base  string            // the flags of a mail that flags does not name
	flags map[uint32]string // separated by space
	sizes map[uint32]int    // of bodies that are not of the usual size; -1 stands for none at all
}

// Add makes an empty folder.
func (s *Server) Add(name, attrs string, uidValidity uint32) *Folder {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Folder{Name: name, Attrs: attrs, UIDValidity: uidValidity, next: 1, flags: make(map[uint32]string), sizes: make(map[uint32]int)}
	s.folders = append(s.folders, f)
	return f
}

// Fill puts count mails into a folder, with UIDs from first on.
func (s *Server) Fill(folder string, first uint32, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.find(folder)
	f.uids = slices.Grow(f.uids, count)
	for i := range count {
		f.uids = append(f.uids, first+uint32(i))
	}
	f.next = first + uint32(count)
}

// Size makes the body of a mail this large.
func (s *Server) Size(folder string, uid uint32, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(folder).sizes[uid] = bytes
}

// Flag sets the flags of a mail; uid 0 stands for all that have none of their own.
func (s *Server) Flag(folder string, uid uint32, flags string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.find(folder)
	if uid == 0 {
		f.base = flags
		return
	}
	f.flags[uid] = flags
}

// Arrive puts one mail more into a folder and tells those who idle in it.
func (s *Server) Arrive(folder string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.find(folder)
	uid := f.next
	f.uids, f.next = append(f.uids, uid), uid+1
	for session := range s.sessions {
		session.exists(f)
	}
	return uid
}

// exists tells an idling client how many mails there are. The server's mutex is held.
func (s *Session) exists(f *Folder) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.idling && s.selected == f {
		_, _ = fmt.Fprintf(s.write, "* %d EXISTS\r\n", len(f.uids))
		_ = s.write.Flush()
	}
}

// SetUIDValidity gives a folder another UIDVALIDITY.
func (s *Server) SetUIDValidity(folder string, value uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(folder).UIDValidity = value
}

// Remove takes mails away as another client would.
func (s *Server) Remove(folder string, uids ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.find(folder)
	f.uids = slices.DeleteFunc(f.uids, func(uid uint32) bool { return slices.Contains(uids, uid) })
}

// UIDs returns the UIDs that are in a folder now.
func (s *Server) UIDs(folder string) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.find(folder).uids)
}

// FlagsOf returns the flags of a mail that is in a folder now.
func (s *Server) FlagsOf(folder string, uid uint32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(folder).flagsOf(uid)
}

// Body returns the truth of a mail, whether it is still there or not.
func (s *Server) Body(k Key) []byte {
	s.mu.Lock()
	size := 0
	if f := s.find(k.Folder); f != nil {
		size = f.sizes[k.UID]
	}
	s.mu.Unlock()
	return body(s.User, k, size)
}

// body is unlike that of any other mail, and not all of one size. Those that are larger repeat a line.
func body(user string, k Key, size int) []byte {
	if size < 0 {
		return []byte{}
	}
	uid := k.UID
	head := fmt.Appendf(nil, "From: spam@x.example\r\nTo: %s\r\nSubject: %s %d %d\r\n\r\nmail %d of %s\r\n", user, k.Folder, k.UIDValidity, uid, uid, k.Folder)
	if size == 0 {
		size = len(head) + int(uid%7)*100
	}
	line := []byte(strconv.FormatUint(uint64(uid), 10) + strings.Repeat(" spam", 12) + "\r\n")
	return append(head, bytes.Repeat(line, size/len(line)+1)...)[:max(size, len(head))]
}

// find returns a folder or nil. The server's mutex is held.
func (s *Server) find(name string) *Folder {
	for _, f := range s.folders {
		if f.Name == name || strings.EqualFold(name, "INBOX") && f.Name == "INBOX" {
			return f
		}
	}
	return nil
}

func (f *Folder) flagsOf(uid uint32) string {
	if flags, there := f.flags[uid]; there {
		return flags
	}
	return f.base
}

func (f *Folder) is(uid uint32, flag string) bool {
	return slices.ContainsFunc(strings.Fields(f.flagsOf(uid)), func(have string) bool { return strings.EqualFold(have, flag) })
}

func (f *Folder) change(uid uint32, sign byte, flags []string) {
	have := strings.Fields(f.flagsOf(uid))
	if sign == 0 {
		have = nil
	}
	for _, flag := range flags {
		have = slices.DeleteFunc(have, func(h string) bool { return strings.EqualFold(h, flag) })
		if sign != '-' {
			have = append(have, flag)
		}
	}
	f.flags[uid] = strings.Join(have, " ")
}

// seq returns the sequence number of a mail, 0 when it is gone.
func (f *Folder) seq(uid uint32) int {
	if i, there := slices.BinarySearch(f.uids, uid); there {
		return i + 1
	}
	return 0
}

// span is a range of numbers of a sequence set.
type span struct{ first, last uint32 }

// parseSet reads a sequence set; a star is max.
func parseSet(text string, most uint32) ([]span, error) {
	var set []span
	for part := range strings.SplitSeq(text, ",") {
		first, last, both := strings.Cut(part, ":")
		if !both {
			last = first
		}
		var ends [2]uint32
		for i, number := range []string{first, last} {
			if number == "*" {
				ends[i] = most
				continue
			}
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%.40q is no sequence set", text)
			}
			ends[i] = uint32(n)
		}
		set = append(set, span{min(ends[0], ends[1]), max(ends[0], ends[1])})
	}
	return set, nil
}

// pick returns the mails of f that a set names, by UID or by sequence number, in the order of the mailbox.
func (f *Folder) pick(text string, byUID bool) ([]uint32, error) {
	most := uint32(len(f.uids))
	if byUID && most > 0 {
		most = f.uids[most-1]
	}
	set, err := parseSet(text, most)
	if err != nil {
		return nil, err
	}
	var picked []uint32
	for _, s := range set {
		if byUID {
			from, _ := slices.BinarySearch(f.uids, s.first)
			for _, uid := range f.uids[from:] {
				if uid > s.last {
					break
				}
				picked = append(picked, uid)
			}
			continue
		}
		for seq := max(1, s.first); seq <= s.last && int(seq) <= len(f.uids); seq++ { // of an empty folder * is 0
			picked = append(picked, f.uids[seq-1])
		}
	}
	slices.Sort(picked)
	return slices.Compact(picked), nil
}

// formatSet writes UIDs, which are in order, as a sequence set.
func formatSet(uids []uint32) string {
	var b strings.Builder
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if i == j {
			fmt.Fprintf(&b, "%d", uids[i])
		} else {
			fmt.Fprintf(&b, "%d:%d", uids[i], uids[j])
		}
		i = j + 1
	}
	return b.String()
}

// picked returns the mails of the selected folder that a set of UIDs names.
func (s *Session) picked(set string) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.selected == nil {
		return nil, errors.New("no folder")
	}
	return s.selected.pick(set, true)
}
