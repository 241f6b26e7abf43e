package auth

import (
	"context"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"

	"spamtraps.internal/libs/secret"
)

// NewPassword returns the Login of a user with a password. A password in a file is read at each try.
func NewPassword(username string, password secret.Secret) Login {
	return &passwordLogin{username: username, password: password}
}

type passwordLogin struct {
	username string
	password secret.Secret
}

// Mechanism prefers PLAIN, which carries any character; LOGIN is for servers that have nothing else.
func (l *passwordLogin) Mechanism(_ context.Context, offered func(string) bool) (Mechanism, error) {
	password, err := l.password.Reveal()
	if err != nil {
		return Mechanism{}, &Error{Err: err}
	}
	if strings.ContainsAny(password, "\x00\r\n") {
		return Mechanism{}, &Error{Credentials: true, Err: errors.New("the password has a NUL byte or a line end in it, which IMAP cannot carry")}
	}
	m := Mechanism{Username: l.username, Password: password, Refused: func() {}}
	switch {
	case offered(Plain):
		m.Name, m.SASL = Plain, sasl.NewPlainClient("", l.username, password)
	case offered(CommandLogin):
		m.Name = CommandLogin
	case offered(XOAuth2) || offered(OAuthBearer):
		return Mechanism{}, &Error{Credentials: true, Err: errors.New("the server takes no password, but OAuth 2.0: see docs/oauth.md")}
	default:
		return Mechanism{}, &Error{Credentials: true, Err: errors.New("the server offers no login with a password on this connection")}
	}
	return m, nil
}

// Describe says how the login is done, for people.
func (l *passwordLogin) Describe() string {
	if l.password.File() != "" {
		return "password from " + l.password.File()
	}
	return "password"
}
