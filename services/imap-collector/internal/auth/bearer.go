package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
)

// bearerLogin shows a token to the server.
type bearerLogin struct {
	username, host string
	port           int
	mechanism      string // "": what the server offers
	tokens         source
}

// Mechanism prefers OAUTHBEARER, which is the standard, to XOAUTH2.
func (l *bearerLogin) Mechanism(ctx context.Context, offered func(string) bool) (Mechanism, error) {
	name, err := l.choose(offered)
	if err != nil {
		return Mechanism{}, err
	}
	token, err := l.tokens.token(ctx)
	if err != nil {
		return Mechanism{}, err
	}
	m := Mechanism{Name: name, Username: l.username, Expires: token.expires, Refused: func() { l.tokens.refuse(token) }}
	if name == OAuthBearer {
		m.SASL = sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: saslName(l.username), Token: token.access, Host: l.host, Port: l.port})
	} else {
		m.SASL = &xoauth2{username: l.username, token: token.access}
	}
	return m, nil
}

func (l *bearerLogin) choose(offered func(string) bool) (string, error) {
	for _, name := range []string{OAuthBearer, XOAuth2} {
		if (l.mechanism == "" || l.mechanism == name) && offered(name) {
			return name, nil
		}
	}
	wanted := l.mechanism
	if wanted == "" {
		wanted = "OAUTHBEARER or XOAUTH2"
	}
	return "", &Error{Credentials: true, Err: fmt.Errorf("the server does not offer %s: it takes no token on this connection", wanted)}
}

// Describe says how the login is done, for people.
func (l *bearerLogin) Describe() string { return l.tokens.describe() }

// Lasts returns what is known of the refresh token.
func (l *bearerLogin) Lasts() Lasts { return l.tokens.lasts() }

// saslName escapes a name for GS2 (RFC 5801 §4), which go-sasl leaves to us.
func saslName(name string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(name) }

// xoauth2 is the SASL client of XOAUTH2, as Google and Microsoft describe it.
type xoauth2 struct{ username, token string }

// Start returns the only thing that the client ever says.
func (x *xoauth2) Start() (string, []byte, error) {
	return XOAuth2, []byte("user=" + x.username + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

// Next gets a challenge only when the token was refused. It should be answered by an empty line to hear the tagged NO, but go-imap
// would write "="; so the try ends here, and with it the connection.
func (x *xoauth2) Next(challenge []byte) ([]byte, error) { return nil, refusal(XOAuth2, challenge) }

// refusal reads what the server says of a token that it does not take. A status is a number or a word; anything else stays unsaid, for
// a hostile server has the token and could say it.
func refusal(mechanism string, challenge []byte) error {
	var answer struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(challenge, &answer) == nil && isCode(answer.Status) {
		return &Error{Credentials: true, Err: fmt.Errorf("%s: the server refused the token with status %s", mechanism, answer.Status)}
	}
	return &Error{Credentials: true, Err: errors.New(mechanism + ": the server refused the token")}
}

// isCode tells whether text is short and plain enough to be a code and nothing else.
func isCode(text string) bool {
	return text != "" && len(text) <= 40 && strings.Trim(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}
