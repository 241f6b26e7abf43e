package wire

import "fmt"

// Error is why a connection ended. The first one stays: whoever reads or writes later gets the same.
type Error struct {
	Kind Kind
	// Text says what happened, in words for an operator. Words of the server in it are quoted and cut.
	Text string
	// Cause is the error of the network, if there was one.
	Cause error
}

// Kind is why a connection ended.
type Kind int

// The kinds there are.
const (
	Closed  Kind = iota // by ourselves
	Gone                // the server has closed the connection, or the network has
	Silent              // the server did not answer in time, or took nothing that was sent
	Slow                // the server sent too little in too long a time
	Flood               // the server sent more than was asked for
	TooLong             // a line or a literal was longer than any that we take
	Stuck               // our own side did not read
	Garbage             // what the server sent is not IMAP
)

// Error returns the text, and the cause if there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Text + ": " + e.Cause.Error()
	}
	return e.Text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func failed(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// clip quotes what a server said for an error's text, and cuts it.
func clip(text []byte) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return fmt.Sprintf("%q", text)
}
