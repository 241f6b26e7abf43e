package auth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"spamtraps.internal/libs/secret"
)

const (
	// fetchTimeout is what a token endpoint may take, with everything.
	fetchTimeout = 20 * time.Second
	// refreshBefore is how long before its end a token is no longer shown to anybody, or half of its life when that is shorter.
	refreshBefore = 10 * time.Minute
	// unknownLife is what a token without expires_in is taken to last.
	unknownLife = 5 * time.Minute
	// failureLife is how long a temporary failure answers for everybody who asks: hundreds of mailboxes may share a token.
	failureLife = 15 * time.Second
	// refusalLife is the same for a failure that somebody must mend.
	refusalLife = time.Minute
)

// endpoint is a source that asks a provider's token endpoint, for one mailbox with a refresh token, or for all that share an application's
// access. One goroutine at a time asks; it finishes even if whoever wanted the token gives up, since the answer may hold a refresh token that
// is given once.
type endpoint struct {
	settings OAuth
	proxy    secret.Secret
	keeper   *keeper // nil: no refresh token
	tell     func(problem string, err error)
	now      func() time.Time
	timeout  time.Duration

	turn chan struct{} // holds a value while somebody asks

	mu      sync.Mutex
	current accessToken
	renew   time.Time // when current is not shown any more
	failed  *Error
	retry   time.Time // until when failed answers
}

func (e *endpoint) token(ctx context.Context) (accessToken, error) {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return accessToken{}, &Error{Err: fmt.Errorf("wait for a token: %w", ctx.Err())}
	}
	if token, known, err := e.cached(); known {
		<-e.turn
		return token, err
	}
	type result struct {
		token accessToken
		err   error
	}
	answered := make(chan result, 1)
	go func() {
		defer func() { <-e.turn }()
		fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.timeout)
		defer cancel()
		token, err := e.fetch(fetching)
		answered <- result{token, err}
	}()
	select {
	case r := <-answered:
		return r.token, r.err
	case <-ctx.Done():
		return accessToken{}, &Error{Err: fmt.Errorf("wait for a token: %w", ctx.Err())}
	}
}

// cached answers without asking, if that is possible: known tells whether there is an answer, which may be an error.
func (e *endpoint) cached() (token accessToken, known bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	switch {
	case now.Before(e.renew):
		return e.current, true, nil
	case now.Before(e.retry):
		return accessToken{}, true, e.failed
	}
	return accessToken{}, false, nil
}

// refuse forgets a token, unless there is another one since.
func (e *endpoint) refuse(token accessToken) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current.access == token.access {
		e.renew = time.Time{}
	}
}

// fetch asks, keeps what must be kept, and remembers the answer.
func (e *endpoint) fetch(ctx context.Context) (accessToken, error) {
	token, err := e.ask(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if failed := (*Error)(nil); errors.As(err, &failed) {
		life := failureLife
		if failed.Credentials {
			life = refusalLife
		}
		e.failed, e.retry = failed, now.Add(life)
		return accessToken{}, failed
	}
	life := unknownLife
	if !token.expires.IsZero() {
		life = token.expires.Sub(now)
	}
	e.current, e.renew = token, now.Add(life-min(refreshBefore, life/2))
	e.failed, e.retry = nil, time.Time{}
	return token, nil
}

// ask is one request to the endpoint. Every error is an *Error.
func (e *endpoint) ask(ctx context.Context) (accessToken, error) {
	hide, config, err := e.request()
	if err != nil {
		return accessToken{}, &Error{Err: err}
	}
	used := config.EndpointParams.Get("refresh_token")
	client, err := e.client()
	if err != nil {
		return accessToken{}, &Error{Err: err}
	}
	defer client.CloseIdleConnections()
	answer, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	switch {
	case err != nil && ctx.Err() != nil:
		return accessToken{}, &Error{Err: fmt.Errorf("get a token from %s: it took longer than %s", e.host(), e.timeout)}
	case err != nil:
		return accessToken{}, e.failure(err, hide)
	}
	if e.keeper != nil {
		e.keep(used, answer)
	}
	if err := checkToken(answer.AccessToken); err != nil {
		return accessToken{}, &Error{Err: fmt.Errorf("get a token from %s: what it gave %w", e.host(), err)}
	}
	return accessToken{access: answer.AccessToken, expires: answer.Expiry}, nil
}

// request builds the request, and lists the secrets in it. The library's other way to use a refresh token sends no scope, which Microsoft needs
// when the token is good for several things.
func (e *endpoint) request() (hide []string, _ *clientcredentials.Config, _ error) {
	clientSecret, err := e.settings.ClientSecret.Reveal()
	if err != nil {
		return nil, nil, err
	}
	config := &clientcredentials.Config{
		ClientID: e.settings.ClientID, ClientSecret: clientSecret, TokenURL: e.settings.TokenURL, Scopes: e.settings.Scopes,
	}
	if e.settings.Provider == google || e.settings.Provider == microsoft {
		config.AuthStyle = oauth2.AuthStyleInParams
	}
	hide = []string{clientSecret}
	if e.keeper != nil {
		refresh, err := e.keeper.load()
		if err != nil {
			return nil, nil, err
		}
		config.EndpointParams = url.Values{"grant_type": {grantRefresh}, "refresh_token": {refresh}}
		hide = append(hide, refresh)
	}
	return hide, config, nil
}

// client returns an HTTP client for one request. It follows no redirect, which would take our secrets elsewhere, and asks through the mailbox's
// own proxy, or none.
func (e *endpoint) client() (*http.Client, error) {
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true,
	}
	if e.proxy.IsSet() {
		text, err := e.proxy.Reveal()
		if err != nil {
			return nil, err
		}
		through, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return nil, errors.New("the proxy is no URL")
		}
		transport.Proxy = http.ProxyURL(through)
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}, nil
}

// keep stores a refresh token that the provider has given us instead of the one that we used.
func (e *endpoint) keep(used string, answer *oauth2.Token) {
	lasts := Lasts{Since: e.now()}
	if seconds, ok := answer.Extra("refresh_token_expires_in").(float64); ok && seconds > 0 && seconds < 1e9 {
		lasts.Until = lasts.Since.Add(time.Duration(seconds) * time.Second)
	}
	given := answer.RefreshToken
	if given == "" {
		given = used
	}
	if err := checkToken(given); err != nil {
		e.tell("the provider gave a refresh token that is none; the one before is used on", err)
		return
	}
	if err := e.keeper.keep(given, lasts); err != nil {
		e.tell("the refresh token that the provider gave cannot be written to the disk: it is lost when this program ends", err)
	}
}

func (e *endpoint) host() string {
	if endpoint, err := url.Parse(e.settings.TokenURL); err == nil {
		return endpoint.Host
	}
	return "the token endpoint"
}

// temporaryCodes are the errors of RFC 6749 §4.1.2.1 and RFC 8628 §3.5 that pass by themselves.
var temporaryCodes = map[string]bool{"temporarily_unavailable": true, "server_error": true, "slow_down": true, "authorization_pending": true}

// failure turns an error of the library into ours. Those of the library show the whole answer, and URLs.
func (e *endpoint) failure(err error, hide []string) *Error {
	doing := "get a token from " + e.host()
	var refused *oauth2.RetrieveError
	var unreached *url.Error
	switch {
	case errors.As(err, &refused) && isCode(refused.ErrorCode):
		status := 0
		if refused.Response != nil {
			status = refused.Response.StatusCode
		}
		temporary := temporaryCodes[refused.ErrorCode] || status >= 500 || status == http.StatusTooManyRequests
		text := fmt.Sprintf("%s: it said %s", doing, shown(refused.ErrorCode, hide))
		if description := shown(refused.ErrorDescription, hide); description != "" {
			text += ": " + description
		}
		return &Error{Credentials: !temporary, Err: errors.New(text)}
	case errors.As(err, &refused) && refused.Response != nil:
		return &Error{Err: fmt.Errorf("%s: it answered HTTP %d", doing, refused.Response.StatusCode)}
	case errors.As(err, &unreached):
		return &Error{Err: fmt.Errorf("%s: %w", doing, unreached.Err)}
	default:
		return &Error{Err: fmt.Errorf("%s: its answer is no token", doing)}
	}
}

// shown makes a provider's words fit for a log: short, one line, and without any of our secrets.
func shown(text string, hide []string) string {
	for _, hidden := range hide {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "***")
			text = strings.ReplaceAll(text, url.QueryEscape(hidden), "***")
		}
	}
	text, _, _ = strings.Cut(text, "Trace ID:") // Microsoft's, of no use to us
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + "…"
	}
	return text
}

func (e *endpoint) describe() string {
	provider := e.settings.Provider
	if provider == "" || provider == "other" {
		provider = e.host()
	}
	if e.keeper == nil {
		return "application access from " + provider
	}
	return "refresh token of " + provider
}

func (e *endpoint) lasts() Lasts {
	if e.keeper == nil {
		return Lasts{}
	}
	lasts := e.keeper.lasts()
	if !lasts.Since.IsZero() && lasts.Until.IsZero() {
		lasts.Until = unusedLife(e.settings.Provider, lasts.Since)
	}
	return lasts
}

// unusedLife is when a refresh token ends that is not used, as the providers document it; zero: unknown.
func unusedLife(provider string, since time.Time) time.Time {
	switch provider {
	case microsoft:
		return since.AddDate(0, 0, 90)
	case google:
		return since.AddDate(0, 6, 0)
	default:
		return time.Time{}
	}
}

// fingerprint tells two secrets apart without being one.
func fingerprint(text string) string {
	sum := sha256.Sum256([]byte("spamtraps " + text))
	return hex.EncodeToString(sum[:])
}
