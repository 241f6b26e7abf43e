package session

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
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
	sizes := &Sizes{}
	mails := make([]Sized, 0, len(uids))
	sizes.Call = s.start("UID FETCH RFC822.SIZE", func() error {
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
			mails = append(mails, mail)
		}
		return command.Close()
	}, func(err error) error {
		sizes.Mails = mails
		return err
	})
	return sizes
}

// Mail is a mail that was fetched whole.
type Mail struct {
	UID          uint32
	Flags        []string
	InternalDate time.Time // zero: the server did not tell
	Body         []byte    // exactly as many bytes as were announced
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
	Differs []uint32 // those of Missing that came more than once, with different bytes
	asked   []uint32
}

// answer is what was read of a fetch so far.
type answer struct {
	session *Session
	mails   []Mail
	passed  []Sized
	take    Take
	wish    *stray
	copies  []*bodyCopy
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
	f := &Fetched{asked: uids}
	got := &answer{session: s, mails: make([]Mail, 0, len(uids)), take: take}
	f.Call = s.start(fmt.Sprintf("UID FETCH of %d mails", len(uids)), func() error {
		err := got.read(command)
		got.wish, got.copies = s.heard.settled(uids), s.heard.copiesOf(uids)
		return err
	}, func(err error) error {
		f.Mails, f.Passed = got.mails, got.passed
		if err == nil {
			f.reconcile()
			f.compare(got.wish, got.copies)
		}
		return err
	})
	return f
}

// read takes everything out of the command, also after an error, since go-imap waits for that.
func (a *answer) read(command *imapclient.FetchCommand) error {
	var first error
	for message := command.Next(); message != nil; message = command.Next() {
		if err := a.readMail(message); err != nil && first == nil {
			first = err
		}
	}
	if err := command.Close(); err != nil {
		return err
	}
	return first
}

// readMail reads what the server says of one mail.
func (a *answer) readMail(message *imapclient.FetchMessageData) error {
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
			if mail.Body, err = a.session.read(item.Literal, a.take(mail.UID, size)); err != nil {
				return err
			}
			passed = mail.Body == nil
		}
	}
	switch {
	case passed:
		a.passed = append(a.passed, Sized{UID: mail.UID, Size: size})
	case mail.Body != nil:
		a.mails = append(a.mails, mail)
	}
	return nil
}

// read reads a literal. When the connection ends in it, it waits for the end of go-imap's reader, since go-imap reads what is left of a literal once
// more, whoever else is reading then.
func (s *Session) read(literal imap.LiteralReader, into []byte) ([]byte, error) {
	body, err := read(literal, into)
	if err != nil && s.conn.Err() != nil {
		<-s.client.Closed()
	}
	return body, err
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

// stray is a mail that is fetched alone, in case that go-imap does not know its body for the answer: because the server names its UID behind the body, as
// it may, or tells something else about the mail first, such as its flags.
type stray struct {
	uid  uint32
	take Take

	taken  atomic.Bool
	mail   Mail
	passed *Sized
	err    error
	done   chan struct{} // closed when the rest is there, if taken is set
}

// bodyCopy is a body that came beside the answer to a command: once more, as a rule.
type bodyCopy struct {
	uid  uint32
	sum  [sha256.Size]byte
	err  error
	done chan struct{} // closed when the rest is there
}

// catch gets what go-imap could not match with a command, in a goroutine of its own. go-imap's reader waits until a body is read, so by the time that a
// command has its answer, what belongs to it is known to be on its way.
func (s *Session) catch(message *imapclient.FetchMessageData) {
	mail := Mail{}
	var wish *stray
	var copies []*bodyCopy
	for item := message.Next(); item != nil; item = message.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			mail.UID = uint32(item.UID)
		case imapclient.FetchItemDataFlags:
			mail.Flags = texts(item.Flags)
		case imapclient.FetchItemDataInternalDate:
			mail.InternalDate = item.Time
		case imapclient.FetchItemDataBodySection:
			if item.Literal == nil || !item.MatchCommand(wholeBody[0]) {
				continue // Next reads over what was not read
			}
			wanted := s.heard.stray.Load()
			if wanted == nil || mail.UID != 0 && mail.UID != wanted.uid || wanted.taken.Swap(true) {
				copies = append(copies, s.copy(item.Literal))
				continue
			}
			wish = wanted
			size := item.Literal.Size()
			if mail.Body, wish.err = s.read(item.Literal, wish.take(wish.uid, size)); mail.Body == nil {
				wish.passed = &Sized{UID: wish.uid, Size: size}
			}
		}
	}
	for _, c := range copies {
		c.uid = mail.UID
		close(c.done)
	}
	if wish != nil {
		wish.mail = mail
		close(wish.done)
	}
}

// copy notes a body that is only good for comparing.
func (s *Session) copy(literal imap.LiteralReader) *bodyCopy {
	c := &bodyCopy{done: make(chan struct{})}
	h := &s.heard
	h.mu.Lock()
	h.copies = append(h.copies[max(0, len(h.copies)-mostCopies):], c)
	h.mu.Unlock()
	sum := sha256.New()
	if _, c.err = io.Copy(sum, literal); c.err != nil && s.conn.Err() != nil {
		<-s.client.Closed()
	}
	sum.Sum(c.sum[:0])
	return c
}

// settled returns the stray of a fetch that somebody has taken up, if there is one, when he is done with it.
func (h *heard) settled(uids []uint32) *stray {
	wish := h.stray.Load()
	if len(uids) != 1 || wish == nil || wish.uid != uids[0] {
		return nil
	}
	h.stray.Store(nil)
	if !wish.taken.Load() {
		return nil
	}
	<-wish.done
	if wish.err != nil || wish.mail.UID != wish.uid {
		return nil // it turned out to be another mail, or none
	}
	return wish
}

// mostCopies is how many copies are remembered until the next command has its answer.
const mostCopies = 4096

// copiesOf returns what came once more of these mails.
func (h *heard) copiesOf(uids []uint32) []*bodyCopy {
	h.mu.Lock()
	all := slices.Clone(h.copies)
	h.mu.Unlock()
	return slices.DeleteFunc(all, func(c *bodyCopy) bool {
		<-c.done
		_, asked := slices.BinarySearch(uids, c.uid)
		return !asked || c.err != nil
	})
}

func (h *heard) forgetCopies() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.copies = nil
}

// compare takes a stray as the answer when there is no other, and sets mails aside of which different bytes have come: nobody can tell which are theirs.
func (f *Fetched) compare(wish *stray, copies []*bodyCopy) {
	switch {
	case wish == nil:
	case len(f.Missing) == 0 && wish.passed == nil:
		copies = append(copies, &bodyCopy{uid: wish.uid, sum: sha256.Sum256(wish.mail.Body)})
	case len(f.Missing) > 0 && wish.passed == nil:
		f.Mails, f.Missing = []Mail{wish.mail}, nil
	case len(f.Missing) > 0:
		f.Passed, f.Missing = []Sized{*wish.passed}, nil
	}
	for _, c := range copies {
		i := slices.IndexFunc(f.Mails, func(m Mail) bool { return m.UID == c.uid })
		if i < 0 || sha256.Sum256(f.Mails[i].Body) == c.sum {
			continue
		}
		f.Mails = slices.Delete(f.Mails, i, i+1)
		f.Differs = append(f.Differs, c.uid)
		f.Missing = append(f.Missing, c.uid)
		slices.Sort(f.Missing)
	}
}
