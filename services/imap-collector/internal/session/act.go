package session

import (
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// CanExpunge tells whether mails can be expunged that we name, and no others (UIDPLUS, RFC 4315).
func (s *Session) CanExpunge() bool { return s.caps.Has(imap.CapUIDPlus) }

// CanMove tells whether the server can move mails (RFC 6851).
func (s *Session) CanMove() bool { return s.caps.Has(imap.CapMove) }

// DeletingArchives tells whether a mail that is deleted and expunged in one folder is still there in another, as with Gmail: there only \Trash is the end.
func (s *Session) DeletingArchives() bool { return s.caps.Has("X-GM-EXT-1") }

// StartStore sets flags. uids are in ascending order.
func (s *Session) StartStore(uids []uint32, flags ...imap.Flag) *Call {
	s.begin(smallAnswer+int64(len(uids))*sizeText, 0)
	command := s.client.Store(uidSet(uids), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: flags}, nil)
	return s.start(fmt.Sprintf("UID STORE %v", flags), command.Close, nil)
}

// StartExpunge removes those of the mails that are marked \Deleted. It may be sent right behind the StartStore that marks them: no others
// are touched, whatever becomes of that. CanExpunge must be true.
func (s *Session) StartExpunge(uids []uint32) *Call {
	s.begin(smallAnswer+int64(len(uids))*sizeText, 0)
	command := s.client.UIDExpunge(uidSet(uids))
	return s.start("UID EXPUNGE", command.Close, nil)
}

// StartExpungeAll removes whatever is marked \Deleted in the folder, by anybody.
func (s *Session) StartExpungeAll() *Call {
	s.begin(int64(s.Messages())*sizeText+smallAnswer, 0)
	command := s.client.Expunge()
	return s.start("EXPUNGE", command.Close, nil)
}

// StartCopy copies mails to another folder.
func (s *Session) StartCopy(uids []uint32, folder string) *Call {
	s.begin(smallAnswer+int64(len(uids))*sizeText, 0)
	command := s.client.Copy(uidSet(uids), folder)
	return s.start(fmt.Sprintf("UID COPY to %q", folder), func() error {
		_, err := command.Wait()
		return err
	}, nil)
}

// Moved is the answer to a move, once its Call has been waited for.
type Moved struct {
	*Call
	// UIDValidity and UIDs tell where the mails are now; zero and nil when the server does not say.
	UIDValidity uint32
	UIDs        []uint32
}

// StartMove moves mails to another folder. CanMove must be true: without MOVE the library would copy, delete and expunge without waiting for answers,
// and a failing copy would cost the mail.
func (s *Session) StartMove(uids []uint32, folder string) (*Moved, error) {
	doing := fmt.Sprintf("UID MOVE to %q", folder)
	if !s.client.Caps().Has(imap.CapMove) {
		return nil, &Error{Kind: Refused, Doing: doing, Err: errors.New("the server offers MOVE no more")}
	}
	s.begin(smallAnswer+int64(len(uids))*sizeText, 0)
	command := s.client.Move(uidSet(uids), folder)
	moved := &Moved{}
	var data *imapclient.MoveData
	moved.Call = s.start(doing, func() (err error) {
		data, err = command.Wait()
		return err
	}, func(err error) error {
		if err == nil {
			moved.UIDValidity, moved.UIDs = data.UIDValidity, few(data.DestUIDs, len(uids))
		}
		return err
	})
	return moved, nil
}

// few lists the UIDs of a set, if there are no more than most.
func few(set imap.NumSet, most int) []uint32 {
	list, err := ranges(set, uint64(most))
	if err != nil {
		return nil
	}
	var uids []uint32
	for _, r := range list {
		for n := uint64(r.First); n <= uint64(r.Last) && len(uids) < most; n++ {
			uids = append(uids, uint32(n))
		}
	}
	return uids
}

// StartCreate makes a folder.
func (s *Session) StartCreate(folder string) *Call {
	s.begin(smallAnswer, 0)
	command := s.client.Create(folder, nil)
	return s.start(fmt.Sprintf("CREATE %q", folder), command.Wait, nil)
}
