package session

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/state"
)

// Selected is what the server tells of a folder when it is selected.
type Selected struct {
	Folder      string
	UIDValidity uint32
	ReadOnly    bool // nothing can be changed in it
	flags       []imap.Flag
	told        bool // which flags can be kept
}

// Keeps tells whether a flag that is set in this folder stays.
func (s *Selected) Keeps(flag imap.Flag) bool {
	if s.ReadOnly {
		return false
	}
	return !s.told || slices.ContainsFunc(s.flags, func(f imap.Flag) bool {
		return f == imap.FlagWildcard || strings.EqualFold(string(f), string(flag)) // some servers list only what is in use, and the wildcard
	})
}

// Select opens a folder, for looking only if examine is set. It blocks until the server has answered. No other command may be in flight.
func (s *Session) Select(folder string, examine bool) (Selected, error) {
	doing := fmt.Sprintf("SELECT %q", folder)
	if examine {
		doing = fmt.Sprintf("EXAMINE %q", folder)
	}
	s.heard.mu.Lock()
	s.heard.readOnly = false
	s.heard.mu.Unlock()
	s.begin(smallAnswer, 0)
	command := s.client.Select(folder, &imap.SelectOptions{ReadOnly: examine})
	var data *imap.SelectData
	selecting := s.start(doing, func() (err error) {
		data, err = command.Wait()
		return err
	}, nil)
	// The library says that a SELECT is done, and only then notes the folder: Messages would still be that of the one before. It has noted it by the time that
	// it reads the answer to what was sent behind.
	s.begin(smallAnswer, 0)
	behind := s.start(doing, s.client.Noop().Wait, nil)
	err, noted := selecting.Wait(), behind.Wait()
	if err != nil {
		return Selected{}, err
	}
	if e, ok := errors.AsType[*Error](noted); ok && !e.Answered {
		return Selected{}, noted
	}
	if data.UIDValidity == 0 {
		return Selected{}, &Error{
			Kind: Protocol, Doing: doing, Answered: true,
			Err: errors.New("the server names no UIDVALIDITY, so that no mail in the folder can be told from another"),
		}
	}
	s.heard.mu.Lock()
	readOnly := s.heard.readOnly
	s.heard.mu.Unlock()
	s.selected = Selected{
		Folder: folder, UIDValidity: data.UIDValidity, ReadOnly: readOnly || examine,
		flags: data.PermanentFlags, told: data.PermanentFlags != nil,
	}
	s.forgetNews()
	return s.selected, nil
}

// Selected returns the folder that is selected, as it was told then.
func (s *Session) Selected() Selected { return s.selected }

func (s *Session) forgetNews() {
	select {
	case <-s.news:
	default:
	}
}

// Messages returns how many mails the selected folder has, as last heard.
func (s *Session) Messages() uint32 {
	if mailbox := s.client.Mailbox(); mailbox != nil {
		return mailbox.NumMessages
	}
	return 0
}

// Expunged returns how many messages the server has told us to be gone, so far, beside those that we asked it to expunge.
func (s *Session) Expunged() uint32 { return s.heard.expunged.Load() }

// Window returns how many messages one command may be about: want, or less where the server has a limit (RFC 9738).
func (s *Session) Window(want int) int {
	for c := range s.caps {
		if text, found := strings.CutPrefix(strings.ToUpper(string(c)), "MESSAGELIMIT="); found {
			if limit, err := strconv.Atoi(text); err == nil && limit > 0 {
				want = min(want, limit)
			}
		}
	}
	return want
}

// Search is which messages are looked for.
type Search struct {
	Unseen    bool // those without \Seen
	Undeleted bool // those without \Deleted
}

// String returns it as it is said to the server.
func (q Search) String() string {
	var words []string
	if q.Unseen {
		words = append(words, "UNSEEN")
	}
	if q.Undeleted {
		words = append(words, "UNDELETED")
	}
	if words == nil {
		return "ALL"
	}
	return strings.Join(words, " ")
}

// Found is the answer to a search, once its Call has been waited for.
type Found struct {
	*Call
	Ranges []state.Range // of UIDs, in order, without overlap
}

// numberText is what a number may take in the answer to a search.
const numberText = 12

// StartSearch looks for messages among those with the sequence numbers first to last. Its answer is bounded by their number, however large the
// folder is and wherever its UIDs begin. Sequence numbers move when mails are expunged; who misses one so finds it with the next search.
func (s *Session) StartSearch(first, last uint32, q Search) *Found {
	criteria := &imap.SearchCriteria{SeqNum: []imap.SeqSet{{{Start: first, Stop: last}}}}
	if q.Unseen {
		criteria.NotFlag = append(criteria.NotFlag, imap.FlagSeen)
	}
	if q.Undeleted {
		criteria.NotFlag = append(criteria.NotFlag, imap.FlagDeleted)
	}
	var options *imap.SearchOptions
	if s.caps.Has(imap.CapESearch) {
		options = &imap.SearchOptions{ReturnAll: true} // ranges instead of numbers
	}
	window := uint64(last-first) + 1
	s.begin(smallAnswer+int64(window)*numberText, 0)
	command := s.client.UIDSearch(criteria, options)
	found := &Found{}
	var data *imap.SearchData
	found.Call = s.start("UID SEARCH "+q.String(), func() (err error) {
		data, err = command.Wait()
		return err
	}, func(err error) error {
		if err == nil {
			found.Ranges, err = ranges(data.All, window)
		}
		return err
	})
	return found
}

// Count asks how many messages of the selected folder a search would find. It blocks until the server has answered, and must not be called
// while other commands are in flight.
func (s *Session) Count(q Search, window int) (int, error) {
	total := 0
	window = s.Window(window)
	for first := uint32(1); first <= s.Messages(); first += uint32(window) {
		found := s.StartSearch(first, min(first+uint32(window)-1, s.Messages()), q)
		if err := found.Wait(); err != nil {
			return 0, err
		}
		for _, r := range found.Ranges {
			total += int(r.Last-r.First) + 1
		}
	}
	return total, nil
}

// ranges reads the set that a search returned. The library's own ways to take one apart never end for some sets that a server may send.
func ranges(set imap.NumSet, most uint64) ([]state.Range, error) {
	uids, _ := set.(imap.UIDSet)
	list := make([]state.Range, 0, len(uids))
	var count uint64
	for _, r := range uids {
		if r.Start == 0 || r.Stop == 0 || r.Stop < r.Start {
			return nil, &Error{Kind: Protocol, Doing: "UID SEARCH", Err: errors.New("the server names messages without telling which")}
		}
		count += uint64(r.Stop-r.Start) + 1
		list = append(list, state.Range{First: uint32(r.Start), Last: uint32(r.Stop)})
	}
	const slack = 1000 // that came while the server searched
	if count > most+slack {
		return nil, &Error{Kind: Protocol, Doing: "UID SEARCH", Err: fmt.Errorf("the server finds %d messages among %d", count, most)}
	}
	return list, nil
}

// uidSet makes a set of UIDs in ascending order.
func uidSet(uids []uint32) imap.UIDSet {
	var set imap.UIDSet
	for _, uid := range uids {
		if n := len(set); n > 0 && uint32(set[n-1].Stop)+1 == uid && uint32(set[n-1].Stop) != math.MaxUint32 {
			set[n-1].Stop = imap.UID(uid)
			continue
		}
		set = append(set, imap.UIDRange{Start: imap.UID(uid), Stop: imap.UID(uid)})
	}
	return set
}
