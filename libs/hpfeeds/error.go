package hpfeeds

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is what ends a Conn, or keeps one from being made. Its text is for the log and the operator: it holds no secret, and of what the
// broker said only what Sanitize lets through. It stays the same while the fault does, so that a log can tell a change from a repetition.
type Error struct {
	// Permanent: somebody has to change something before another try is worth it. Everything else passes.
	Permanent bool
	// Reason is the kind of failure, for metrics.
	Reason Reason
	// Err says in words what happened, and wraps the cause.
	Err error
}

// Error returns the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reason is a kind of failure.
type Reason string

// The kinds of failure that there are.
const (
	ReasonUnreachable Reason = "unreachable" // no connection can be made
	ReasonTLS         Reason = "tls"         // permanent: one side does not accept the other's certificate, or there is no TLS
	ReasonAuth        Reason = "auth"        // permanent: the broker refuses ident or secret
	ReasonRights      Reason = "rights"      // permanent: the ident has no right to a channel
	ReasonName        Reason = "name"        // permanent: an ident, a channel or a payload that a frame cannot carry
	ReasonRefused     Reason = "refused"     // the broker said no, in an ERROR frame that nobody knows
	ReasonHungUp      Reason = "hung_up"     // closed soon after the login, without a word: it may mean no as well
	ReasonClosed      Reason = "closed"      // the connection was closed or reset
	ReasonSilent      Reason = "silent"      // the broker did not answer or read in time
	ReasonProtocol    Reason = "protocol"    // what the broker sends is not hpfeeds; permanent when it was never any better
	ReasonEnded       Reason = "ended"       // Close was called, or the caller's context ended
)

// maxTold is how much of a broker's text an error quotes, in bytes.
const maxTold = 256

// Sanitize returns text that a stranger has written so that it can be shown on a terminal and in a log: valid UTF-8, one line, without
// control characters and without those that hide text or turn its direction. What is taken out leaves a �.
func Sanitize(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// told returns what a broker said, as an error may quote it.
func told(text []byte) string {
	cut := len(text) > maxTold
	if cut {
		text = text[:maxTold]
		for len(text) > 0 && !utf8.RuneStart(text[len(text)-1]) {
			text = text[:len(text)-1]
		}
	}
	clean := Sanitize(string(text))
	if cut {
		clean += "…"
	}
	return clean
}
