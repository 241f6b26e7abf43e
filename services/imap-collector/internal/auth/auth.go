// Package auth is how a mailbox's owner proves who they are: by password, or by an OAuth 2.0 token that is fetched, renewed and kept.
// It knows SASL mechanisms and token endpoints, and no connection to a mail server.
package auth

import (
	"context"
	"errors"
	"time"

	"github.com/emersion/go-sasl"
)

// What the function offered is asked for: names of SASL mechanisms (AUTH=… among the server's capabilities) and the command LOGIN.
const (
	Plain        = "PLAIN"       // RFC 4616
	XOAuth2      = "XOAUTH2"     // Google's and Microsoft's own
	OAuthBearer  = "OAUTHBEARER" // RFC 7628
	CommandLogin = "LOGIN"       // the command of RFC 9051 §6.2.3, and not the SASL mechanism of that name
)

// Login proves who an account is. Implementations are safe for concurrent use, and of accounts that share a token one waits for the other.
type Login interface {
	// Mechanism returns how to log in now, with a token that is fresh. offered tells whether the server offers a mechanism, or
	// the LOGIN command, and the connection is one on which it may be used: for Plain and CommandLogin that is one with TLS, unless
	// the operator said tls: none. It is called before Mechanism returns only.
	//
	// It may block on the network, or on a command, until ctx ends, for half a minute at most. Every error is an *Error, and never shows a
	// password or a token.
	Mechanism(ctx context.Context, offered func(mechanism string) bool) (Mechanism, error)
}

// Mechanism is one try to log in. It is for one connection, once.
type Mechanism struct {
	// Name is what is used, for the log: Plain, XOAuth2, OAuthBearer or CommandLogin.
	Name string
	// SASL is the client for AUTHENTICATE; nil: use the command LOGIN with Username and Password.
	SASL               sasl.Client
	Username, Password string
	// Expires is when the token ends, and with it perhaps the session; zero: never, or nobody knows.
	Expires time.Time
	// Refused must be called when the server did not take these credentials, so that no cached token is offered again. It is never nil.
	Refused func()
}

// Error is why there is no way to log in.
type Error struct {
	// Credentials tells that somebody must change something: a password, a grant, a setting. Else it is temporary: try again.
	Credentials bool
	// Err says what we were doing and what came of it. It shows no secret.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// IsCredentials tells whether an error is one that trying again does not mend, because somebody must change something.
func IsCredentials(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Credentials
}
