package session

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

const (
	// mailText is what the server may say of one mail beside its body: its flags, most of all.
	mailText = 4 << 10
	// sizeText is what it may say when only the size was asked for.
	sizeText = 256
)

// Sized is a mail and how many bytes it has.
type Sized struct {
	UID  uint32
	Size int64
}

// Sizes is the answer to the question for sizes, once its Call has been waited for.
type Sizes struct {
	*Call
	// Mails are those that the server told of, in its order. The sizes are RFC822.SIZE, which some servers have wrong by three
	// times: good for planning only.
	Mails []Sized
}

// StartSizes asks how large mails are. uids are in ascending order.
func (s *Session) StartSizes(uids []uint32) *Sizes {
	s.begin(smallAnswer+int64(len(uids))*sizeText, 0)
	command := s.client.Fetch(uidSet(uids), &imap.FetchOptions{UID: true, RFC822Size: true})
	sizes := &Sizes{Mails: make([]Sized, 0, len(uids))}
	wait := aside(func() error {
		for message := command.Next(); message != nil; message = command.Next() {
			mail := Sized{}
			for item := message.Next(); item != nil; item = message.Next() {
				switch item := item.(type) {
				case imapclient.FetchItemDataUID:
					mail.UID = uint32(item.UID)
				case imapclient.FetchItemDataRFC822Size:
					mail.Size = item.Size
				}
			}
			sizes.Mails = append(sizes.Mails, mail)
		}
		return command.Close()
	})
	sizes.Call = s.start(&Call{doing: "UID FETCH RFC822.SIZE", wait: wait, drain: func() { _ = wait() }})
	return sizes
}

// Mail is a mail that was fetched whole.
type Mail struct {
	UID          uint32
	Flags        []string
	InternalDate time.Time // zero: the server did not tell
	Body         []byte    // exactly as many bytes as were announced
}

// aside reads an answer in a goroutine of its own, and returns what waits for the outcome, once. A server may work on several commands at once and mix
// their answers, as Dovecot does with FETCHes, and go-imap's reader stands still until somebody takes what it has, whichever command it belongs to.
func aside(read func() error) (wait func() error) {
	outcome := make(chan error, 1)
	go func() { outcome <- read() }()
	return func() error { return <-outcome }
}

// Take decides on a mail whose size the server has just announced: it returns where to put it, with this length, or nil when it is not wanted now
// and is to be read over. It is called from a goroutine of the command's own, and no more once the command was waited for.
type Take func(uid uint32, size int64) []byte

// Fetched is the answer to a fetch, once its Call has been waited for without an error. Nothing of it counts after an error, for then the bytes
// of one mail may have come out of another.
type Fetched struct {
	*Call
	Mails   []Mail
	Passed  []Sized  // those that Take did not want, with their real size
	Missing []uint32 // asked for, and not got: not there any more, or the server answered something else. In ascending order
	asked   []uint32
	take    Take
}

var wholeBody = []*imap.FetchItemBodySection{{Peek: true}} // BODY.PEEK[]: \Seen stays as it is

// StartFetch asks for mails, whole, without marking them. uids are in ascending order; planned is how many bytes they have by their RFC822.SIZE. With bare set
// only the bodies are asked for, since some servers choke on what else there is about a mail. A mail of more than four times MaxMessageBytes ends the session.
func (s *Session) StartFetch(uids []uint32, planned int64, bare bool, take Take) *Fetched {
	s.begin(smallAnswer+int64(len(uids))*mailText, (planned+s.account.MaxMessageBytes)*oversizeFactor)
	if len(uids) == 1 {
		s.heard.stray.Store(&stray{uid: uids[0], take: take, done: make(chan struct{})})
	}
	command := s.client.Fetch(uidSet(uids), &imap.FetchOptions{UID: true, Flags: !bare, InternalDate: !bare, BodySection: wholeBody})
	f := &Fetched{Mails: make([]Mail, 0, len(uids)), asked: uids, take: take}
	read := aside(func() error { return f.read(command) })
	f.Call = s.start(&Call{
		doing: fmt.Sprintf("UID FETCH of %d mails", len(uids)),
		wait: func() error {
			err := read()
			if wish := s.settled(); err == nil && wish != nil && len(f.Missing) == len(f.asked) {
				f.adopt(wish)
			}
			return err
		},
		drain: func() {
			_ = read()
			s.settled()
		},
	})
	return f
}

// read takes everything out of the command, also after an error, since go-imap waits for that.
func (f *Fetched) read(command *imapclient.FetchCommand) error {
	var first error
	for message := command.Next(); message != nil; message = command.Next() {
		if err := f.readMail(message); err != nil && first == nil {
			first = err
		}
	}
	if err := command.Close(); err != nil {
		return err
	}
	if first != nil {
		return first
	}
	f.reconcile()
	return nil
}

// readMail reads what the server says of one mail.
func (f *Fetched) readMail(message *imapclient.FetchMessageData) error {
	mail := Mail{}
	passed, size := false, int64(0)
	for item := message.Next(); item != nil; item = message.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			if mail.UID != 0 && mail.UID != uint32(item.UID) {
				return fmt.Errorf("one mail with the UIDs %d and %d", mail.UID, item.UID)
			}
			mail.UID = uint32(item.UID)
		case imapclient.FetchItemDataFlags:
			mail.Flags = texts(item.Flags)
		case imapclient.FetchItemDataInternalDate:
			mail.InternalDate = item.Time
		case imapclient.FetchItemDataBodySection:
			if item.Literal == nil || !item.MatchCommand(wholeBody[0]) {
				continue // NIL, or a part that was not asked for, is no mail
			}
			if mail.Body != nil || passed {
				return fmt.Errorf("two bodies of the mail with the UID %d", mail.UID)
			}
			var err error
			size = item.Literal.Size()
			if mail.Body, err = read(item.Literal, f.take(mail.UID, size)); err != nil {
				return err
			}
			passed = mail.Body == nil
		}
	}
	switch {
	case passed:
		f.Passed = append(f.Passed, Sized{UID: mail.UID, Size: size})
	case mail.Body != nil:
		f.Mails = append(f.Mails, mail)
	}
	return nil
}

// read reads a literal into a buffer of its size, or over it. A literal that the connection cut short reads, for go-imap, as if it were whole.
func read(literal imap.LiteralReader, into []byte) ([]byte, error) {
	if into == nil {
		n, err := io.Copy(io.Discard, literal)
		if err == nil && n != literal.Size() {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if int64(len(into)) != literal.Size() {
		return nil, errors.New("a buffer of another size than the mail") // a fault of ours
	}
	if _, err := io.ReadFull(literal, into); err != nil {
		return nil, err
	}
	if n, err := literal.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // go-imap's reader waits for this
		return nil, errors.New("more bytes than were announced")
	}
	return into, nil
}

func texts(flags []imap.Flag) []string {
	if len(flags) == 0 {
		return nil
	}
	list := make([]string, len(flags))
	for i, flag := range flags {
		list[i] = string(flag)
	}
	return list
}

// reconcile compares every UID asked for with every body got.
func (f *Fetched) reconcile() {
	if len(f.Mails) == len(f.asked) { // go-imap passes on none twice and none that was not asked for
		return
	}
	got := make(map[uint32]bool, len(f.asked))
	for i := range f.Mails {
		got[f.Mails[i].UID] = true
	}
	for _, mail := range f.Passed {
		got[mail.UID] = true
	}
	for _, uid := range f.asked {
		if !got[uid] {
			f.Missing = append(f.Missing, uid)
		}
	}
}

// stray is a mail that is fetched alone, in case that the server names its UID behind the body, as it may. go-imap cannot tell then which command has
// asked for it.
type stray struct {
	uid  uint32
	take Take

	taken  atomic.Bool
	result Fetched
	err    error
	done   chan struct{} // closed when result and err are there, if taken is set
}

// catch gets what go-imap could not match with a command, in a goroutine of its own. go-imap's reader waits until a body is read.
func (s *Session) catch(message *imapclient.FetchMessageData) {
	mail, size := Mail{}, int64(0)
	var wish *stray
	for item := message.Next(); item != nil; item = message.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			mail.UID = uint32(item.UID)
		case imapclient.FetchItemDataFlags:
			mail.Flags = texts(item.Flags)
		case imapclient.FetchItemDataInternalDate:
			mail.InternalDate = item.Time
		case imapclient.FetchItemDataBodySection:
			wanted := s.heard.stray.Load()
			if wanted == nil || item.Literal == nil || mail.UID != 0 || !item.MatchCommand(wholeBody[0]) || wanted.taken.Swap(true) {
				continue // Next reads over what was not read
			}
			wish, size = wanted, item.Literal.Size()
			defer close(wish.done)
			mail.Body, wish.err = read(item.Literal, wish.take(wish.uid, size))
		}
	}
	switch {
	case wish == nil || wish.err != nil || mail.UID != wish.uid:
	case mail.Body != nil:
		wish.result.Mails = []Mail{mail}
	default:
		wish.result.Passed = []Sized{{UID: wish.uid, Size: size}}
	}
}

// settled returns the stray that somebody has taken up, if there is one, when he is done with it. Whoever reads a body has go-imap's reader wait, so it is
// known by the time that the command has its answer.
func (s *Session) settled() *stray {
	wish := s.heard.stray.Swap(nil)
	if wish == nil || !wish.taken.Load() {
		return nil
	}
	<-wish.done
	return wish
}

// adopt takes a stray as the answer, if it turned out to be the mail asked for.
func (f *Fetched) adopt(wish *stray) {
	if wish.err == nil && len(wish.result.Mails)+len(wish.result.Passed) > 0 {
		f.Mails, f.Passed, f.Missing = wish.result.Mails, wish.result.Passed, nil
	}
}
