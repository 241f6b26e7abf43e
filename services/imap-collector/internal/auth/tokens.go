package auth

import (
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"spamtraps.internal/libs/secret"
)

// Tokens makes the Logins that need tokens. Mailboxes with access by the same application share one token. It is safe for concurrent use.
type Tokens struct {
	stateDir string
	now      func() time.Time

	mu     sync.Mutex
	log    zerolog.Logger
	shared map[string]*endpoint
}

// NewTokens returns a maker of Logins that keep rotated refresh tokens in stateDir, where their own files cannot; "": nowhere. It touches no disk.
func NewTokens(stateDir string) *Tokens {
	return &Tokens{stateDir: stateDir, now: time.Now, log: zerolog.Nop(), shared: make(map[string]*endpoint)}
}

// SetLog says where problems go that no error can tell of. Before it is called they go nowhere.
func (t *Tokens) SetLog(log zerolog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = log
}

// Mailbox is whom a Login is for.
type Mailbox struct {
	ID, Name       string
	Username, Host string
	Port           int
	Proxy          secret.Secret
}

// Login returns the Login of a mailbox whose tokens come as settings says, which Validate has approved. It does not block.
func (t *Tokens) Login(m Mailbox, settings OAuth) Login {
	return &bearerLogin{username: m.Username, host: m.Host, port: m.Port, mechanism: settings.Mechanism, tokens: t.source(m, settings)}
}

func (t *Tokens) source(m Mailbox, settings OAuth) source {
	switch {
	case settings.TokenFile != "":
		return fileSource{settings.TokenFile}
	case settings.TokenCommand != "":
		return commandSource{settings.TokenCommand}
	case settings.Grant == grantClient:
		return t.application(m, settings)
	}
	e := t.newEndpoint(m, settings)
	e.keeper = &keeper{configured: settings.RefreshToken}
	if t.stateDir != "" {
		e.keeper.path = filepath.Join(t.stateDir, "refresh-token-"+fingerprint(m.ID)[:32]+".json")
	}
	return e
}

// application returns the endpoint of all mailboxes with the same application, asked by the same way.
func (t *Tokens) application(m Mailbox, settings OAuth) *endpoint {
	proxy, _ := m.Proxy.Reveal() // one that cannot be read now is an error when it is used
	key := strings.Join(append([]string{settings.TokenURL, settings.ClientID, settings.ClientSecret.File(), proxy, m.Proxy.File()}, settings.Scopes...), "\x00")
	if literal := settings.ClientSecret.File() == ""; literal {
		secret, _ := settings.ClientSecret.Reveal()
		key += "\x00" + fingerprint(secret)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shared[key] == nil {
		t.shared[key] = t.newEndpoint(m, settings)
	}
	return t.shared[key]
}

func (t *Tokens) newEndpoint(m Mailbox, settings OAuth) *endpoint {
	return &endpoint{settings: settings, proxy: m.Proxy, now: t.now, timeout: fetchTimeout, turn: make(chan struct{}, 1), tell: func(problem string, err error) {
		t.mu.Lock()
		log := t.log
		t.mu.Unlock()
		log.Error().Str("mailbox", m.Name).Err(err).Msg(problem)
	}}
}
